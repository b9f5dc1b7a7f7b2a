"""Types of the native engine. Private: the public names are in `kumo_crt`."""

from typing import Any

def build_info() -> dict[str, Any]: ...
def crc32(data: object, value: int = 0) -> int:
    """CRC-32 (Ethernet, zlib) of a C-contiguous buffer, continued from ``value``."""

def crc32c(data: object, value: int = 0) -> int:
    """CRC-32C (Castagnoli) of a C-contiguous buffer, continued from ``value``."""

def crc64nvme(data: object, value: int = 0) -> int:
    """CRC-64/NVME of a C-contiguous buffer, continued from ``value``."""

def crc32_combine(a: int, b: int, len_b: int) -> int:
    """CRC-32 of A followed by B, from theirs and the length of B in bytes."""

def crc32c_combine(a: int, b: int, len_b: int) -> int:
    """CRC-32C of A followed by B, from theirs and the length of B in bytes."""

def crc64nvme_combine(a: int, b: int, len_b: int) -> int:
    """CRC-64/NVME of A followed by B, from theirs and the length of B in bytes."""

# -- runtime: crt/, s3/ ------------------------------------------------------------------------

def init_libraries() -> None: ...
def shutdown(timeout: float) -> bool:
    """Cancels what is under way and ends the threads; False if some did not end in time."""

def log_subjects() -> list[tuple[int, str]]: ...
def set_log_level(level: int) -> None: ...
def set_subject_log_level(subject: int, level: int) -> None: ...
def take_log_lines(timeout: float) -> list[tuple[int, str, str]]:
    """Waits for log lines: CRT level (1 fatal .. 6 trace), subject, text."""

def log_stopped() -> bool: ...

class CompletionQueue:
    """Ids of operations that are over."""

    def __init__(self) -> None: ...
    def take(self, timeout: float) -> list[int]:
        """Waits up to ``timeout`` seconds for the first; raises what a signal handler raises."""

class NativeBody:
    """Native memory with a read-only buffer protocol."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Response:
    """What an operation was answered; ``error_code`` 0 is success."""

    @property
    def error_code(self) -> int: ...
    @property
    def error_name(self) -> str: ...
    @property
    def error_text(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> list[tuple[str, str]]: ...
    @property
    def body(self) -> NativeBody: ...
    @property
    def error_body(self) -> bytes: ...
    @property
    def received(self) -> int: ...
    @property
    def crc32c_sent(self) -> int: ...
    @property
    def crc32c_received(self) -> int: ...

class Operation:
    """One request in flight. Dropping it before its end cancels it."""

    @property
    def id(self) -> int: ...
    @property
    def done(self) -> bool: ...
    @property
    def transferred(self) -> int: ...
    def cancel(self) -> None: ...
    def response(self) -> Response:
        """Its answer, once: after its id came out of the queue."""

class Client:
    """A native S3 client."""

    def __init__(
        self,
        *,
        region: str,
        tls: bool,
        ca_file: str,
        verify: bool,
        anonymous: bool,
        access_key_id: str | None,
        secret_access_key: str | None,
        session_token: str | None,
        profile: str | None,
        part_size: int,
        memory_limit: int,
        max_connections: int,
        event_loops: int,
        max_attempts: int,
        connect_timeout_ms: int,
        stall_timeout_s: int,
    ) -> None: ...
    def submit(
        self,
        queue: CompletionQueue,
        call_id: int,
        *,
        operation: str,
        method: str,
        endpoint: str,
        target: str,
        headers: list[tuple[str, str]],
        body: object,
        send_crc32c: bool,
        sink: object,
        crc32c_of_response: bool,
        split_ranges: bool,
        part_size: int,
    ) -> Operation:
        """Starts a request.

        Args:
            queue: Gets the id when the operation is over.
            call_id: Any number.
            operation: S3 operation name.
            method: HTTP method.
            endpoint: ``scheme://host[:port]`` to connect to.
            target: Encoded path and query.
            headers: Headers, Host among them.
            body: None, a buffer (lent until the end), or ``(fd, offset, size)``.
            send_crc32c: Adds the body's CRC32C as x-amz-checksum-crc32c.
            sink: None (native memory), ``"discard"``, a writable buffer, or ``(fd, offset)``.
            crc32c_of_response: Computes the CRC32C of the body received.
            split_ranges: Lets a GetObject go in ranged requests.
            part_size: Bytes of those.
        """

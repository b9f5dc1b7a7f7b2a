"""Types of the native engine. Private: the public names are in `kumo_crt`."""

from collections.abc import Iterable
from os import PathLike
from typing import Any, Literal, final

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

# -- files -------------------------------------------------------------------------------------

def exchange_paths(a: str | PathLike[str], b: str | PathLike[str]) -> None:
    """Gives each of two directory entries the other's name, in one step.

    Raises:
        OSError: One is missing, or the file system cannot do this (EINVAL, ENOSYS).
    """

def reserve_space(fd: int, offset: int, size: int) -> None:
    """Reserves space for a part of a file that is about to be written; its size stays.

    Where that cannot be had (no room, a file system that cannot do it), nothing happens.
    """

# -- sealed files: crypto/ ----------------------------------------------------------------------

SEALED_CHUNK: int
SEALED_HEADER: int
SEALED_TAG: int

def sealed_size(size: int) -> int:
    """Bytes that a content of this size has when it is sealed."""

class SealError(ValueError):
    """Sealed bytes are not what this key has sealed with this salt, or a content has changed."""

class Examination:
    """Finds out a content's salt and CRC32C, piece by piece and in order.

    A ``source`` is a descriptor or a buffer, with the size of the content.
    """

    def read(self, source: object, size: int, stop: int) -> None:
        """Goes on up to ``stop``.

        Raises:
            OSError: The file cannot be read, or has become shorter.
        """
    def finish(self) -> tuple[bytes, int]:
        """Salt and CRC32C; nothing may follow."""

class SealingKey:
    """A key of 32 bytes; see docs/format.md, "Encryption"."""

    def __init__(self, material: object) -> None: ...
    def mac(self, purpose: str, data: object) -> bytes: ...
    def header(self, salt: object) -> bytes: ...
    def examine(self) -> Examination: ...
    def seal(
        self,
        source: object,
        size: int,
        examined: Examination,
        start: int,
        stop: int,
        into: object,
    ) -> None:
        """Writes the bytes from ``start`` to ``stop`` of a content's sealed form to a buffer.

        Raises:
            SealError: The content is not what was examined any more.
            OSError: The file cannot be read, or has become shorter.
        """
    def open(self, data: object, salt: object, first: int, final: bool) -> int:
        """Opens whole chunks in a buffer, where they are, from the ``first`` of their content on.

        Args:
            data: Writable buffer; the plaintext is at its beginning afterwards.
            salt: Of the content.
            first: Number of the first chunk.
            final: Whether the last chunk of the content is among them.

        Returns:
            Bytes of plaintext.

        Raises:
            SealError: A chunk is not authentic: no plaintext of it was written.
        """
    def material(self) -> bytes:
        """The key itself."""

# -- runtime: crt/, s3/ ------------------------------------------------------------------------

class CrtError(RuntimeError):
    """A call of the CRT failed; ``name`` is its error's symbol."""

    name: str

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
    def fileno(self) -> int:
        """A descriptor that is readable while there are ids, and is never read or closed here."""

class NativeBody:
    """Native memory with a read-only buffer protocol."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def writable(self) -> WritableBody:
        """The same memory, to fill in the rest of a truncated body."""

class WritableBody:
    """A body's memory with a writable buffer protocol."""

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
    def truncated(self) -> bool:
        """Whether ``stop_after`` cut the body; ``body`` then has room for all of it."""
    @property
    def signed_with(self) -> int:
        """Which credentials it was signed with, see `Client.credentials_expired`."""
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
    @property
    def expected(self) -> int: ...
    def cancel(self) -> None: ...
    def response(self) -> Response:
        """Its answer, once: after its id came out of the queue."""

class Client:
    """A native S3 client."""

    def __init__(
        self,
        *,
        region: str,
        ca_file: str,
        verify: bool,
        anonymous: bool,
        access_key_id: str | None,
        secret_access_key: str | None,
        session_token: str | None,
        profile: str | None,
        proxy: str,
        max_connections: int,
        event_loops: int,
        connect_timeout_ms: int,
        stall_timeout_s: int,
        tls_at_once: bool,
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
        crc32c_trailing: bool,
        sink: object,
        crc32c_of_response: bool,
        stop_after: int,
        any_credentials: bool,
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
            crc32c_trailing: As a trailer, for which the body is read once; else as a header.
            sink: None (native memory), ``"document"`` (native memory, 64 MiB at most),
                ``"discard"``, a writable buffer, or ``(fd, offset)``.
            crc32c_of_response: Computes the CRC32C of the body received.
            stop_after: Where to cut an answer that is at least twice as long; 0: nowhere.
            any_credentials: Whether those that are about to expire will do, if need be.
        """
    def set_clock_offset(self, milliseconds: int) -> None:
        """Sets what to add to this machine's clock when requests are signed."""
    @property
    def clock_offset(self) -> int:
        """What is added to it, in milliseconds."""
    def credentials_expired(self, signed_with: int) -> None:
        """Has the credentials fetched again that an answer says have expired."""
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Counters and latencies by S3 operation, and the state of the connections."""
    @property
    def tls_established(self) -> bool:
        """Whether any TLS handshake has succeeded."""

# -- event streams: eventstream/ -------------------------------------------------------------------

def event_stream_limits() -> dict[str, int]:
    """Bytes that there is room for: ``message``, ``headers``, ``name``, ``value``."""

def event_stream_encode(headers: Iterable[tuple[bytes, int, bytes]], payload: object) -> bytes:
    """One message; a header is its name, the number of its type, and its value as it is sent.

    Raises:
        ValueError: Something is larger than the format has room for.
    """

@final
class EventStreamDecoder:
    """Splits a stream of messages."""

    def __init__(self) -> None: ...
    @property
    def pending(self) -> int: ...
    @property
    def offset(self) -> int: ...
    def feed(
        self, data: object
    ) -> tuple[list[tuple[int, list[tuple[bytes, int, bytes]], bytes]], str | None]:
        """Messages that end in this piece, each with its offset, and what is wrong behind them."""

# -- RocksDB's own files: rocksdb/ -----------------------------------------------------------------

_StrPath = str | bytes | PathLike[str] | PathLike[bytes]

class RocksDBFormatError(ValueError):
    """A RocksDB file is damaged, is something else, or is of a newer version."""

    path: str
    offset: int

@final
class SstProperties:
    """What a table file says about itself; see `sst_properties`."""

    @property
    def file_size(self) -> int: ...
    @property
    def table_kind(self) -> Literal["block_based", "plain", "cuckoo"]: ...
    @property
    def format_version(self) -> int: ...
    @property
    def checksum_type(self) -> Literal["none", "crc32c", "xxhash", "xxhash64", "xxh3"]: ...
    @property
    def db_id(self) -> str: ...
    @property
    def db_session_id(self) -> str: ...
    @property
    def db_host_id(self) -> str: ...
    @property
    def original_file_number(self) -> int: ...
    @property
    def creation_time(self) -> int: ...
    @property
    def file_creation_time(self) -> int: ...
    @property
    def oldest_key_time(self) -> int: ...
    @property
    def num_entries(self) -> int: ...
    @property
    def num_deletions(self) -> int: ...
    @property
    def num_merge_operands(self) -> int: ...
    @property
    def num_range_deletions(self) -> int: ...
    @property
    def raw_key_size(self) -> int: ...
    @property
    def raw_value_size(self) -> int: ...
    @property
    def data_size(self) -> int: ...
    @property
    def index_size(self) -> int: ...
    @property
    def filter_size(self) -> int: ...
    @property
    def column_family_id(self) -> int | None:
        """None for a file that no column family made (SstFileWriter)."""
    @property
    def column_family_name(self) -> str: ...
    @property
    def comparator(self) -> str: ...
    @property
    def compression(self) -> str:
        """RocksDB's name of it; several are joined by commas."""
    @property
    def global_seqno(self) -> int | None:
        """Set for files of an SstFileWriter; not 0 if ingestion wrote into the file."""
    @property
    def identity_complete(self) -> bool:
        """True if db_id, db_session_id and original_file_number name this file's content."""

@final
class ColumnFamily:
    """A column family in a MANIFEST."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def comparator(self) -> str: ...
    @property
    def log_number(self) -> int: ...
    @property
    def full_history_ts_low(self) -> bytes: ...
    @property
    def persist_user_defined_timestamps(self) -> bool: ...

@final
class SstFile:
    """A live table file in a MANIFEST."""

    @property
    def column_family_id(self) -> int: ...
    @property
    def level(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def path_id(self) -> int:
        """Index into db_paths; 0 is the database directory."""
    @property
    def smallest_key(self) -> bytes: ...
    @property
    def largest_key(self) -> bytes: ...
    @property
    def smallest_seqno(self) -> int: ...
    @property
    def largest_seqno(self) -> int: ...
    @property
    def file_checksum(self) -> bytes:
        """Empty unless the database has a checksum generator."""
    @property
    def file_checksum_func_name(self) -> str: ...
    @property
    def unique_id(self) -> bytes: ...
    @property
    def oldest_ancester_time(self) -> int: ...
    @property
    def file_creation_time(self) -> int: ...
    @property
    def epoch_number(self) -> int: ...
    @property
    def oldest_blob_file_number(self) -> int:
        """0 if the file refers to no blob file."""
    @property
    def temperature(self) -> int: ...

@final
class BlobFile:
    """A live blob file in a MANIFEST."""

    @property
    def column_family_id(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def total_count(self) -> int: ...
    @property
    def total_bytes(self) -> int:
        """Bytes of blob records, without the file's header and footer."""
    @property
    def garbage_count(self) -> int: ...
    @property
    def garbage_bytes(self) -> int: ...
    @property
    def checksum_method(self) -> str: ...
    @property
    def checksum_value(self) -> bytes: ...

@final
class ManifestState:
    """The state of a database after all records of its MANIFEST."""

    @property
    def file_size(self) -> int: ...
    @property
    def valid_bytes(self) -> int:
        """The prefix that makes up this state: whole records, whole atomic groups."""
    @property
    def edits(self) -> int: ...
    @property
    def db_id(self) -> str:
        """Empty where options or age keep it out of the MANIFEST."""
    @property
    def log_number(self) -> int: ...
    @property
    def prev_log_number(self) -> int: ...
    @property
    def next_file_number(self) -> int: ...
    @property
    def last_sequence(self) -> int: ...
    @property
    def min_log_number_to_keep(self) -> int: ...
    @property
    def max_column_family(self) -> int: ...
    @property
    def min_wal_number(self) -> int:
        """The lowest WAL that recovery reads."""
    @property
    def needed_wal_number(self) -> int:
        """The lowest WAL that RocksDB keeps: older than the former with two-phase commit."""
    @property
    def wals(self) -> dict[int, int | None]:
        """Tracked WALs (track_and_verify_wals_in_manifest) with the bytes known to be synced."""
    @property
    def column_families(self) -> tuple[ColumnFamily, ...]: ...
    @property
    def sst_files(self) -> tuple[SstFile, ...]:
        """Ordered by column family, level, number."""
    @property
    def blob_files(self) -> tuple[BlobFile, ...]: ...

@final
class ManifestChanges:
    """What the edits did that `ManifestFollower.advance` read."""

    @property
    def edits(self) -> int: ...
    @property
    def families_added(self) -> tuple[str, ...]: ...
    @property
    def families_dropped(self) -> tuple[str, ...]: ...
    @property
    def flushes(self) -> int: ...
    @property
    def ingestions(self) -> int:
        """Edits that brought files which neither a flush nor a compaction made."""
    @property
    def removals(self) -> int:
        """Edits that only took files away."""
    @property
    def added_tables(self) -> list[tuple[int, int]]:
        """Number and size of table files that came and are live now."""
    @property
    def removed_tables(self) -> list[int]:
        """Numbers of table files that went; one that moved is among the added ones, too."""
    @property
    def valid_bytes(self) -> int:
        """Where the state after the edits ends in the file."""
    @property
    def blob_files(self) -> list[int]:
        """Numbers of all blob files that are live after the edits."""
    @property
    def needed_wal_number(self) -> int:
        """WALs below it may have been deleted by now."""

@final
class ManifestFollower:
    """Replays a MANIFEST that another process appends to, a piece at a time.

    Not to be used further once it has raised.
    """

    def __init__(self, path: _StrPath) -> None: ...
    def advance(self) -> ManifestChanges:
        """Applies the whole records that were appended since the last call.

        Raises:
            RocksDBFormatError: The file is damaged, or shorter than it was.
            OSError: The file cannot be read.
        """

@final
class WalInfo:
    """What a write-ahead log holds; see `scan_wal`."""

    @property
    def file_size(self) -> int: ...
    @property
    def valid_bytes(self) -> int:
        """The prefix of whole records: cut there, the file is a whole log."""
    @property
    def records(self) -> int: ...
    @property
    def entries(self) -> int: ...
    @property
    def holes(self) -> int:
        """Places where sequence numbers are skipped between batches."""
    @property
    def first_sequence(self) -> int | None:
        """None without a batch, and in a compressed log."""
    @property
    def last_sequence(self) -> int | None: ...
    @property
    def last_entries(self) -> int:
        """Operations in the batch that has `last_sequence`."""
    @property
    def tail(self) -> Literal["clean", "partial", "zeros", "recycled", "damaged"]: ...
    @property
    def tail_offset(self) -> int: ...
    @property
    def tail_problem(self) -> str: ...
    @property
    def compressed(self) -> bool: ...
    @property
    def recycled(self) -> bool: ...
    @property
    def predecessor(self) -> tuple[int, int, int] | None:
        """Number, size and last sequence of the WAL before, where RocksDB recorded them."""

@final
class BlobFileInfo:
    """Header and footer of a blob file; see `read_blob_file`."""

    @property
    def file_size(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def column_family_id(self) -> int: ...
    @property
    def compression(self) -> str:
        """Empty if unknown."""
    @property
    def has_ttl(self) -> bool: ...
    @property
    def blob_count(self) -> int | None:
        """None in a file that is not closed."""
    @property
    def closed(self) -> bool: ...

def sst_properties(path: _StrPath) -> SstProperties:
    """Reads the end of a table file (8 KiB, mostly) and verifies what it reads.

    Raises:
        RocksDBFormatError: The file is damaged, no table, or of a newer format.
        OSError: The file cannot be read.
    """

def read_manifest(path: _StrPath, *, allow_partial: bool = True) -> ManifestState:
    """Replays a MANIFEST.

    Args:
        path: The file that CURRENT names.
        allow_partial: Accept a file that ends inside a record, inside an atomic group or in zeros,
            as one that is being appended to may; the state is the one before that.

    Raises:
        RocksDBFormatError: The file is damaged, or written by a newer RocksDB in a way that
            cannot be skipped.
        OSError: The file cannot be read.
    """

def keep_column_families(
    source: _StrPath, target: _StrPath, *, keep: set[int], newest_wal: int
) -> ManifestState:
    """Copies a MANIFEST, cut behind its last whole record, and drops column families in it.

    The default column family cannot be dropped. If it is not kept it becomes empty: its table files
    are taken out of it, and recovery leaves out what write-ahead logs hold of it.

    Args:
        source: The MANIFEST.
        target: The new one, which must not exist.
        keep: Ids of the column families to keep.
        newest_wal: The highest number of a write-ahead log of this state; 0 without one.

    Returns:
        The state of the new MANIFEST.

    Raises:
        RocksDBFormatError: The MANIFEST is damaged.
        OSError: One of the files cannot be read or written.
    """

def clear_path_ids(path: _StrPath) -> int:
    """Makes a MANIFEST say, in place, that all table files are in the first directory.

    Returns:
        How many records of files said something else.

    Raises:
        RocksDBFormatError: The file is damaged, or not whole.
        OSError: The file cannot be read or written.
    """

def scan_wal(path: _StrPath) -> WalInfo:
    """Reads a write-ahead log; damage and an unfinished end are reported, not raised.

    Raises:
        OSError: The file cannot be read.
    """

def read_blob_file(path: _StrPath) -> BlobFileInfo:
    """Reads a blob file's header and, if the file is closed, its footer.

    Raises:
        RocksDBFormatError: The header or footer is damaged.
        OSError: The file cannot be read.
    """

def read_current(path: _StrPath) -> str:
    """Returns the name of the MANIFEST that the file CURRENT holds.

    Raises:
        RocksDBFormatError: The content is not exactly a MANIFEST's name and a newline.
        OSError: The file cannot be read.
    """

def classify_file(
    name: _StrPath,
) -> tuple[
    Literal[
        "sst",
        "blob",
        "wal",
        "manifest",
        "options",
        "current",
        "identity",
        "lock",
        "info_log",
        "temp",
        "other",
    ],
    int | None,
]:
    """Says by its name alone what a file in a database directory is, and its number."""

"""Whether a body's checksum can follow it: then the body is read once, and not twice.

Not every service knows such bodies ("aws-chunked" with a trailer), and one that does not may take
the frame for content. AWS knows them. Of another service it is found out with parts of multipart
uploads, which nobody sees before they are completed: it must confirm the CRC32C that was behind the
body. A part without that is sent again, with its checksum before it, as is everything else then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kumo_crt.s3._answers import Headers, decode_crc32c

if TYPE_CHECKING:
    from kumo_crt import _core
    from kumo_crt._config import Settings

# A shorter body is read twice at less cost than a frame.
_LEAST = 1 << 20
# How a service may refuse what it does not understand.
_REFUSALS = (400, 403, 411, 415, 501)


class Trailers:
    """What is known of a client's service.

    Args:
        settings: The client's.
    """

    def __init__(self, settings: Settings) -> None:
        self._allowed = settings.checksum_trailers
        url = settings.endpoint_url
        host = (urlsplit(url).hostname or "") if url is not None else ".amazonaws.com"
        self._tried = False  # by a part that is on its way
        self._known = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

    @contextlib.contextmanager
    def for_part(self, size: int) -> Iterator[bool]:
        """Whether a part's checksum follows it; while it is sent."""
        if not self._suits(size) or (self._tried and not self._known):
            yield False
            return
        self._tried = True  # one part finds out: it may have to be sent again
        try:
            yield True
        finally:
            self._tried = False

    def for_object(self, size: int) -> bool:
        """Whether an object's does: it is there for all to see once it is sent."""
        return size >= _LEAST and self._known and self._allowed

    def _suits(self, size: int) -> bool:
        return self._allowed and size >= _LEAST

    def understood(self, answer: _core.Response) -> bool:
        """Whether an answer to a part is worth something; else it is to be sent the other way."""
        if answer.error_code != 0:
            return True  # that says nothing about the service
        if answer.status >= 300:
            return self._known or answer.status not in _REFUSALS
        self._known = confirmed(answer)
        return self._known

    def refused(self) -> None:
        """The other way worked, and this one did not."""
        self._allowed = self._known = False


def confirmed(answer: _core.Response) -> bool:
    """Whether the service tells the checksum that was behind the body."""
    stored = decode_crc32c(Headers(answer.headers).get("x-amz-checksum-crc32c"))
    return stored == answer.crc32c_sent

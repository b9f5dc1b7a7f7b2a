"""Program: reads vast documents under a limit of memory; tells what came of each, as JSON."""

from __future__ import annotations

import gc
import json
import mmap
import resource
import time
from collections.abc import Callable
from typing import Any

import kumo_crt
from kumo_crt.backup._format import _documents
from tests.faults.hostile import KINDS

ENTRIES = 10_000_000
_MIB = 1 << 20


def _list_of(member: str, item: bytes, count: int) -> Callable[[dict[str, Any]], bytes]:
    """A document with so many of something in a member that is a list."""

    def make(valid: dict[str, Any]) -> bytes:
        head = json.dumps({**valid, member: ["@"]}).encode()
        return head.replace(b'"@"', (item + b",") * (count - 1) + item)

    return make


def _members(valid: dict[str, Any]) -> bytes:
    """A document with so many members, all of one name."""
    head = json.dumps({**valid, "@": 0}).encode()
    return head.replace(b'"@": 0', b'"@":0,' * (ENTRIES - 1) + b'"@":0')


def _no_json(size: int) -> Callable[[dict[str, Any]], memoryview]:
    """So many bytes, which take no memory as long as nobody reads them."""
    return lambda _: memoryview(mmap.mmap(-1, size))


_FILE = (
    b'{"path":"000012.sst","kind":"sst","size":1,"crc32c":"00000000","key":"data/1f/sst-x-1.sst"}'
)
# What is vast, of which kinds, and how many MiB may be needed beside the document itself.
VAST: list[tuple[str, str, Callable[[dict[str, Any]], Any], int]] = [
    ("10^7 numbers", "manifest", _list_of("files", b"0", ENTRIES), 32),
    ("10^7 empty files", "manifest", _list_of("files", b"{}", ENTRIES), 64),
    ("10^7 lists", "manifest", _list_of("files", b"[[]]", ENTRIES), 64),
    ("10^7 members", "manifest", _members, 128),
    ("10^7 numbers less one", "manifest", _list_of("files", b"0", ENTRIES - 20), 256),
    ("as many objects as may be", "manifest", _list_of("files", b"{}", 1_999_990), 512),
    ("a file 100,000 times", "manifest", _list_of("files", _FILE, 100_000), 192),
    ("10^7 texts", "manifest", _list_of("column_families", b'""', ENTRIES), 64),
    ("larger than a document", "manifest", _no_json(_documents.MAX_DOCUMENT + 1), 1),
    ("10^7 of them", "lease", _list_of("objects", b'""', ENTRIES), 64),
    ("10^7 snapshots", "lease", _list_of("snapshots", b"0", ENTRIES), 32),
    ("10^7 of them", "mark", _list_of("objects", b'""', ENTRIES), 64),
    ("10^7 readings", "ledger", _list_of("reads", b"{}", ENTRIES), 64),
    ("10^7 damages", "ledger", _list_of("damaged", b"{}", ENTRIES), 64),
    ("10^7 files", "export", _list_of("files", b"{}", ENTRIES), 64),
    ("10^7 members", "configuration", _members, 128),
]


def _limit_to(extra: int) -> None:
    """Lets this process have so many further bytes."""
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, hard))


def main() -> None:
    """Reads all of them, one after the other."""
    kinds = {kind.name: kind for kind in KINDS}
    for name, kind, make, extra in VAST:
        document = make(kinds[kind].valid)
        told: dict[str, Any] = {"what": f"{kind}: {name}", "bytes": len(document)}
        _limit_to(extra * _MIB)
        begun = time.process_time()
        try:
            kinds[kind].read(document)
        except kumo_crt.FormatError as error:
            told["refused"] = str(error)
        except MemoryError:
            told["refused"] = None
        told["seconds"] = time.process_time() - begun
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(json.dumps(told), flush=True)
        del document
        gc.collect()


if __name__ == "__main__":
    main()

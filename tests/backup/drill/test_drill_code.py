"""Drills of databases that need what only their application has: said, not taken for damage."""

from __future__ import annotations

import ctypes.util
import subprocess
import sys
from pathlib import Path

import pytest

import kumo_crt

_LIBRARY = ctypes.util.find_library("rocksdb")
pytestmark = [
    pytest.mark.servers("seaweed-http"),
    pytest.mark.skipif(_LIBRARY is None, reason="needs RocksDB's library: rocksdict has no such"),
]

# Its own process: it ends without closing, and its callbacks outlive it.
_PROGRAM = """
import ctypes as c, os, sys
library, path, kind = sys.argv[1:]
db_of = c.CDLL(library)
for name in ("options_create", "open", "writeoptions_create", "flushoptions_create"):
    getattr(db_of, f"rocksdb_{name}").restype = c.c_void_p
db_of.rocksdb_comparator_create.restype = c.c_void_p
sizes = (c.c_void_p, c.c_void_p, c.c_size_t, c.c_void_p, c.c_size_t)
def backwards(_, a, a_size, b, b_size):
    one, other = c.string_at(a, a_size), c.string_at(b, b_size)
    return (one < other) - (one > other)
compare = c.CFUNCTYPE(c.c_int, *sizes)(backwards)
name = c.CFUNCTYPE(c.c_char_p, c.c_void_p)(lambda _: b"Backwards")
destroy = c.CFUNCTYPE(None, c.c_void_p)(lambda _: None)
options = c.c_void_p(db_of.rocksdb_options_create())
db_of.rocksdb_options_set_create_if_missing(options, c.c_ubyte(1))
if kind == "comparator":
    order = c.c_void_p(db_of.rocksdb_comparator_create(None, destroy, compare, name))
    db_of.rocksdb_options_set_comparator(options, order)
else:
    db_of.rocksdb_options_set_uint64add_merge_operator(options)
error = c.c_char_p()
db = c.c_void_p(db_of.rocksdb_open(options, os.fsencode(path), c.byref(error)))
writes = c.c_void_p(db_of.rocksdb_writeoptions_create())
write = db_of.rocksdb_put if kind == "comparator" else db_of.rocksdb_merge
for number in range(100):
    key = b"%03d" % (number // 3)
    write(db, writes, key, c.c_size_t(3), bytes(8), c.c_size_t(8), c.byref(error))
if kind != "merges in the log":
    flushes = c.c_void_p(db_of.rocksdb_flushoptions_create())
    db_of.rocksdb_flush(db, flushes, c.byref(error))
assert not error.value, error.value
os._exit(0)
"""


@pytest.mark.parametrize("kind", ["comparator", "merges in tables", "merges in the log"])
def test_code_of_an_application(repository: kumo_crt.Repository, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "db"
    program = [sys.executable, "-c", _PROGRAM, str(_LIBRARY), str(path), kind]
    subprocess.run(program, check=True, timeout=60)
    repository.backup(path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(kumo_crt.RepositoryError, match="only its application has") as caught:
        repository.drill(scratch=scratch)
    assert "opener=" in str(caught.value)
    assert list(scratch.iterdir()) == []
    (health,) = repository.health()
    assert health.drill_failed is None
    assert repository.verify(level="full").ok

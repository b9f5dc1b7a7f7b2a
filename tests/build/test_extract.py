"""Unpacking a source distribution never writes outside its directory."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from awscrt_sdist import DepsError, extract

from tests.build.conftest import make_archive


def _archive(path: Path, member: tarfile.TarInfo, data: bytes = b"") -> Path:
    member.size = len(data)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "name",
    ["/etc/evil", "../evil", "awscrt-1/crt/../../../evil", "awscrt-1\\crt\\..\\evil"],
)
def test_names_that_leave_the_tree(tmp_path: Path, name: str) -> None:
    archive = _archive(tmp_path / "a.tar.gz", tarfile.TarInfo(name), b"evil")
    with pytest.raises(DepsError, match="leaves the tree"):
        extract(archive, tmp_path / "in" / "target")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.tar.gz"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_members_that_are_no_plain_files(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("awscrt-1/crt/link")
    member.type = kind
    member.linkname = "/etc/passwd"
    archive = _archive(tmp_path / "a.tar.gz", member)
    with pytest.raises(DepsError, match="is no plain file"):
        extract(archive, tmp_path / "target")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.tar.gz"]


def test_only_the_crt_tree_and_the_licences_are_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    make_archive(
        archive,
        {
            "awscrt-1/setup.py": "",
            "awscrt-1/NOTICE": "notice",
            "awscrt-1/source/module.c": "",
            "awscrt-1/crt/CMakeLists.txt": "",
            "awscrt-1/crt/lib/a.c": "",
        },
    )
    crt = extract(archive, tmp_path / "target")
    files = {str(path.relative_to(crt)) for path in crt.rglob("*") if path.is_file()}
    assert files == {"CMakeLists.txt", "lib/a.c", "awscrt/NOTICE"}


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"not a tar" + b])
def test_damaged_archives(tmp_path: Path, damage: object) -> None:
    archive = tmp_path / "a.tar.gz"
    make_archive(archive, {"awscrt-1/crt/CMakeLists.txt": "x" * 100_000})
    assert callable(damage)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DepsError, match=r"not a readable tar\.gz"):
        extract(archive, tmp_path / "target")


def test_archive_of_something_else(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    make_archive(archive, {"other-1/README": ""})
    with pytest.raises(DepsError, match="not an awscrt source distribution"):
        extract(archive, tmp_path / "target")

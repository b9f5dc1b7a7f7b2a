"""put, get, ls, rm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import kumo_crt
from tests.cli.conftest import COMMAND, Run
from tests.support.data import MIB, payload

pytestmark = pytest.mark.servers("seaweed-http")


def test_put_and_get_files(kumo: Run, boto: Any, bucket: str, tmp_path: Path) -> None:
    source, url = tmp_path / "source", f"s3://{bucket}/a/key"
    source.write_bytes(payload(MIB))
    stored = kumo("put", source, url)
    assert stored.code == 0
    assert stored.out.startswith(f"stored {url}: 1.05 MB; ")
    assert boto.get_object(Bucket=bucket, Key="a/key")["Body"].read() == payload(MIB)
    assert kumo("get", url, tmp_path / "target").code == 0
    assert (tmp_path / "target").read_bytes() == payload(MIB)


def test_put_and_get_as_json(kumo: Run, bucket: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"123456789")
    put = kumo("put", source, f"s3://{bucket}/key", "--json").document
    assert (put["bucket"], put["key"], put["size"]) == (bucket, "key", 9)
    assert put["checksum_crc32c"] == "e3069283"
    get = kumo("get", f"s3://{bucket}/key", target, "--json").document
    assert get["checksum_crc32c"] == "e3069283"
    assert get["validated"] == "CRC32C"
    assert get["file"] == str(target)


def test_a_directory_stands_for_the_name(kumo: Run, boto: Any, bucket: str, tmp_path: Path) -> None:
    source, directory = tmp_path / "name", tmp_path / "directory"
    source.write_bytes(b"x")
    directory.mkdir()
    assert kumo("put", source, f"s3://{bucket}/under/").code == 0
    assert boto.get_object(Bucket=bucket, Key="under/name")["Body"].read() == b"x"
    assert kumo("get", f"s3://{bucket}/under/name", directory).code == 0
    assert (directory / "name").read_bytes() == b"x"


@pytest.mark.parametrize("size", [0, 1, 3 * MIB])
def test_pipes(kumo: Run, boto: Any, bucket: str, size: int) -> None:
    url = f"s3://{bucket}/key"
    assert kumo("put", "-", url, stdin=payload(size)).code == 0
    assert boto.get_object(Bucket=bucket, Key="key")["Body"].read() == payload(size)
    read = kumo("get", url, "-")
    assert read.code == 0
    assert read.raw == payload(size)
    assert read.err == ""


def test_standard_output_in_pieces(kumo: Run, s3: kumo_crt.S3Client, bucket: str) -> None:
    content = payload(1000) * 140_000  # more than two of the pieces that `get` reads
    s3.put_object(bucket, "key", content)
    assert kumo("get", f"s3://{bucket}/key", "-").raw == content


def test_closed_pipes_end_in_silence(
    command_environment: dict[str, str], s3: kumo_crt.S3Client, bucket: str
) -> None:
    s3.put_object(bucket, "key", payload(4 * MIB))
    for line in (["get", f"s3://{bucket}/key", "-"], ["ls", f"s3://{bucket}"], ["--version"]):
        with subprocess.Popen(
            [*COMMAND, *line],
            env=command_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            err = process.stderr.read()
            process.wait(timeout=30)
        assert process.returncode == 1
        assert err == b""


def test_closed_standard_input_is_no_empty_object(
    command_environment: dict[str, str], s3: kumo_crt.S3Client, bucket: str
) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "put", "-", f"s3://{bucket}/closed"],
        capture_output=True,
        env=command_environment,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "kumo-crt: error: standard input: Bad file descriptor\n"
    with pytest.raises(kumo_crt.NotFoundError):
        s3.head_object(bucket, "closed")


def test_listing(kumo: Run, s3: kumo_crt.S3Client, bucket: str) -> None:
    url = f"s3://{bucket}/listing/"
    for key in ("a/1", "a/2", "top"):
        s3.put_object(bucket, f"listing/{key}", b"12345")
    lines = kumo("ls", url).out.splitlines()
    assert len(lines) == 2
    assert lines[0].split() == ["prefix", "listing/a/"]
    assert lines[1].endswith(" 5 B  listing/top")
    assert len(kumo("ls", url, "--recursive").out.splitlines()) == 3
    level = kumo("ls", url, "--json").document
    assert level["prefixes"] == ["listing/a/"]
    assert [item["key"] for item in level["objects"]] == ["listing/top"]
    every = kumo("ls", f"{url}a", "--json", "-r").document
    found = [(item["key"], item["size"]) for item in every["objects"]]
    assert found == [("listing/a/1", 5), ("listing/a/2", 5)]


def test_keys_do_not_move_the_cursor(kumo: Run, s3: kumo_crt.S3Client, bucket: str) -> None:
    key = "cursor/red\x1b[31m"
    s3.put_object(bucket, key, b"")
    try:
        listing = kumo("ls", f"s3://{bucket}/cursor/")
        document = kumo("ls", f"s3://{bucket}/cursor/", "--json").document
    finally:
        # XML has no such character, so the deletion of many at once cannot name it.
        s3.delete_object(bucket, key)
    assert listing.out.endswith("  cursor/red\\x1b[31m\n")
    assert document["objects"][0]["key"] == key
    assert "\x1b" not in kumo("get", f"s3://{bucket}/no\x1b[31m", "-").err


def test_dry_runs(kumo: Run, boto: Any, bucket: str, tmp_path: Path) -> None:
    source, target, url = tmp_path / "source", tmp_path / "target", f"s3://{bucket}/key"
    source.write_bytes(b"12345")
    planned = kumo("put", source, url, "--dry-run", "--json").document
    expected = {"bucket": bucket, "key": "key", "size": 5, "replaces": False, "dry_run": True}
    assert planned == expected
    assert "Contents" not in boto.list_objects_v2(Bucket=bucket)
    kumo("put", source, url)
    assert "replacing the object" in kumo("put", source, url, "-n").out
    assert kumo("get", url, target, "-n").out == f"dry run: would write {target} (5 B)\n"
    assert not target.exists()
    piped = kumo("get", url, "-", "-n")
    assert (piped.code, piped.raw) == (0, b"")
    assert piped.err == "dry run: would write to standard output (5 B)\n"


def test_what_is_not_there(kumo: Run, bucket: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    missing = kumo("get", f"s3://{bucket}/nothing", target, "--json")
    missing.failed(1, f"s3://{bucket}/nothing")
    assert missing.document["error"]["type"] == "NotFoundError"
    assert not target.exists()
    nowhere = kumo("get", f"s3://{bucket}/nothing", tmp_path / "none" / "target")
    nowhere.failed(1, f"{tmp_path / 'none'}: no such directory: create it first")
    kumo("get", f"s3://{bucket}/nothing", "-").failed(1)
    nowhere = kumo("get", f"s3://{bucket}/nothing", f"{tmp_path}/none/")
    nowhere.failed(1, f"{tmp_path / 'none'}: no such directory: create it first")
    os.mkfifo(tmp_path / "fifo")
    for dry in ((), ("--dry-run",)):
        refused = kumo("get", f"s3://{bucket}/nothing", tmp_path / "fifo", *dry)
        refused.failed(1, "fifo: is no file, and would be replaced by one")
    kumo("ls", f"s3://{bucket}/nothing").failed(1, "nothing")
    kumo("ls", "s3://no-such-bucket-here").failed(1, "no-such-bucket-here")
    kumo("put", tmp_path / "nothing", f"s3://{bucket}/key").failed(1, str(tmp_path / "nothing"))
    kumo("put", tmp_path, f"s3://{bucket}/key").failed(1, "directory")
    kumo("put", "/dev/null", "s3://no-such-bucket-here/key").failed(1)


class TestRemove:
    KEYS = ("a/b", "a/b/c", "a/b/d/e", "a/bc", "other")

    @pytest.fixture(autouse=True)
    def _objects(self, s3: kumo_crt.S3Client, bucket: str) -> None:
        for key in self.KEYS:
            s3.put_object(bucket, key, b"12345")

    @staticmethod
    def _left(s3: kumo_crt.S3Client, bucket: str) -> list[str]:
        return [item.key for item in s3.list_objects(bucket)]

    def test_one(self, kumo: Run, s3: kumo_crt.S3Client, bucket: str) -> None:
        done = kumo("rm", f"s3://{bucket}/a/b")
        assert (done.code, done.out) == (0, f"deleted s3://{bucket}/a/b, 5 B\n")
        assert self._left(s3, bucket) == ["a/b/c", "a/b/d/e", "a/bc", "other"]
        kumo("rm", f"s3://{bucket}/a").failed(1, "--recursive deletes what is below")
        kumo("rm", f"s3://{bucket}/a/").failed(2, "--recursive deletes all below")

    def test_a_path(self, kumo: Run, s3: kumo_crt.S3Client, bucket: str) -> None:
        url = f"s3://{bucket}/a/b"
        dry = kumo("rm", "--recursive", "--dry-run", url)
        assert dry.code == 0
        assert [line.split()[-1] for line in dry.out.splitlines()[:3]] == list(self.KEYS[:3])
        assert self._left(s3, bucket) == list(self.KEYS)
        document = kumo("rm", "--recursive", "--json", url).document
        assert (document["count"], document["size"]) == (3, 15)
        assert document["keys"] == list(self.KEYS[:3])
        assert self._left(s3, bucket) == ["a/bc", "other"]
        kumo("rm", "--recursive", url).failed(1, "nothing at or below")

    def test_everything(self, kumo: Run, s3: kumo_crt.S3Client, bucket: str) -> None:
        kumo("rm", f"s3://{bucket}").failed(2, "names no object")
        assert kumo("rm", "--recursive", f"s3://{bucket}").code == 0
        assert self._left(s3, bucket) == []

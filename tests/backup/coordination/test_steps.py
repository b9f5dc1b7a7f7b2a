"""The steps of docs/format.md, in their order, as they pass through a proxy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

import kumo_crt
from tests.backup.conftest import Make
from tests.backup.helpers import (
    PREFIX,
    delete,
    flipped,
    get,
    key_of,
    manifest_key,
    put,
    stored_files,
    url,
    write_tables,
)
from tests.support.fault_proxy import FaultProxy, Request
from tests.support.servers import S3Server

pytestmark = [pytest.mark.servers("seaweed-http"), pytest.mark.usefixtures("at_once")]

CONFIG = "GET kumo-repository.json"


def _told(request: Request) -> str:
    parts = urlsplit(unquote(request.target))
    query = parse_qs(parts.query, keep_blank_values=True)
    if "prefix" in query:
        what = "UPLOADS" if "uploads" in query else "LIST"
        return f"{what} {query['prefix'][0].removeprefix(f'{PREFIX}/')}"
    if f"/{PREFIX}/" not in parts.path:
        return f"{request.method} {'&'.join(query)}"
    key = parts.path.partition(f"/{PREFIX}/")[2]
    if key.startswith("inflight/"):
        return f"{request.method} {key.partition('-')[0]}"
    folder = re.sub(r"[^/]+$", "", key)
    folder = "data/" if folder.startswith("data/") else folder
    return f"{request.method} {folder or key}"


class Steps:
    """A repository behind a proxy, and what is asked of the service."""

    def __init__(self, repository: kumo_crt.Repository, proxy: FaultProxy) -> None:
        self.repository = repository
        self._proxy = proxy

    def taken(self) -> list[str]:
        """What was done since the last time."""
        done = [_told(request) for request in self._proxy.requests]
        self._proxy.requests.clear()
        return done


@pytest.fixture
def steps(
    repository: kumo_crt.Repository, s3_server: S3Server, proxy: FaultProxy, bucket: str
) -> Iterator[Steps]:
    """The repository, watched."""
    arguments = s3_server.client_arguments(endpoint_url=proxy.endpoint_url)
    with (
        kumo_crt.S3Client(**arguments) as client,
        kumo_crt.Repository(url(bucket), client=client) as opened,
    ):
        yield Steps(opened, proxy)


@pytest.fixture
def grown(repository: kumo_crt.Repository, make: Make) -> Path:
    """A database that has a snapshot, and two further tables since."""
    path = make("plain")
    repository.backup(path)
    write_tables(path, 9_000, 9_002)
    return path


def test_a_backup(steps: Steps, grown: Path) -> None:
    steps.repository.backup(grown, bundle_below=0)
    done = steps.taken()
    sent = done.count("PUT data/")
    assert sent >= 2
    assert done == [
        CONFIG,
        # 1: what there is, and the pin
        "LIST snapshots/",
        "GET snapshots/",
        "PUT inflight/backup",
        # 2
        "LIST inflight/",
        "HEAD snapshots/",
        # 3
        *["PUT data/"] * sent,
        # 4: the pin, and the snapshot that objects were taken from
        "LIST inflight/",
        "HEAD snapshots/",
        # 5 to 7
        "PUT snapshots/",
        "PUT spares/",
        "DELETE inflight/backup",
    ]
    steps.repository.backup(grown)
    done = steps.taken()
    # Nothing was sent: what was seen in step 2 holds.
    assert done[done.index("LIST inflight/") + 2 :] == [
        "PUT snapshots/",
        "PUT spares/",
        "DELETE inflight/backup",
    ]


def test_a_prune(
    steps: Steps, grown: Path, repository: kumo_crt.Repository, boto: Any, bucket: str
) -> None:
    witnesses = ["LIST pins/", "LIST spares/pins/", "LIST spares/"]
    uploads = ["UPLOADS data/", "UPLOADS snapshots/", "UPLOADS spares/"]
    begin = [CONFIG, "PUT inflight/prune", "LIST inflight/", *witnesses, "LIST snapshots/"]
    end = ["GET versioning", "DELETE inflight/prune"]
    repository.backup(grown, bundle_below=0)
    put(boto, bucket, "data/00/of-no-snapshot", b"x")
    steps.repository.prune(keep_last=1)
    assert steps.taken() == [
        # 1 and 2
        *begin,
        *["GET snapshots/"] * 2,
        # 3: spares, then manifests
        "PUT inflight/sweep",
        "LIST inflight/",
        "LIST pins/",
        "LIST spares/pins/",
        *["POST delete"] * 2,
        "DELETE inflight/sweep",
        # 4
        "LIST inflight/",
        "LIST marks/",
        "LIST data/",
        "PUT marks/",
        # 6 and 7
        *uploads,
        *end,
    ]
    steps.repository.prune(keep_last=1)
    assert steps.taken() == [
        *begin,
        "GET snapshots/",
        # 4
        "LIST inflight/",
        "LIST marks/",
        "GET marks/",
        "LIST data/",
        # 5
        "PUT inflight/sweep",
        "LIST inflight/",
        *witnesses,
        "LIST snapshots/",
        "POST delete",
        "DELETE inflight/sweep",
        # 6 and 7, with the mark
        *uploads,
        "POST delete",
        *end,
    ]


def test_pinning_and_deleting(steps: Steps, grown: Path) -> None:
    (snapshot,) = steps.repository.snapshots()
    steps.taken()
    steps.repository.pin(snapshot.id)
    pinning = [
        "HEAD snapshots/",
        "PUT pins/",
        "PUT spares/pins/",
        "LIST inflight/",
        "HEAD snapshots/",
    ]
    assert steps.taken()[-5:] == pinning
    steps.repository.unpin(snapshot.id)
    steps.taken()
    steps.repository.delete_snapshot(snapshot.id)
    assert steps.taken()[-8:] == [
        "HEAD snapshots/",
        "PUT inflight/sweep",
        "HEAD pins/",
        "HEAD spares/pins/",
        "LIST inflight/",
        "DELETE spares/",
        "DELETE snapshots/",
        "DELETE inflight/sweep",
    ]


def test_a_manifest_that_is_put_back(steps: Steps, grown: Path, boto: Any, bucket: str) -> None:
    (snapshot,) = steps.repository.snapshots()
    delete(boto, bucket, manifest_key(snapshot))
    steps.taken()
    assert steps.repository.repair().manifests == (snapshot.id,)
    done = steps.taken()
    # The loss is told by listings in this order, and by asking once more.
    begin = done.index("LIST spares/")
    assert done[begin : begin + 4] == [
        "LIST spares/",
        "LIST snapshots/",
        "HEAD snapshots/",
        "HEAD spares/",
    ]
    begin = done.index("PUT inflight/spare")
    assert done[begin : begin + 5] == [
        "PUT inflight/spare",
        "LIST inflight/",
        "GET spares/",
        "PUT snapshots/",
        "DELETE inflight/spare",
    ]


def test_an_object_that_is_repaired(steps: Steps, grown: Path, boto: Any, bucket: str) -> None:
    (snapshot,) = steps.repository.snapshots()
    key = key_of(stored_files(snapshot)[0])
    put(boto, bucket, key, flipped(get(boto, bucket, key)))
    steps.taken()
    assert steps.repository.repair(grown).ok
    done = steps.taken()
    aside, written = done.index("PUT quarantine/"), done.index("PUT data/")
    assert "GET data/" in done[:aside]
    assert written == aside + 1
    assert done[written + 1] == "GET data/"
    assert done[-1] == "PUT health/"

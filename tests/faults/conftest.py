"""A stage for the battery: one bucket, one process that forks the mortals, databases in memory."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import kumo_crt
from tests.faults.judge import Judge
from tests.faults.mortals import Mortals
from tests.faults.stage import Stage
from tests.support.servers import S3Server


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory, as restores sync much; on the disk where there is none."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path_factory.mktemp("faults")
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="kumo-faults-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def stage(seaweed: S3Server, memory: Path) -> Iterator[Stage]:
    """Where one module of the battery works."""
    boto = seaweed.boto3_client()
    bucket = f"faults-{uuid.uuid4().hex[:16]}"
    boto.create_bucket(Bucket=bucket)
    directory = Path(tempfile.mkdtemp(dir=memory))
    arguments = seaweed.client_arguments()
    with kumo_crt.S3Client(**arguments) as client, Mortals(arguments) as mortals:
        yield Stage(client, mortals, Judge(boto, bucket), directory)

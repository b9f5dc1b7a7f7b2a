"""Random operations on databases and their repository, in random order, against a model.

The model is dictionaries: what every column family of every database and snapshot holds, and which
snapshots there have to be by restic's rules. Everything else is real: RocksDB, SeaweedFS, three
clients, processes that hold databases open and are killed; some repositories are encrypted,
and snapshots are files, bundles or single objects. After each step every snapshot of
the model and every object that it needs must be there; a restore, a drill or an import must give
exactly what the model has; and in the end, half an hour later, nothing else must be there.

CI runs the same few examples every time. ``KUMO_FAULT_SCALE=20 KUMO_FAULT_SEED=7`` runs twenty
times as many, other ones; ``KUMO_MODEL_SHRINK=1`` looks for the shortest that fails, which takes
minutes.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

import kumo_crt
from tests.faults import seeds
from tests.faults.judge import Judge
from tests.model.base import Base
from tests.model.capturing import Capturing
from tests.model.keeping import Keeping
from tests.model.reading import Reading
from tests.model.world import Stage
from tests.model.writing import Writing
from tests.support.servers import S3Server

EXAMPLES, STEPS = 15, 30


class Machine(Writing, Capturing, Keeping, Reading):
    """All rules."""


@pytest.fixture
def stage(seaweed: S3Server, memory_path: Path) -> Iterator[Stage]:
    """A bucket, and three clients."""
    boto = seaweed.boto3_client()
    bucket = f"model-{uuid.uuid4().hex[:16]}"
    boto.create_bucket(Bucket=bucket)
    clients = [kumo_crt.S3Client(**seaweed.client_arguments()) for _ in range(3)]
    yield Stage(seaweed, clients, Judge(boto, bucket), memory_path)
    for client in clients:
        client.close()


@pytest.mark.timeout(300 * max(1.0, seeds.scale()))
def test_everything_against_the_model(stage: Stage, alive: Callable[[], None]) -> None:
    @seed(seeds.seed())
    def machine() -> Base:
        alive()
        return Machine(stage)

    shrinking = (Phase.shrink,) if "KUMO_MODEL_SHRINK" in os.environ else ()
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]  # it may be a function that makes one
        settings=settings(
            max_examples=seeds.scaled(EXAMPLES),
            stateful_step_count=STEPS,
            phases=(Phase.generate, *shrinking),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Leases as another implementation would write them."""

from __future__ import annotations

import hashlib
import json

# A sweep's key.
SWEEP = f"inflight/sweep-{'5e' * 16}-000003.json"


def hash_of(key: str) -> str:
    """The hash of a key, by docs/format.md."""
    return hashlib.sha256(key.split("/")[2].encode()).hexdigest()[:16]


def sweep_of(*data_keys: str, snapshots: tuple[str, ...] = ()) -> bytes:
    """A sweep as another implementation would write it."""
    document = {
        "format": "kumo-lease",
        "version": 1,
        "kind": "sweep",
        "tool": "another 1.0",
        "host": "elsewhere",
        "pid": 1,
        "objects": [hash_of(key) for key in data_keys],
        "snapshots": list(snapshots),
    }
    return json.dumps(document).encode()

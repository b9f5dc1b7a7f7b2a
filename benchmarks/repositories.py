"""Compares backups and restores with kumo_crt and with tools that copy files to S3.

Writes backups.json and backups.md into --output. Each client of a round has a SeaweedFS of its own,
new and empty; the rounds are interleaved. See README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from backups import machine, report
from backups.clients import CLIENTS, KUMO
from backups.databases import Shape
from backups.rounds import Runner, Settings
from run import add_network_option, parse_build, parse_size
from suite import network
from suite.setup import ROOT, install_peers, say

_SHARED_MEMORY = Path("/dev/shm")
_SMALL_FILES = 512


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=parse_size, default=1 << 30, help="of the database (1GiB)")
    parser.add_argument(
        "--file-size", type=parse_size, default=32 << 20, help="of its SST files (32MiB)"
    )
    parser.add_argument(
        "--small-size", type=parse_size, default=128 << 20, help="of one with small files (128MiB)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--shapes", nargs="+", choices=["large", "small"])
    parser.add_argument(
        "--clients", nargs="+", metavar="CLIENT", help="beside kumo_crt: " + ", ".join(CLIENTS[1:])
    )
    parser.add_argument(
        "--build",
        type=parse_build,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="also measure the kumo_crt in DIR, as kumo_crt:NAME; may be repeated",
    )
    add_network_option(parser)
    parser.add_argument("--directory", type=Path, help="for the files (default: the system's)")
    parser.add_argument(
        "--server-directory", type=Path, help="for what the server stores (/dev/shm if it is there)"
    )
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", help="virtual environment of the peers"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench-results")
    parser.add_argument(
        "--from", dest="saved", type=Path, metavar="JSON", help="write the tables of an old run"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.clients or ()) - set(CLIENTS)
    if unknown or arguments.rounds < 1:
        parser.error(f"unknown clients {sorted(unknown)}, or no rounds")
    return arguments


def shapes(arguments: argparse.Namespace) -> list[Shape]:
    """The databases to make."""
    small = arguments.small_size // _SMALL_FILES
    found = [
        Shape("large", "Large files", arguments.file_size, arguments.size),
        Shape("small", "Small files", small, arguments.small_size),
    ]
    return [shape for shape in found if shape.name in (arguments.shapes or ("large", "small"))]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs everything."""
    wanted = [c for c in CLIENTS[1:] if arguments.clients is None or c in arguments.clients]
    builds = [f"{KUMO}:{name}" for name, _ in arguments.build]
    default = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix="kumo-bench-", dir=arguments.directory) as scratch:
        settings = Settings(
            rounds=arguments.rounds,
            shapes=shapes(arguments),
            clients=[KUMO, *builds, *wanted],
            directory=Path(scratch),
            server_directory=arguments.server_directory or default,
            builds=dict(arguments.build),
        )
        peers = install_peers(arguments.peers)
        network_name = network.enter() if arguments.network == "own" else network.shared()
        say(f"network: {network_name}")
        with machine.memory_kept() as memory:
            say(f"free memory: {memory}")
            results = Runner(settings, peers).run()
        results["machine"].update(network=network_name, memory=memory)
        return results


def main() -> int:
    arguments = parse_arguments()
    if arguments.saved is not None:
        results: dict[str, Any] = json.loads(arguments.saved.read_text(encoding="utf-8"))
    else:
        results = measure(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    report.write(results, arguments.output)
    print((arguments.output / "backups.md").read_text(encoding="utf-8"))
    say(f"written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

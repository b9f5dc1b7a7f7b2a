"""Compares kumo_crt with its peers and with what a transfer costs at least.

Writes results.json, results.md and a plot into --output. Every measurement is a process of its own;
the rounds are interleaved, because absolute figures drift with the machine and ratios within a
round hold. See README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from suite import network, report
from suite.cases import BOUND, CASES, KUMO, OBJECT_CLIENTS, Case
from suite.rounds import Runner, Settings
from suite.servers import serve_all
from suite.setup import ROOT, build_programs, install_peers, say

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LEAST = 16 << 20


def parse_size(text: str) -> int:
    """Returns the bytes of ``256MiB``, ``1G`` or ``1000``."""
    number = text.rstrip("iBKMGkmgb")
    unit = text[len(number) :].upper().removesuffix("B").removesuffix("I")
    try:
        return int(float(number) * _UNITS[unit])
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"size {text!r}: expected e.g. 256MiB or 1GiB") from None


def parse_build(text: str) -> tuple[str, Path]:
    """Returns name and directory of ``NAME=DIRECTORY``."""
    name, equals, path = text.partition("=")
    directory = Path(path).resolve()
    if not name or not equals or not (directory / "kumo_crt").is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected NAME=DIRECTORY, and kumo_crt in the directory"
        )
    return name, directory


def add_network_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        choices=["own", "shared"],
        default="own",
        help="a network namespace, if one may be made, or the machine's loopback (own)",
    )


def parse_arguments() -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=parse_size, default=1 << 30, help="of a transfer (1GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--cases", nargs="+", metavar="CASE", choices=names, default=names)
    parser.add_argument(
        "--clients",
        nargs="+",
        metavar="CLIENT",
        help="beside kumo_crt and the bounds: " + ", ".join(c for c in OBJECT_CLIENTS if c != KUMO),
    )
    parser.add_argument(
        "--build",
        type=parse_build,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="also measure the kumo_crt in DIR, as kumo_crt:NAME; may be repeated",
    )
    parser.add_argument("--tls", action="store_true", help="only the cases over TLS")
    parser.add_argument("--no-tls", action="store_true", help="leave out the cases over TLS")
    parser.add_argument(
        "--small-requests", type=int, default=4000, help="of a case of small objects (4000)"
    )
    parser.add_argument(
        "--small-seconds", type=float, default=4.0, help="at most, for the same (4)"
    )
    parser.add_argument(
        "--server-spin-us",
        type=int,
        default=200,
        metavar="N",
        help="how long the servers look for more before they sleep (200)",
    )
    add_network_option(parser)
    parser.add_argument("--directory", type=Path, help="for the files (default: the system's)")
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", help="virtual environment of the peers"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench-results")
    parser.add_argument("--list", action="store_true", help="show the cases and their clients")
    parser.add_argument(
        "--from", dest="saved", type=Path, metavar="JSON", help="write table and plot of an old run"
    )
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.size < _LEAST:
        parser.error("--rounds must be at least 1 and --size at least 16MiB")
    return arguments


def chosen_cases(arguments: argparse.Namespace) -> list[tuple[Case, list[str]]]:
    """Returns the cases with their clients, bounds first."""
    builds = [f"{KUMO}:{name}" for name, _ in arguments.build]
    chosen = []
    for case in CASES:
        if case.name not in arguments.cases or (case.tls and arguments.no_tls):
            continue
        if arguments.tls and not case.tls:
            continue
        wanted = [c for c in case.clients if arguments.clients is None or c in arguments.clients]
        clients = [KUMO, *builds, *(c for c in wanted if c != KUMO)]
        chosen.append((case, [BOUND + name for name in case.bounds] + clients))
    return chosen


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        for case, clients in chosen_cases(arguments):
            print(f"{case.name}: {', '.join(clients)}")
        return 0
    peers = install_peers(arguments.peers)
    if arguments.saved is not None:
        results: dict[str, Any] = json.loads(arguments.saved.read_text(encoding="utf-8"))
    else:
        programs = build_programs(peers)
        cases = chosen_cases(arguments)
        settings = Settings(
            size=arguments.size,
            rounds=arguments.rounds,
            small_requests=arguments.small_requests,
            small_seconds=arguments.small_seconds,
            builds=dict(arguments.build),
        )
        own = arguments.network == "own"
        network_name = network.enter() if own else network.shared()
        say(f"network: {network_name}")
        with (
            tempfile.TemporaryDirectory(prefix="kumo-bench-", dir=arguments.directory) as scratch,
            serve_all(
                programs.server,
                peers.python,
                Path(scratch),
                tls=any(case.tls for case, _ in cases),
                spin_us=arguments.server_spin_us,
            ) as servers,
        ):
            runner = Runner(settings, cases, peers, programs, servers, Path(scratch))
            results = runner.run()
        results["machine"] |= {
            "network": network_name,
            "server": f"looks for more for {arguments.server_spin_us} µs before it sleeps",
        }
    arguments.output.mkdir(parents=True, exist_ok=True)
    report.write(results, arguments.output, peers.python)
    print((arguments.output / "results.md").read_text(encoding="utf-8"))
    say(f"written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

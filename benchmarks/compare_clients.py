"""Compares put and get of kumo_crt, awscrt and boto3 in one interleaved run.

Every measurement is a process of its own, so that CPU time and memory are that client's alone.
The rounds are interleaved: absolute figures drift with the machine, ratios within a round hold.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLIENTS = ("kumo_crt", "awscrt", "boto3")
OPERATIONS = ("put-file", "put-memory", "get-file", "get-memory")
REFERENCE = "kumo_crt"
GIB = 1 << 30
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Returns the bytes of ``256MiB``, ``1G`` or ``1000``."""
    number = text.rstrip("iBKMGkmgb")
    unit = text[len(number) :].upper().removesuffix("B").removesuffix("I")
    try:
        return int(float(number) * _UNITS[unit])
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"size {text!r}: expected e.g. 256MiB or 1GiB") from None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=parse_size, default=256 << 20, help="object size (256MiB)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    parser.add_argument(
        "--endpoint-url",
        help="another server; credentials and region from AWS_* variables "
        "(default: a SeaweedFS of its own on loopback)",
    )
    parser.add_argument("--bucket", help="existing bucket (default: makes one)")
    parser.add_argument("--directory", help="where the files go (default: the system's)")
    parser.add_argument("--json", metavar="FILE", help="writes all figures to FILE")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.size < 1:
        parser.error("--rounds and --size must be at least 1")
    return arguments


@contextlib.contextmanager
def server(endpoint_url: str | None) -> Iterator[dict[str, str]]:
    """Yields the environment that leads clients to the server."""
    if endpoint_url is not None:
        yield {"AWS_ENDPOINT_URL_S3": endpoint_url}
        return
    from kumo_crt.cli._seaweed import SeaweedServer

    with SeaweedServer() as seaweed:
        yield {
            "AWS_ENDPOINT_URL_S3": seaweed.endpoint_url,
            "AWS_ACCESS_KEY_ID": seaweed.access_key_id,
            "AWS_SECRET_ACCESS_KEY": seaweed.secret_access_key,
            "AWS_REGION": seaweed.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def prepare(environment: dict[str, str], bucket: str | None, source: Path) -> str:
    """Uploads the object that is downloaded, into a new bucket unless one is named.

    In a process of its own: a client that has just uploaded holds memory of it.
    """
    program = (
        "import kumo_crt, sys\n"
        "bucket, make, path = sys.argv[1:]\n"
        "with kumo_crt.S3Client() as client:\n"
        "    if make: client.create_bucket(bucket)\n"
        "    client.put_object(bucket, 'object', path)\n"
    )
    name = bucket or f"bench-{uuid.uuid4().hex[:16]}"
    make = "" if bucket else "make"
    subprocess.run(
        [sys.executable, "-c", program, name, make, str(source)], check=True, env=environment
    )
    return name


def write_file(path: Path, size: int) -> None:
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])


def measure(
    client: str,
    operation: str,
    *,
    bucket: str,
    source: Path,
    target: Path,
    environment: dict[str, str],
) -> dict[str, float]:
    worker = Path(__file__).with_name("_measure_client.py")
    done = subprocess.run(
        [sys.executable, str(worker), client, operation, bucket, str(source), str(target)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"{client} {operation} failed with status {done.returncode}, see above")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    missing = [name for name in arguments.clients if importlib.util.find_spec(name) is None]
    clients = [name for name in arguments.clients if name not in missing]
    samples: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="kumo-bench-", dir=arguments.directory) as directory,
        server(arguments.endpoint_url) as extra,
    ):
        environment = {**os.environ, **extra}
        source = Path(directory) / "source"
        write_file(source, arguments.size)
        bucket = prepare(environment, arguments.bucket, source)
        for round_number in range(arguments.rounds):
            for operation in arguments.operations:
                # Another client begins each round: being first after a pause is no advantage.
                turn = round_number % len(clients)
                for client in clients[turn:] + clients[:turn]:
                    print(f"round {round_number + 1}: {operation} {client}", file=sys.stderr)
                    figures = measure(
                        client,
                        operation,
                        bucket=bucket,
                        source=source,
                        target=Path(directory) / "target",
                        environment=environment,
                    )
                    samples.append(
                        {
                            "round": round_number,
                            "client": client,
                            "operation": operation,
                            **figures,
                        }
                    )
    return {
        "size": arguments.size,
        "rounds": arguments.rounds,
        "cpus": os.cpu_count(),
        "versions": {name: _version(name) for name in clients},
        "missing": missing,
        "samples": samples,
        "summary": summarize(samples, clients, arguments.operations, arguments.size),
    }


def summarize(
    samples: list[dict[str, Any]], clients: list[str], operations: list[str], size: int
) -> list[dict[str, Any]]:
    """Returns medians and spreads, and the medians of the ratios within each round."""
    rows = []
    for operation in operations:
        chosen = {
            name: [s for s in samples if s["client"] == name and s["operation"] == operation]
            for name in clients
        }
        for name in clients:
            row: dict[str, Any] = {"operation": operation, "client": name}
            cpu = [s["cpu_seconds"] * GIB / size for s in chosen[name]]
            row["cpu_seconds_per_gib"] = _spread(cpu)
            row["wall_seconds"] = _spread([s["wall_seconds"] for s in chosen[name]])
            row["peak_rss_growth_mib"] = _spread([s["peak_rss_growth_mib"] for s in chosen[name]])
            if REFERENCE in clients:
                pairs = list(zip(chosen[name], chosen[REFERENCE], strict=True))
                for figure in ("cpu_seconds", "wall_seconds"):
                    # A small object can take less CPU time than the clock resolves.
                    ratios = [a[figure] / max(b[figure], 1e-6) for a, b in pairs]
                    row[f"{figure}_ratio"] = _spread(ratios)
            rows.append(row)
    return rows


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _version(name: str) -> str:
    module = importlib.import_module(name)
    return str(getattr(module, "__version__", None) or importlib.metadata.version(name))


def print_table(report: dict[str, Any]) -> None:
    size = report["size"] / (1 << 20)
    print(f"{size:g} MiB, {report['rounds']} rounds, {report['cpus']} CPUs: median (min-max)")
    print("versions: " + ", ".join(f"{n} {v}" for n, v in report["versions"].items()))
    for name in report["missing"]:
        print(f"missing: {name} is not installed: pip install {name}")
    header = ("operation", "client", "CPU s/GiB", "x kumo", "wall s", "x kumo", "peak RSS +MiB")
    lines = [header]
    for row in report["summary"]:
        lines.append(
            (
                row["operation"],
                row["client"],
                _cell(row["cpu_seconds_per_gib"]),
                _ratio(row, "cpu_seconds_ratio"),
                _cell(row["wall_seconds"]),
                _ratio(row, "wall_seconds_ratio"),
                _cell(row["peak_rss_growth_mib"], digits=0),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(spread: dict[str, float], digits: int = 2) -> str:
    low, high = f"{spread['min']:.{digits}f}", f"{spread['max']:.{digits}f}"
    return f"{spread['median']:.{digits}f} ({low}-{high})"


def _ratio(row: dict[str, Any], name: str) -> str:
    return f"{row[name]['median']:.2f}" if name in row else "-"


def main() -> int:
    arguments = parse_arguments()
    report = run(arguments)
    if arguments.json is not None:
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_table(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

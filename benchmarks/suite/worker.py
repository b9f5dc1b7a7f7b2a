"""The measuring process: reads a job as JSON from its argument, prints its figures as JSON.

One process a measurement, so that CPU time and memory are that client's alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from suite.actions import Job, run
from suite.clients import Unsupported


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    try:
        answer: dict[str, object] = {"figures": run(job)}
    except Unsupported as reason:
        answer = {"unsupported": str(reason) or "no such operation"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()

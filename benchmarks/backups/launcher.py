"""Runs a command and prints, last, what it took: a process that is small itself."""

from __future__ import annotations

import os
import sys
import time


def main() -> int:
    command = sys.argv[1:]
    begun = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - begun
    cpu = usage.ru_utime + usage.ru_stime
    print(
        f'\n{{"wall_seconds": {wall}, "cpu_seconds": {cpu}, '
        f'"peak_rss_mib": {usage.ru_maxrss / 1024}}}'
    )
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())

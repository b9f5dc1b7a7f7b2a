"""kumo_crt's process: ``backup|restore|create URL DIRECTORY``; prints the seconds of the call."""

from __future__ import annotations

import sys
import time


def main() -> None:
    begun = time.perf_counter()
    from kumo_crt import Repository

    verb, url, directory = sys.argv[1:]
    if verb == "create":
        Repository.create(url).close()
        return
    with Repository.open(url) as repository:
        if verb == "backup":
            repository.backup(directory)
        else:
            repository.restore(directory)
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    main()

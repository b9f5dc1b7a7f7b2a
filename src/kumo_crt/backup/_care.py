"""The parts of `Repository` that look after what is stored."""

from __future__ import annotations

from collections.abc import Callable

from kumo_crt.backup import _verify
from kumo_crt.backup._base import RepositoryBase
from kumo_crt.backup._results import VerifyReport

Progress = Callable[[int, int], object]


class Care(RepositoryBase):
    """Verifies what a repository holds."""

    def verify(
        self,
        snapshot: str = "latest",
        *,
        level: str = "stored",
        progress: Progress | None = None,
        max_concurrency: int | None = None,
    ) -> VerifyReport:
        """Looks for damage in a snapshot.

        Args:
            snapshot: Id, or ``"latest"``.
            level: ``"quick"``: the manifest is good and every object there, with its size.
                ``"stored"``: also its stored CRC32C is the manifest's. ``"full"``: every byte is
                read and checked.
            progress: Called with bytes done and total, ten times a second at most.
            max_concurrency: Files at once; 8.

        Returns:
            What was found; damage does not raise.
        """
        if level not in _verify.LEVELS:
            raise ValueError(f"level {level!r}: choose one of {', '.join(_verify.LEVELS)}")
        self._load()
        wanted = self._resolve(snapshot)
        return self._run(
            _verify.verify_task(
                self._store(), wanted, level, self._concurrency(max_concurrency), progress
            )
        )

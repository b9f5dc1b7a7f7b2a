"""The parts of `Repository` that look after what is stored."""

from __future__ import annotations

from collections.abc import Callable

from kumo_crt.backup import _thaw, _verify
from kumo_crt.backup._base import RepositoryBase
from kumo_crt.backup._results import ThawReport, VerifyReport

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

    def request_thaw(
        self, snapshot: str = "latest", *, days: int, tier: str = "Standard"
    ) -> ThawReport:
        """Asks for readable copies of a snapshot's archived objects (Glacier).

        Asking again while they are being made costs nothing and tells how things stand.

        Args:
            snapshot: Id, or ``"latest"``.
            days: For how long the copies are to stay.
            tier: ``"Standard"``, ``"Bulk"`` (slower and cheaper) or ``"Expedited"``.

        Returns:
            How many were asked for, are on their way, and are there.

        Raises:
            SnapshotNotFoundError: There is no such snapshot.
        """
        if days < 1:
            raise ValueError(f"days is {days}: it must be at least 1")
        if tier not in _thaw.TIERS:
            raise ValueError(f"tier {tier!r}: choose one of {', '.join(_thaw.TIERS)}")
        found = self._snapshot(snapshot)
        return self._run(_thaw.thaw_task(self._store(), found, days, tier))

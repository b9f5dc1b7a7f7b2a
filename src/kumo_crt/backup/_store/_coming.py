"""A repository that is created by its first backup, once there is something to back up."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kumo_crt.backup._format._configuration import Config
from kumo_crt.backup._format._key import Key
from kumo_crt.exceptions import RepositoryError


class Coming(NamedTuple):
    """What it is going to be.

    Attributes:
        config: Its configuration.
        key: What everything in it is sealed with, if anything is.
        created: Called when it has been created.
    """

    config: Config
    key: Key | None
    created: Callable[[], object]

    def check(self, there: Config, where: object) -> None:
        """Whether one that somebody else has created meanwhile is what was asked for.

        Raises:
            RepositoryError: It is not.
        """
        for name in ("storage_class", "sse", "kms_key_id"):
            wanted, has = getattr(self.config, name), getattr(there, name)
            if wanted not in (None, has):
                raise RepositoryError(
                    f"{where}: was created by somebody else meanwhile, with {name} "
                    f"{has or 'unset'}, and that cannot be changed to {wanted}"
                )

"""The folder for files that this package can compute or download again."""

import os
from pathlib import Path

from vprompt_jax.process.errors import UserError


def cache_folder(chosen: str | Path | None = None) -> Path:
    """The folder of downloads and compiled programs: `chosen`, $VPROMPT_CACHE or
    ~/.cache/vprompt_jax.

    Raises:
      UserError: if none is set and the user has no home folder.
    """
    if chosen := chosen or os.environ.get("VPROMPT_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    if not base:
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError as error:  # neither HOME nor an entry in the list of users
            raise UserError(
                "this user has no home folder for downloads and compiled programs: set "
                "VPROMPT_CACHE to a folder for them"
            ) from error
    return Path(base) / "vprompt_jax"

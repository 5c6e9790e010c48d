"""The folder for files that this package can compute or download again."""

import os
from pathlib import Path


def cache_folder(chosen: str | Path | None = None) -> Path:
    """The folder of downloads and compiled programs.

    It is `chosen`, else $VPROMPT_CACHE, else vprompt_jax in $XDG_CACHE_HOME or ~/.cache.
    """
    if chosen := chosen or os.environ.get("VPROMPT_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vprompt_jax"

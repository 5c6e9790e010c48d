"""Where this package keeps what it can make or fetch again."""

import os
from pathlib import Path


def cache_folder(chosen: str | Path | None = None) -> Path:
    """The folder of downloads and compiled programs: `chosen`, $VPROMPT_CACHE or
    ~/.cache/vprompt_jax."""
    if chosen := chosen or os.environ.get("VPROMPT_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vprompt_jax"

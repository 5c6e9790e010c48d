"""Files that are written as a whole or not at all."""

import os
from collections.abc import Collection
from pathlib import Path


def unused(path: Path, taken: Collection[Path] = ()) -> Path:
    """A path at which nothing is: this one, or STEM-2.SUFFIX, STEM-3.SUFFIX and so on.

    Args:
      path: the name wanted.
      taken: paths that are spoken for.
    """
    candidate, number = path, 2
    while candidate in taken or os.path.lexists(candidate):
        candidate, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return candidate


def replace(path: Path, text: str) -> None:
    """Writes a file as a whole or not at all, whenever the process or the machine stops."""
    partial = path.with_name(path.name + ".part")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)

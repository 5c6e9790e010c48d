"""Writes files as a whole or not at all."""

import os
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Writes a file as a whole or not at all, even if the process or the machine stops midway."""
    partial = path.with_name(path.name + ".part")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)

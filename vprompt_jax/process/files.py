"""Files that are written as a whole or not at all, and files of JSON."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vprompt_jax.process.errors import UserError


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


def most_unpacked(size: int) -> int:
    """Bytes that a file of weights or pictures may unpack to; one that wants more is hostile.

    Such data hardly shrink below an eighth: torch stores its tensors as they are, pictures are
    compressed already. A small file may be padded, so some memory is free.

    Args:
      size: of the file, in bytes.
    """
    return 8 * size + 2**26


def replace(path: Path, content: str | bytes) -> None:
    """Writes a file as a whole or not at all, even if the process or the machine stops midway."""
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: of the file.
      remedy: what to do if it is damaged, for the message.

    Raises:
      UserError: if it cannot be read, or is no JSON object.
    """
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, it is no JSON ({error}): {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged, it holds no JSON object: {remedy}")
    return value

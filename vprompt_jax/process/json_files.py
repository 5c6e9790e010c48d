"""Reads JSON objects that others wrote, within limits of size and depth."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MOST_BYTES = 2**23  # three times the index of a checkpoint with 20,000 tensors
_MOST_DEPTH = 64


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds a JSON object; raises OSError, or ValueError as `parse_object`."""
    with path.open("rb") as file:
        return parse_object(file.read(MOST_BYTES + 1))


def parse_object(text: bytes) -> dict[str, Any]:
    """Parses a text that holds one JSON object.

    Raises:
      ValueError: if it does not, is not UTF-8, has one key twice, or is very large or deep.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError(f"it is more than {_MOST_DEPTH} levels deep") from None
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    level: list[Any] = [value]
    for _ in range(_MOST_DEPTH):
        level = [child for container in level for child in _children(container)]
        if not level:
            return value
    raise ValueError(f"it is more than {_MOST_DEPTH} levels deep")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object in it has one key twice")
    return result

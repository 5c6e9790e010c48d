"""Shows names and lists on a terminal or in a text file."""

import os
from collections.abc import Sequence


def _visible(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def some_of(lines: Sequence[str], most: int = 20, separator: str = "\n  ") -> str:
    """The first of many lines for a message, and how many more there are."""
    more = len(lines) - most
    rest = f"{separator.lstrip(',')}and {more} more" if more > 0 else ""
    return separator.join(lines[:most]) + rest


def printable(text: str | os.PathLike[str]) -> str:
    """Replaces what a terminal would obey, or could not encode, by escapes.

    These are control characters (a line break, ESC), invisible format characters, and the bytes of
    a file name that are not UTF-8, which Python keeps as surrogates and refuses to print.
    """
    text = os.fspath(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _visible(c) for c in text)


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"

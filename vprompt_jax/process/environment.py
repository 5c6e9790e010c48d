"""Switches that the user sets in the environment."""

import os


def is_set(name: str) -> bool:
    """Whether a variable holds anything but nothing or 0."""
    return os.environ.get(name, "0") not in ("", "0")

"""Checks that the configs of towers share."""

from typing import Any


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ValueError if a value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def check_positive(tower: str, config: Any, *names: str) -> None:
    """Raises ValueError if one of the named fields is not a whole number over 0."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{tower}.{name} must be a whole number over 0, got {value!r}")


def check_heads(tower: str, config: Any) -> None:
    """Raises ValueError if the heads do not divide the width."""
    if config.width % config.heads:
        raise ValueError(f"{tower}: {config.heads} heads do not divide {config.width} channels")

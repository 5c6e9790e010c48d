"""Refuses two parts that stand in each other's way, before anything is loaded."""

from collections.abc import Iterable, Sequence
from typing import Any

from vprompt_jax.methods import registry
from vprompt_jax.parts import Part
from vprompt_jax.process.errors import UserError


def check(parts: Sequence[Part[Any]], overridden: Iterable[str]) -> None:
    """Refuses two parts that add tokens to the image's sequence, or write the classes' texts.

    Args:
      parts: those that are on.
      overridden: dotted keys that the command line sets, and so keeps if it can.

    Raises:
      UserError: naming both, and which to switch off.
    """
    tokens = [part.name for part in parts if part.adds_tokens]
    texts = [part.name for part in parts if part.writes_texts]
    asked = {key.partition(".")[0] for key in overridden}
    for both, what in (
        (tokens, "add tokens to the sequence, and would take each other's for their own"),
        (texts, "learn the words beside the class names"),
    ):
        if len(both) < 2:
            continue
        first, second = both[:2]
        out = first if second in asked and first not in asked else second
        switch = next(f"{k}={v}" for k, v in registry.switches() if k.startswith(f"{out}."))
        raise UserError(f"config.{first} and config.{second} both {what}: set config.{switch}")

"""Tables of every key that a library's config can have, and what each means for the towers here.

A config is believed as a whole or not at all: a key that no table knows, or a value under which the
library would compute something else, is refused by name.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from vprompt_jax.process.errors import UserError

_WAY_OUT = "choose another checkpoint, or remove the key if you know that it changes no output"


def names(text: str) -> frozenset[str]:
    """Names that spaces separate."""
    return frozenset(text.split())


@dataclasses.dataclass(frozen=True)
class Keys:
    """One level of a config.

    Attributes:
      where: what the user calls it ("config.json: vision_config").
      read: keys that are used, and the library's defaults.
      must: keys that have to have one of these values.
      harmless: keys that change no output of the towers.
    """

    where: str
    read: Mapping[str, Any]
    must: Mapping[str, tuple[Any, ...]]
    harmless: Collection[str]

    @property
    def known(self) -> set[str]:
        """All keys."""
        return {*self.read, *self.must, *self.harmless}

    def values(self, config: Any) -> dict[str, Any]:
        """The values of the keys that are used, with the library's defaults for those not given.

        Raises:
          UserError: if it is no object, or has a key or a value that is not supported.
        """
        if not isinstance(config, Mapping):
            raise UserError(f"{self.where} is no JSON object")
        for key, value in config.items():
            if key not in self.known:
                raise UserError(
                    f"{self.where} has {key}={value!r}, which is not known here and may change "
                    f"what the tower computes: {_WAY_OUT}"
                )
            if key in self.must and not any(_same(value, v) for v in self.must[key]):
                supported = " or ".join(map(repr, self.must[key]))
                raise UserError(
                    f"{self.where} asks for {key}={value!r}, which is not supported (supported: "
                    f"{supported}): {_WAY_OUT}"
                )
        return {key: config.get(key, default) for key, default in self.read.items()}


def _same(value: Any, other: Any) -> bool:
    """Equality that takes JSON's lists for tuples."""
    value = tuple(value) if isinstance(value, list) else value
    return bool(value == other)


def side_of(value: Any, where: str) -> int | None:
    """The side of a square that a config gives as a number or a pair; None stays None.

    Raises:
      UserError: if it is oblong, or no size.
    """
    if value is None:
        return None
    pair = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(pair) == 1:
        pair *= 2
    if len(pair) != 2 or not all(type(n) is int and n > 0 for n in pair):
        raise UserError(f"{where}={value!r} is not a size")
    if pair[0] != pair[1]:
        raise UserError(
            f"{where}={value!r}: towers for images that are not square are not supported"
        )
    return pair[0]


def agree(told: Mapping[str, Any], shapes: Mapping[str, Any], where: str) -> None:
    """Checks what a config tells against what the weights' shapes do.

    Args:
      told: the config's values by its keys; None where it says nothing.
      shapes: the weights' values by the same keys.
      where: the config.

    Raises:
      UserError: if they differ.
    """
    for key, value in told.items():
        value = tuple(value) if isinstance(value, list) else value
        if value is not None and key in shapes and value != shapes[key]:
            raise UserError(
                f"{where} says {key} {value}, the weights have {shapes[key]}: it belongs to "
                "another checkpoint"
            )

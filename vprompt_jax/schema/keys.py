"""How a section of the config is declared, and what a value must be to enter it.

A section is a frozen dataclass. Each field is a config key: its annotation gives the type and, as a
`Literal`, the choices; `key(...)` gives the default, the meaning, the range and the source.
"""

import dataclasses
import functools
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from vprompt_jax.process.errors import UserError

LARGE = 1e30  # well inside of float32
Optimizer = Literal["sgd", "adamw"]


@dataclasses.dataclass(frozen=True)
class Key:
    """What is known of a config key beside its name, type and default.

    Attributes:
      meaning: one line, with the unit.
      low, high: the range of a number, both ends included; None for no limit.
      source: where the default comes from; "" where there is nothing to say.
      label: what tables call the key; "" for its name.
      axis: label of a figure's axis over the key; "" if no figure is drawn over it.
      fact: entry of `result.json` that holds the value where the config leaves it open.
      names_file: whether a value may be the path of a file or folder.
    """

    meaning: str
    low: float | None = None
    high: float | None = None
    source: str = ""
    label: str = ""
    axis: str = ""
    fact: str = ""
    names_file: bool = False


def key(default: Any, meaning: str, **details: Any) -> Any:
    """A field of a section; `details` are the other attributes of `Key`."""
    return dataclasses.field(default=default, metadata={"key": Key(meaning, **details)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """The keys of one section, after every check."""


def learning_rate(default: float, source: str) -> Any:
    """The field of a part's peak learning rate."""
    return key(default, "peak learning rate", low=0, high=LARGE, source=source)


def optimizer(default: Optimizer, source: str) -> Any:
    """The field of a part's optimiser."""
    return key(default, "optimiser of the part", source=source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedSection(Section):
    """A section of a part that gradients train, at its own rate by its own optimiser."""

    learning_rate: float = learning_rate(0.0, "")
    optimizer: Optimizer = optimizer("sgd", "")


@dataclasses.dataclass(frozen=True)
class Field:
    """A key as its section declares it.

    Attributes:
      name: without the section's.
      kind: the Python type of a value.
      optional: whether None is a value of its own.
      choices: the values allowed, or () for any.
      default: where neither the user nor the method says anything.
      key: what else is declared.
    """

    name: str
    kind: type
    optional: bool
    choices: tuple[Any, ...]
    default: Any
    key: Key


def fields(section: type[Section]) -> Mapping[str, Field]:
    """The keys of a section, by name."""
    return _fields(section)  # type: ignore[arg-type]  # mypy: the hash of instances, not of classes


@functools.cache  # evaluating the annotations would take most of the time of `config.resolve`
def _fields(section: Any) -> Mapping[str, Field]:
    hints = typing.get_type_hints(section)
    return {f.name: _field(f, hints[f.name]) for f in dataclasses.fields(section)}


def _field(field: dataclasses.Field[Any], hint: Any) -> Field:
    optional = False
    choices: tuple[Any, ...] = ()
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        options = typing.get_args(hint)
        optional = type(None) in options
        (hint,) = (option for option in options if option is not type(None))
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        hint = type(choices[0])
    kind = typing.get_origin(hint) or hint
    return Field(field.name, kind, optional, choices, field.default, field.metadata["key"])


def converted(name: str, value: Any, kind: type) -> Any:
    """A value as the type of its key.

    Args:
      name: dotted name of the key, for messages.
      value: what the user gave.
      kind: of the key.

    Raises:
      UserError: if the value is of another type.
    """
    accepted = {float: (int, float), tuple: (tuple, list)}.get(kind, kind)
    # A bool is an int to Python, and never meant as one.
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise UserError(f"config.{name}={reprlib.repr(value)}: must be of type {kind.__name__}")
    try:
        return kind(value)
    except OverflowError as error:
        raise UserError(f"config.{name}={reprlib.repr(value)}: {error}") from error


def check(name: str, value: Any, field: Field) -> None:
    """Refuses a value that is none of the key's choices or out of its range.

    Raises:
      UserError: naming the key, and what it may be.
    """
    if value is None and field.optional:
        return
    if field.choices and value not in field.choices:
        options = ", ".join(map(str, field.choices))
        raise UserError(f"config.{name}={value!r}: choose one of {options}")
    if field.key.low is None and field.key.high is None:
        return
    low = -math.inf if field.key.low is None else field.key.low
    high = math.inf if field.key.high is None else field.key.high
    if not low <= value <= high or not math.isfinite(value):
        raise UserError(f"config.{name}={value!r}: must be between {low} and {high}")

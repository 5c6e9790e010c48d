"""Every part, one line each; whatever else is known of a part stands in its own file."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vprompt_jax.adapters import (
    activation,
    bottleneck,
    dora,
    gated_tokens,
    key_value_tokens,
    lora,
    parallel,
    scale_shift,
    tokens,
    tuning,
)
from vprompt_jax.heads import cache, feature_adapter, linear, mapping, sigmoid, text
from vprompt_jax.losses import consistency
from vprompt_jax.parts.part import SIDES, Part
from vprompt_jax.process.errors import UserError
from vprompt_jax.prompts import adavipro, low_rank, scaled, surrounding, vp
from vprompt_jax.schema import keys as schema
from vprompt_jax.schema.sections import SECTIONS, RootSection
from vprompt_jax.texts import context, coupled
from vprompt_jax.texts import lora as text_lora

PARTS: list[Part[Any]] = [
    vp.PART,
    low_rank.PART,
    surrounding.PART,
    scaled.PART,
    adavipro.PART,
    tokens.PART,
    gated_tokens.PART,
    key_value_tokens.PART,
    activation.PART,
    bottleneck.PART,
    parallel.PART,
    lora.PART,
    dora.PART,
    scale_shift.PART,
    tuning.PART,
    context.PART,
    text_lora.PART,
    coupled.PART,
    text.PART,
    sigmoid.PART,
    linear.PART,
    feature_adapter.PART,
    cache.PART,
    cache.TRAINED,
    mapping.PART,
    consistency.PART,
]


def register(part: Part[Any]) -> Part[Any]:
    """Adds a part to those that configs know.

    Raises:
      ValueError: if its name is taken, by a part that is not an alternative to it or by another
        section, or a key of an alternative has another type there.
    """
    if part.name in SECTIONS or part.name in schema.fields(RootSection):
        raise ValueError(f"a part cannot be named {part.name!r}: the config has such a key")
    for other in PARTS:
        if other.name == part.name:
            _check_alternatives(other, part)
    PARTS.append(part)
    return part


def _check_alternatives(one: Part[Any], other: Part[Any]) -> None:
    apart = one.kinds and other.kinds and not set(one.kinds) & set(other.kinds)
    if not apart or one.switch != other.switch:
        raise ValueError(
            f"two parts are named {one.name!r}: alternatives have one switch and a kind each"
        )
    ours, theirs = schema.fields(one.section), schema.fields(other.section)
    for name in ours.keys() & theirs.keys():
        if ours[name].kind is not theirs[name].kind:
            raise ValueError(f"{one.name}.{name} has two types: {one.section}, {other.section}")


def ordered(parts: Iterable[Part[Any]]) -> list[Part[Any]]:
    """Parts in the order in which they act."""
    return sorted(parts, key=lambda part: (SIDES.index(part.side), part.order))


def alternatives(name: str) -> list[Part[Any]]:
    """The parts of one name; only one of them can be on."""
    return [part for part in PARTS if part.name == name]


def names() -> list[str]:
    """Names of the parts' sections, in the order in which the parts were registered."""
    return list(dict.fromkeys(part.name for part in PARTS))


def fields(name: str) -> dict[str, schema.Field]:
    """The keys of a part's section, those of all its alternatives together.

    Where alternatives have a key of one name, it is the first one's.
    """
    together: dict[str, schema.Field] = {}
    for part in alternatives(name):
        for key, field in schema.fields(part.section).items():
            together.setdefault(key, field)
    return together


def all_fields() -> dict[str, schema.Field]:
    """Every key that a config has, by its dotted name."""
    keys = dict(schema.fields(RootSection))
    sections: Mapping[str, Mapping[str, schema.Field]] = {
        **{name: schema.fields(section) for name, section in SECTIONS.items()},
        **{name: fields(name) for name in names()},
    }
    for section, declared in sections.items():
        keys |= {f"{section}.{name}": field for name, field in declared.items()}
    return keys


def switches() -> Iterator[tuple[str, Any]]:
    """The dotted key that switches each part, with its value in a method without the part."""
    for name in names():
        part = alternatives(name)[0]
        yield f"{name}.{part.switch}", schema.fields(part.section)[part.switch].default


def position_key() -> str | None:
    """The config key by which a part's position in the tower is swept; None if no part has one."""
    keys = (f"{part.name}.{part.sweepable}" for part in PARTS if part.sweepable)
    return next(keys, None)


def part_of(name: str, value: Any) -> Part[Any] | None:
    """The part of a section that is on under a value of its switch; None if none is.

    Raises:
      UserError: if the section has alternatives and the value is the name of none.
    """
    options = alternatives(name)
    for part in options:
        if part.is_on(value):
            return part
    part = options[0]
    off = schema.fields(part.section)[part.switch].default
    if value == off:
        return None
    kinds = [str(kind) for option in options for kind in option.kinds]
    listed = kinds if str(off) in kinds else [str(off), *kinds]
    near = difflib.get_close_matches(str(value), listed, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(
        f"config.{name}.{part.switch}={value!r}: choose one of {', '.join(listed)}{hint}"
    )

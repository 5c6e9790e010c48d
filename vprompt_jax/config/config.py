"""The config of a run after every check: typed, frozen, with sections of the parts that are on."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vprompt_jax.schema import Section, TrainedSection
from vprompt_jax.schema.sections import (
    SECTIONS,
    CacheSection,
    CheckpointSection,
    DataSection,
    EvalSection,
    LogSection,
    MethodSection,
    ModelSection,
    OptimSection,
    RootSection,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RootSection):
    """One run.

    Attributes:
      parts: sections of the parts that are on, by name, in the order in which the parts act.
      switched_off: values of switches, by dotted key, of parts that the method has and this run has
        not.
    """

    model: ModelSection
    data: DataSection
    method: MethodSection
    cache: CacheSection
    optim: OptimSection
    eval: EvalSection
    checkpoint: CheckpointSection
    log: LogSection
    parts: Mapping[str, Section]
    switched_off: Mapping[str, Any]

    @property
    def trained(self) -> dict[str, TrainedSection]:
        """Sections of the parts that gradients train."""
        return {n: s for n, s in self.parts.items() if isinstance(s, TrainedSection)}

    def as_dict(self) -> dict[str, Any]:
        """The values as a config file nests them, from which `resolve` makes this config again."""
        values = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(RootSection)
        }
        sections = {name: getattr(self, name) for name in SECTIONS} | dict(self.parts)
        values |= {name: dataclasses.asdict(section) for name, section in sections.items()}
        for key, value in self.switched_off.items():
            section, _, name = key.partition(".")
            values[section] = {name: value}
        return values

    def as_json(self) -> str:
        """`as_dict` as sorted, readable JSON."""
        return json.dumps(self.as_dict(), indent=2, sort_keys=True) + "\n"

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that change with any value."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()[:8]


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested mappings by dotted key."""
    items: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            items |= flat(value, f"{prefix}{name}.")
        else:
            items[prefix + name] = value
    return items


def differences(old: Config, new: Config) -> dict[str, str]:
    """Lines "key: old -> new", by key, for the values in which two configs differ."""
    missing = "(absent)"
    a, b = flat(old.as_dict()), flat(new.as_dict())
    return {
        key: f"{key}: {a.get(key, missing)} -> {b.get(key, missing)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, missing) != b.get(key, missing)
    }


def difference(old: Config, new: Config) -> list[str]:
    """The lines of `differences`."""
    return list(differences(old, new).values())

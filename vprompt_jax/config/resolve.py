"""From what the user writes, a `ConfigDict`, to the typed config of a run.

`ml_collections` ends here: flags, config files and `config.json` are ConfigDicts, and whatever lies
behind `resolve` reads a section's dataclass.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from vprompt_jax.config import also, pairs, solvers
from vprompt_jax.config.config import Config, flat
from vprompt_jax.methods import registry, table
from vprompt_jax.parts.part import Part
from vprompt_jax.process.errors import UserError
from vprompt_jax.schema import Section
from vprompt_jax.schema import keys as schema
from vprompt_jax.schema.sections import ALTERNATIVES, SECTIONS, RootSection

# How values of keys that a config leaves open are found on val (`launching/search.py`). An entry of
# `space` is ("KEY KEY", kind, values...), whose keys share a value: choice, uniform, log or int.
SEARCH: dict[str, Any] = {
    "strategy": "none",
    "space": (),
    "trials": 0,
    "prune": False,
    "storage": "sqlite",
    "retrain": False,
}
_MOST_NAMED = 20  # keys that a message proposes


def default_config() -> ml_collections.ConfigDict:
    """The base that every file in configs/ starts from; unknown keys are refused.

    Each section is declared in `schema/sections.py`, a part's in the file that implements the part;
    docs/config.md lists them all. A part's key that is None takes the method's default or, for
    sizes, the papers' proportion of the tower's resolution.
    """
    c = ml_collections.ConfigDict()
    for name, field in registry.all_fields().items():
        section, _, key = name.rpartition(".")
        if section and section not in c:
            c[section] = ml_collections.ConfigDict()
        is_part = section in registry.names()
        open_value = is_part or field.default is None
        parent = c[section] if section else c
        parent[key] = config_dict.placeholder(field.kind) if open_value else field.default
    # Runs of a sweep: (name, ((key, value), ...)) each, keys as on the command line.
    c.sweep = ()
    c.search = ml_collections.ConfigDict(SEARCH)
    return c.lock()


def resolve(config: Mapping[str, Any], overridden: Iterable[str] = ()) -> Config:
    """Fills in the method's defaults and checks every value.

    Args:
      config: a `ConfigDict` made from `default_config`, or the contents of a run's `config.json`.
      overridden: dotted keys that the command line sets. One of a part that is off is a mistake; a
        config file may set such keys, since it serves several methods.

    Raises:
      UserError: if a key is unknown, a value is of another type or out of range, a part that is
        on cannot be so, or a key of `overridden` belongs to a part that is off.
    """
    values, parts = _chosen(config)
    overridden = list(overridden)
    for key in overridden:
        if reason := _unused(key, parts, values):
            raise UserError(reason)
    for name, field in registry.all_fields().items():
        if name.partition(".")[0] not in registry.names():
            schema.check(name, values[name], field)
    if not re.fullmatch(r"[^/\\\0.][^/\\\0]{0,199}", values["name"]):
        raise UserError(f"config.name={values['name']!r}: must do as the name of a folder")
    if (source := values["data.source"]) != "digits":
        key = "name" if source in ("tfds", "given") else "dir"
        if not values[f"data.{key}"]:
            raise UserError(f"config.data.source={source} needs config.data.{key}")
    if values["data.val_shots"] and not values["data.few_shot"]:
        raise UserError("config.data.val_shots has no effect without config.data.few_shot")
    if values["data.shot_seed"] is not None and not values["data.few_shot"]:
        raise UserError("config.data.shot_seed has no effect without config.data.few_shot")
    if values["optim.patience"] and values["protocol"] == "paper":
        raise UserError(
            "config.optim.patience waits for val to become better, and config.protocol=paper has "
            "none: set config.protocol=val"
        )
    for one, other in ALTERNATIVES:
        if values[one] and values[other]:
            raise UserError(f"config.{one} and config.{other} are alternatives: set one to 0")
    if values["optim.parts"] > values["optim.batch_size"]:
        raise UserError("config.optim.parts cannot be more than config.optim.batch_size")
    sections = {part.name: _section(part, values) for part in parts}
    for part in parts:
        try:
            part.check(sections[part.name], sections)
        except ValueError as error:
            raise UserError(str(error)) from error
    pairs.check(parts, overridden)
    solvers.check(parts, sections, values, overridden)
    base = {name: _base(name, section, values) for name, section in SECTIONS.items()}
    root = {name: values[name] for name in schema.fields(RootSection)}
    off = {
        key: values[key]
        for key in table.lookup(values["method.name"]).parts.keys() & dict(registry.switches())
        if key.partition(".")[0] not in sections
    }
    made = Config(**root, **base, parts=sections, switched_off=off)  # type: ignore[arg-type]
    also.targets(made.data, made.eval.also)
    return made


def unused_by_all(configs: Iterable[Mapping[str, Any]], overridden: Iterable[str]) -> list[str]:
    """Why each key of `overridden` is used by none of the runs of a sweep."""
    reasons: dict[str, list[str | None]] = {key: [] for key in overridden}
    for config in configs:
        values, parts = _chosen(config)
        for key, listed in reasons.items():
            listed.append(_unused(key, parts, values))
    return [listed[0] for listed in reasons.values() if listed and listed[0] and all(listed)]


def _chosen(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[Part[Any]]]:
    """All values by dotted key, the method's where the config leaves them open; and the parts that
    are on."""
    values = _typed(config)
    for key, value in table.lookup(values["method.name"]).defaults.items():
        other = dict(ALTERNATIVES).get(key)
        if values.get(key) is None and not (other and values[other]):
            values[key] = value
    return values, _parts_on(values)


def _typed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key, of the keys' types; missing keys take their default.

    A resolved config lacks the keys of parts that are off, and earlier versions wrote only the
    switch of such a part.
    """
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    known = registry.all_fields()
    parts = registry.names()
    values = {
        name: None if name.partition(".")[0] in parts else field.default
        for name, field in known.items()
    }
    of_several = ["sweep", *(f"search.{key}" for key in SEARCH)]  # of several runs, not of one
    for name, value in flat(config).items():
        if name in of_several:
            continue
        if name not in known:
            near = nearest(name, [*known, *of_several])
            raise UserError(
                f"unknown config key config.{name}" + (near and f"; did you mean {near}?")
            )
        open_value = known[name].default is None or name.partition(".")[0] in parts
        if value is not None or not open_value:
            values[name] = schema.converted(name, value, known[name].kind)
    return values


def nearest(key: str, known: list[str]) -> str:
    """Keys that look like one, or may be what it abbreviates; without any, those of its section.

    Args:
      key: dotted, unknown.
      known: all dotted keys.

    Returns:
      "config.a or config.b"; "" if there is nothing to offer.
    """
    section, _, field = key.rpartition(".")

    def alike(candidate: str) -> bool:
        words = candidate.rpartition(".")[2]
        initials = "".join(word[0] for word in words.split("_"))
        close = bool(difflib.get_close_matches(field, [words], 1, 0.7))
        # lr is learning_rate, bs is batch_size; rate and batch are parts of them.
        return close or field == initials or field in words.split("_")

    inside = [k for k in known if section and k.startswith(f"{section}.")]
    near = [k for k in inside if alike(k)]
    near = near or [k for k in known if alike(k)]
    if not inside:
        near = difflib.get_close_matches(key, known, 3, 0.75) + near
    names = [f"config.{k}" for k in dict.fromkeys(near or inside)][:_MOST_NAMED]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _parts_on(values: Mapping[str, Any]) -> list[Part[Any]]:
    """The parts that are on, in the order in which they act."""
    on = []
    for key, _ in registry.switches():
        name = key.partition(".")[0]
        field = registry.fields(name)[key.partition(".")[2]]
        schema.check(key, values[key], field)
        if (part := registry.part_of(name, values[key])) is not None:
            on.append(part)
    return registry.ordered(on)


def _unused(key: str, parts: Iterable[Part[Any]], values: Mapping[str, Any]) -> str | None:
    """Why no code reads a key under these parts; None if one does."""
    section, _, field = key.partition(".")
    if section not in registry.names():
        return None
    options = registry.alternatives(section)
    switch = f"{section}.{options[0].switch}"
    if key == switch:
        return None
    part = next((p for p in parts if p.name == section), None)
    if part is not None and field in schema.fields(part.section):
        return None
    having = [p for p in options if field in schema.fields(p.section)]
    kinds = having[0].kinds if having else ()
    wanted = kinds[0] if kinds else None
    if wanted is None:  # any value but one switches the part on: one that a method has
        off = dict(registry.switches())[switch]
        wanted = next(
            repr(method.parts[switch]).replace("'", "")
            for method in table.METHODS.values()
            if method.parts.get(switch, off) != off
        )
    return (
        f"config.{key} has no effect: config.method.name={values['method.name']} has "
        f"config.{switch}={values[switch]!r}; omit it, or set config.{switch}={wanted}"
    )


def _section(part: Part[Any], values: Mapping[str, Any]) -> Section:
    fields = schema.fields(part.section)
    chosen = {}
    for name, field in fields.items():
        value = values[f"{part.name}.{name}"]
        chosen[name] = field.default if value is None else value
        schema.check(f"{part.name}.{name}", chosen[name], field)
    return part.section(**chosen)


def _base(name: str, section: type[Section], values: Mapping[str, Any]) -> Section:
    return section(**{field: values[f"{name}.{field}"] for field in schema.fields(section)})

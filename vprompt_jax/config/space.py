"""The space of a search: which keys, and between what (`config.search`)."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from vprompt_jax.config.config import Config
from vprompt_jax.config.resolve import nearest, resolve, unused_by_all
from vprompt_jax.methods import registry
from vprompt_jax.process.errors import UserError

_STRATEGIES = ("grid", "random", "optuna")
_STORAGES = ("sqlite", "journal")
_KINDS = ("choice", "uniform", "log", "int")


@dataclasses.dataclass(frozen=True)
class Axis:
    """Keys that share a value, and what it may be: the values of a choice, or both ends."""

    keys: tuple[str, ...]
    kind: str
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        return " ".join(self.keys)


def axes_of(config: ConfigDict) -> list[Axis]:
    """The axes of a run's search, without keys of parts that the run has not.

    Raises:
      UserError: naming what is mistaken.
    """
    c = config.search
    if c.strategy not in _STRATEGIES:
        raise UserError(f"config.search.strategy={c.strategy!r}: choose {', '.join(_STRATEGIES)}")
    if c.strategy != "grid" and c.trials < 1:
        raise UserError(f"config.search.strategy={c.strategy} needs config.search.trials")
    if c.storage not in _STORAGES:
        raise UserError(f"config.search.storage={c.storage!r}: choose {', '.join(_STORAGES)}")
    if c.prune and c.strategy != "optuna":
        raise UserError("config.search.prune works with config.search.strategy=optuna alone")
    if resolve(config).protocol != "val":
        raise UserError(
            "config.search chooses on val: set config.protocol=val, and config.search.retrain=True "
            "for runs on all of train afterwards"
        )
    axes = []
    for entry in c.space:
        axis = _axis(entry)
        if c.strategy == "grid" and axis.kind != "choice":
            raise UserError(
                f"config.search.space: a grid needs choices, not {axis.kind} of {entry!r}"
            )
        used = tuple(key for key in axis.keys if not unused_by_all([config], [key]))
        if used:
            axes.append(dataclasses.replace(axis, keys=used))
    for values in _corners(axes):
        with_values(config, values)
    return axes


def check_used(config: ConfigDict, runs: Sequence[ConfigDict]) -> None:
    """Refuses an entry of the space whose keys no run uses.

    Raises:
      UserError: naming them.
    """
    for keys in [_axis(entry).keys for entry in config.search.space]:
        if len(reasons := unused_by_all(runs, keys)) == len(keys):
            raise UserError(f"config.search.space: no run uses {' '.join(keys)}: {reasons[0]}")


def _axis(entry: Any) -> Axis:
    """An entry of `search.space`: ("KEY", "choice", a, b, ...) or ("KEY", "log", low, high)."""
    mistaken = UserError(
        f"config.search.space holds {entry!r}, which is not (KEYS, KIND, VALUES...): kinds are "
        "choice with its values, and uniform, log and int with a lower and a higher end"
    )
    if not isinstance(entry, tuple | list) or len(entry) < 3 or not isinstance(entry[0], str):
        raise mistaken
    axis = Axis(tuple(entry[0].split()), entry[1], tuple(entry[2:]))
    if axis.kind not in _KINDS or not axis.keys:
        raise mistaken
    known = list(registry.all_fields())
    if unknown := [key for key in axis.keys if key not in known]:
        near = nearest(unknown[0], known)
        raise UserError(
            f"config.search.space: unknown key {unknown[0]}" + (near and f"; did you mean {near}?")
        )
    if axis.kind != "choice":
        number = int if axis.kind == "int" else (int, float)
        if len(axis.values) != 2 or not all(isinstance(v, number) for v in axis.values):
            raise mistaken
        low, high = axis.values
        if not low < high or (axis.kind == "log" and low <= 0):
            raise mistaken
    return axis


def _corners(axes: list[Axis]) -> Iterator[dict[str, Any]]:
    """Values at which each axis takes each of its ends or choices once."""
    for axis in axes:
        for value in axis.values:
            yield {other.name: other.values[0] for other in axes} | {axis.name: value}


def with_values(config: ConfigDict, values: Mapping[str, Any]) -> Config:
    """The resolved config of a trial.

    Raises:
      UserError: if a value cannot be.
    """
    one = copy.deepcopy(config)
    one.sweep = ()
    try:
        one.update_from_flattened_dict(by_key(values))
    except (TypeError, ValueError) as error:
        raise UserError(f"config.search.space: {error}") from error
    return resolve(one)


def by_key(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by key, from values by axis."""
    return {key: value for name, value in values.items() for key in name.split()}

"""Sweeps: configs that list their runs, and what those runs are."""

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from vprompt_jax.config.resolve import unused_by_all
from vprompt_jax.process.errors import UserError

Runs = tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]


def grid(
    axes: Mapping[str, Sequence[Any]], seeds: Iterable[int] = (0,), seeded: Sequence[str] = ()
) -> Runs:
    """Every combination of values and seeds, for a config's `sweep`.

    Args:
      axes: values by config key. A method's name alone names its runs; other values are written
        with the last part of their key.
      seeds: of each combination.
      seeded: further keys that take the seed, such as `data.shot_seed`.

    Returns:
      (name, ((key, value), ...)) of every run.
    """
    runs = []
    for values in itertools.product(*axes.values()):
        keys = tuple(zip(axes, values, strict=True))
        for seed in seeds:
            own = [(key, seed) for key in ("seed", *seeded)]
            words = [
                _word(value) if key in ("method.name", "data.name") else
                f"{key.split('.')[-1]}_{_word(value)}"
                for key, value in keys
            ]  # fmt: skip
            runs.append(("-".join([*words, f"s{seed}"]), (*keys, *own)))
    return tuple(runs)


def _word(value: Any) -> str:
    """A value as a part of a folder's name."""
    if isinstance(value, tuple | list):
        return "_".join(map(_word, value))
    return str(value).replace("/", "_")


def expand(config: ConfigDict) -> dict[str, ConfigDict]:
    """The config of every run by name: the base with the run's overrides.

    Raises:
      UserError: if a run has an unknown key, or a name is there twice.
    """
    runs: dict[str, ConfigDict] = {}
    try:
        listed = [(str(name), dict(overrides)) for name, overrides in config.sweep]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"config.sweep must hold (name, ((key, value), ...)) for each run: {error}"
        ) from error
    base = copy.copy(config)
    base.sweep = ()  # not copied with every run
    for name, overrides in listed:
        one = copy.deepcopy(base)
        one.name = f"{config.name}-{name}"
        try:
            one.update_from_flattened_dict(overrides)
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise UserError(f"sweep run {name!r}: {error}") from error
        if name in runs:
            raise UserError(f"sweep run {name!r} is listed twice")
        runs[name] = one
    return runs


def choose(config: ConfigDict, which: str) -> tuple[str, ConfigDict]:
    """One run of a sweep, by its name or its number from 0.

    Raises:
      UserError: if there is none.
    """
    runs = expand(config)
    names = list(runs)
    name = names[int(which)] if which.isdecimal() and int(which) < len(names) else which
    if name not in runs:
        listed = ", ".join(f"{i} {name}" for i, name in enumerate(names)) or "it is no sweep"
        raise UserError(f"no run {which!r} in this config: {listed}")
    return name, runs[name]


def check_overridden(runs: Mapping[str, Any], overridden: Iterable[str]) -> None:
    """Refuses keys that the command line sets and that no run of a sweep reads.

    Args:
      runs: configs by name, as `expand` gives them.
      overridden: dotted keys.

    Raises:
      UserError: naming such a key.
    """
    if reasons := unused_by_all(runs.values(), overridden):
        raise UserError(f"no run of this sweep uses this key: {reasons[0]}")

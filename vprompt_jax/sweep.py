"""Runs the variations a config lists, one after another, then reports on them."""

import copy
from pathlib import Path

import jax

from vprompt_jax import report
from vprompt_jax.config import resolve
from vprompt_jax.errors import UserError
from vprompt_jax.train.run import fit


def expand(config) -> dict[str, object]:
    """The config of every run by name: the base with the run's overrides."""
    runs = {}
    try:
        listed = [(str(name), dict(overrides)) for name, overrides in config.sweep]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"config.sweep must hold (name, ((key, value), ...)) for each run: {error}"
        ) from error
    for name, overrides in listed:
        one = copy.deepcopy(config)
        one.sweep = ()
        one.name = f"{config.name}-{name}"
        try:
            one.update_from_flattened_dict(overrides)
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise UserError(f"sweep run {name!r}: {error}") from error
        runs[name] = one
    return runs


def choose(config, which: str) -> tuple[str, object]:
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


def run(config, workdir: Path) -> None:
    """Runs what is not finished, each in a folder of its name, and writes the report.

    Raises:
      UserError: as `train.fit`; the finished runs stay. Also if there are several processes.
    """
    runs = expand(config)
    if jax.process_count() > 1:
        raise UserError(
            "a sweep runs on one machine, one run after another: on several, start each run by "
            f"itself with --run=0 to --run={len(runs) - 1}"
        )
    for one in runs.values():
        resolve(one)  # a mistake in the last run shows before the first one starts
    for number, (name, one) in enumerate(runs.items(), 1):
        result = fit(one, workdir / name)
        print(
            f"[{number}/{len(runs)}] {name}: {result['test_accuracy']:.2%} "
            f"(zero-shot {result['zero_shot_accuracy']:.2%})",
            flush=True,
        )
    for path in report.write([workdir / name for name in runs], workdir):
        print(f"wrote {path}")

"""Runs the variations a config lists, one after another, then reports on them."""

import copy
from pathlib import Path

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


def run(config, workdir: Path) -> None:
    """Runs what is not finished, each in a folder of its name, and writes the report.

    Raises:
      UserError: as `train.fit`; the finished runs stay.
    """
    runs = expand(config)
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

"""Finds values of keys that a config leaves open, by accuracy on val, before its runs start.

`config.search` says which keys, between what, and how: `grid` tries all combinations, `random`
draws them, `optuna` lets Optuna propose them. A trial is a run like any other, in a folder of its
own; so a search goes on where it stopped, and several processes given the same command share its
trials. The runs of a sweep that differ in the seed alone share a search. A trial has a test
accuracy, as any run has one; it is not read here.
"""

import contextlib
import copy
import csv
import io
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vprompt_jax.config import sweep as sweeps
from vprompt_jax.config.space import Axis, axes_of, by_key, check_used
from vprompt_jax.launching import trials as trials_lib
from vprompt_jax.launching.trials import Trial, said, tried
from vprompt_jax.process.errors import InUse, UserError
from vprompt_jax.process.files import replace

FOLDER = "search"  # in the workdir
_SEEDS = ("seed", "data.shot_seed")


def chosen(config: ConfigDict, workdir: Path, which: str | None = None) -> ConfigDict:
    """The config with the values that are best on val, and nothing left to search for.

    Args:
      config: with a `search`.
      workdir: the trials of a sweep's run lie in `search/RUN/`, those of a single run in `search/`.
      which: name or number of the one run of a sweep that is to be done; None for all.

    Raises:
      UserError: if the search is mistaken, a trial's config, weights or data are at fault, or no
        trial finished.
    """
    import jax

    if jax.process_count() > 1:
        raise UserError("config.search: a trial runs in one process; start one without the others")
    made = copy.deepcopy(config)
    made.search.strategy = "none"
    last = {"protocol": "paper"} if config.search.retrain else {}
    if not config.sweep:
        check_used(config, [config])
        made.update_from_flattened_dict(_searched(config, workdir / FOLDER) | last)
        return made
    runs = sweeps.expand(config)
    wanted = None if which is None else sweeps.choose(config, which)[0]
    first: dict[str, str] = {}  # run of each case: of what differs in the seed alone
    case_of = {}
    for name, overrides in config.sweep:
        case_of[name] = repr([item for item in overrides if item[0] not in _SEEDS])
        first.setdefault(case_of[name], name)
    check_used(config, [runs[name] for name in first.values()])
    for name in first.values():
        axes_of(runs[name])  # a mistake in the last search shows before the first one starts
    found: dict[str, dict[str, Any]] = {}
    extended = []
    for name, overrides in config.sweep:
        if wanted in (None, name):
            case = case_of[name]
            if case not in found:
                found[case] = _searched(runs[first[case]], workdir / FOLDER / first[case])
            overrides = (*overrides, *found[case].items(), *last.items())
        extended.append((name, overrides))
    made.sweep = tuple(extended)
    return made


def _searched(config: ConfigDict, folder: Path) -> dict[str, Any]:
    """The values that are best on val, by key; writes `chosen.json` and `trials.csv`."""
    axes = axes_of(config)
    if not axes:
        return {}
    if config.search.strategy == "optuna":
        from vprompt_jax.launching import by_optuna

        trials = by_optuna.trials(config, axes, folder)
    else:
        listed = {"grid": _grid, "random": _random}[config.search.strategy]
        trials = _shared(config, list(listed(config, axes)), folder)
    finished = [trial for trial in trials if trial.accuracy is not None]
    if not finished:
        raise UserError(f"{folder}: no trial finished: choose another config.search.space")
    best = max(finished, key=lambda trial: trial.accuracy or 0.0)  # the first of equals
    values = by_key(best.values)
    about = {"values": values, "val_accuracy": best.accuracy, "trials": len(trials),
             "folder": best.folder, "search": config.search.to_dict()}  # fmt: skip
    replace(folder / "chosen.json", json.dumps(about, indent=2) + "\n")
    replace(folder / "trials.csv", _table(axes, trials))
    print(f"chosen on val, of {len(trials)} trials: {said(best)}", flush=True)
    return values


def _table(axes: list[Axis], trials: list[Trial]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(axis.name for axis in axes), "val_accuracy", "state", "folder"])
    for trial in sorted(trials, key=lambda t: -1.0 if t.accuracy is None else t.accuracy)[::-1]:
        row = [*(trial.values[axis.name] for axis in axes), trial.accuracy, trial.state]
        writer.writerow([*row, trial.folder])
    return text.getvalue()


def _shared(config: ConfigDict, proposals: list[dict[str, Any]], folder: Path) -> list[Trial]:
    """The trials of a list that all processes know, in its order, however they are shared."""
    done: dict[int, Trial] = {}
    while len(done) < len(proposals):
        for i, values in enumerate(proposals):
            if i not in done:
                with contextlib.suppress(InUse):
                    done[i] = tried(config, values, folder)
        if len(done) < len(proposals):
            time.sleep(trials_lib.WAIT)
    return [done[i] for i in range(len(proposals))]


def _grid(config: ConfigDict, axes: list[Axis]) -> Iterator[dict[str, Any]]:
    """All combinations, the last axis fastest."""
    del config
    for values in itertools.product(*(axis.values for axis in axes)):
        yield {axis.name: value for axis, value in zip(axes, values, strict=True)}


def _random(config: ConfigDict, axes: list[Axis]) -> Iterator[dict[str, Any]]:
    """Trial i depends on the seed and i alone, so that more trials add to fewer."""

    def drawn(axis: Axis, rng: np.random.Generator) -> Any:
        if axis.kind == "choice":
            return axis.values[rng.integers(len(axis.values))]
        low, high = axis.values
        if axis.kind == "int":
            return int(rng.integers(low, high, endpoint=True))
        if axis.kind == "log":
            return math.exp(rng.uniform(math.log(low), math.log(high)))
        return float(rng.uniform(low, high))

    for i in range(config.search.trials):
        rng = np.random.default_rng((config.seed, i))
        yield {axis.name: drawn(axis, rng) for axis in axes}

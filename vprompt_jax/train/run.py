"""`fit`: one run from a config to `result.json`."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview

from vprompt_jax.config import Config, resolve
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.measures import table as predictions
from vprompt_jax.process import cluster
from vprompt_jax.process.files import replace
from vprompt_jax.train import cache, recheck, result
from vprompt_jax.train import workdir as folder
from vprompt_jax.train.final import final
from vprompt_jax.train.loop import Outcome, train
from vprompt_jax.train.training import Training, assemble
from vprompt_jax.train.validation import Watch

# What is to be done with a run that has just finished, while its weights and images are in memory.
Then = Callable[[Training, Outcome, dict[str, Any]], None]


def default_workdir(config: Config) -> Path:
    """runs/<config name>-<fingerprint of the config>."""
    return Path("runs") / f"{config.name}-{config.fingerprint}"


def fit(
    config: Config | Mapping[str, Any],
    workdir: Path | str,
    dataset: Dataset | None = None,
    then: Then | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Trains and evaluates what a config describes.

    Writes `config.json`, `inputs.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/`,
    `predictions.parquet` and, last, `result.json` to the workdir. An interrupted run goes on from
    its newest save; a finished one is not run again if its data are still the same.

    Args:
      config: a `ConfigDict` made from `config.default_config`, or what `resolve` made of it.
      workdir: folder of this run; made if need be.
      dataset: images in memory, say, in place of what `config.data` names.
      then: called at the end, in the first process, with the contents of `result.json`; not for a
        run that was finished before.
      watch: called after each evaluation on val, with the step and the accuracy; what it raises
        ends the run here.

    Returns:
      The contents of `result.json`.

    Raises:
      UserError: if the config, the weights or the data are at fault, or the workdir belongs to
        another config, is in use, or holds a finished run on data that have changed.
    """
    if not isinstance(config, Config):
        config = resolve(config)
    workdir = Path(workdir)
    cluster.agree("config", config.as_json())

    def finished() -> dict[str, Any] | None:
        return folder.finished(config, workdir, lambda: assemble(config, dataset).identity)

    done = finished()
    if done is None:
        with folder.in_use(workdir):
            done = finished()  # by another command, in the meantime
            if done is None:
                return _run(config, workdir, dataset, then, watch)
    recheck.check(config, done, workdir, dataset)
    return done


def _run(
    config: Config,
    workdir: Path,
    dataset: Dataset | None,
    then: Then | None,
    watch: Watch | None,
) -> dict[str, Any]:
    """Does what is left to do of a run."""
    started = time.time()
    with jax.default_matmul_precision(config.model.matmul_precision):
        run = _assembled(config, workdir, dataset)
        for warning in run.warnings:
            cluster.say(warning)
        if jax.process_index() == 0:
            if params := jax.eval_shape(run.adaptation.initial_params):
                cluster.say(parameter_overview.get_parameter_overview(params, include_stats=False))
            replace(workdir / "config.json", config.as_json())
            folder.write_inputs(workdir, config, run.identity)
        outcome = train(run, workdir, watch)
        found = final(run, outcome)
    cache.remove(workdir)
    seconds = outcome.earlier_seconds + time.time() - started
    written = json.dumps(result.describe(run, outcome, found, seconds), indent=2) + "\n"
    if jax.process_index() == 0:
        predictions.write(
            workdir / predictions.NAME, found.predictions, found.temperature, found.class_names
        )
        replace(workdir / "result.json", written)
    contents: dict[str, Any] = json.loads(written)
    if then is not None and jax.process_index() == 0:
        then(run, outcome, contents)
    return contents


def _assembled(config: Config, workdir: Path, dataset: Dataset | None) -> Training:
    """The run, on cached activations where they fit."""
    run = assemble(config, dataset)
    cluster.agree("weights and data", run.identity)
    if run.steps == 0 and not run.solver():
        return run
    return dataclasses.replace(run, dataset=cache.with_prefix(run.adaptation, run.dataset, workdir))

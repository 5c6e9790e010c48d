"""`fit`: one run from a config to `result.json`."""

import contextlib
import dataclasses
import functools
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview

from vprompt_jax.config import Config, difference, resolve
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.process import cluster, finite
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.files import replace
from vprompt_jax.train import cache, recheck, result
from vprompt_jax.train.evaluate import evaluate
from vprompt_jax.train.loop import batches_of, train
from vprompt_jax.train.step import make_eval_step
from vprompt_jax.train.training import Training, assemble

_SPACE_NEEDED = 100 * 2**20  # bytes


def default_workdir(config: Config) -> Path:
    """runs/<config name>-<fingerprint of the config>."""
    return Path("runs") / f"{config.name}-{config.fingerprint}"


def fit(
    config: Config | Mapping[str, Any], workdir: Path | str, dataset: Dataset | None = None
) -> dict[str, Any]:
    """Trains and evaluates what a config describes.

    Writes `config.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/` and, last,
    `result.json` to the workdir. An interrupted run goes on from its newest save; a finished one
    is not run again if its data are still the same.

    Args:
      config: a `ConfigDict` made from `config.default_config`, or what `resolve` made of it.
      workdir: folder of this run; made if need be.
      dataset: images in memory, say, in place of what `config.data` names.

    Returns:
      The contents of `result.json`.

    Raises:
      UserError: if the config, the weights or the data are at fault, or the workdir belongs to
        another config, or holds a finished run on data that have changed.
    """
    if not isinstance(config, Config):
        config = resolve(config)
    workdir = Path(workdir)
    finished = _prepare(config, workdir)
    cluster.agree("config and workdir", [config.as_json(), _contents(workdir)])
    if finished is not None:
        recheck.check(config, finished, workdir, dataset)
        return finished
    started = time.time()
    with jax.default_matmul_precision(config.model.matmul_precision):
        run = _assembled(config, workdir, dataset)
        for warning in run.warnings if jax.process_index() == 0 else ():
            print(warning, file=sys.stderr)
        if jax.process_index() == 0:
            params = run.adaptation.initial_params()
            if params:
                overview = parameter_overview.get_parameter_overview(params, include_stats=False)
                print(overview, file=sys.stderr)
            replace(workdir / "config.json", config.as_json())
        outcome = train(run, workdir)
        frozen = run.adaptation.frozen

        def on_test(eval_step: Any, params: Any, assigned: Any) -> dict[str, float]:
            step = functools.partial(eval_step, params, assigned, frozen, run.root)
            with finite.explained("the test split", [frozen, params], run.remedies):
                return evaluate(step, batches_of(run, run.dataset.test))

        zero_shot = None
        if run.adaptation.model.clip.config.has_text:
            zero_shot = on_test(make_eval_step(run.adaptation.zero_shot, {}), {}, {})
        if zero_shot is not None and not (outcome.params or outcome.assigned):
            last = zero_shot
        else:
            last = on_test(outcome.eval_step, outcome.params, outcome.assigned)
        best = None
        if run.dataset.val is not None:
            best = last
            if run.steps and outcome.best.step != run.steps:
                best = on_test(outcome.eval_step, outcome.best.params, outcome.best.assigned)
    cache.remove(workdir)
    text = result.describe(
        run,
        outcome,
        last=last,
        best=best,
        zero_shot=zero_shot,
        seconds=outcome.earlier_seconds + time.time() - started,
    )
    written = json.dumps(text, indent=2) + "\n"
    if jax.process_index() == 0:
        replace(workdir / "result.json", written)
    return json.loads(written)


def _assembled(config: Config, workdir: Path, dataset: Dataset | None) -> Training:
    """The run, on cached activations where they fit."""
    try:
        run = assemble(config, dataset)
        cluster.agree("weights and data", run.identity)
    except BaseException:
        with contextlib.suppress(OSError):  # a run that could not start leaves no trace
            workdir.rmdir()  # only if empty
        raise
    if run.steps == 0:
        return run
    return dataclasses.replace(run, dataset=cache.with_prefix(run.adaptation, run.dataset, workdir))


def _contents(workdir: Path) -> list[str]:
    """What decides where a run goes on from."""
    saves = sorted(p.name for p in (workdir / "checkpoints").glob("*"))
    return [name for name in ("config.json", "result.json") if (workdir / name).exists()] + saves


def _prepare(config: Config, workdir: Path) -> dict[str, Any] | None:
    """Makes the workdir, or checks that it is this config's; returns a finished run's result."""
    path = workdir / "config.json"
    try:
        if path.is_file():
            changed = difference(resolve(json.loads(path.read_text())), config)
            if changed:
                listed = "\n  ".join(changed)
                raise UserError(
                    f"{workdir} belongs to a run with another config:\n  {listed}\n"
                    "choose another --workdir, or undo the change to go on with that run"
                )
            return result.read(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(workdir).free
        if free < _SPACE_NEEDED:
            raise UserError(
                f"only {free >> 20} MiB free at {workdir}: make room, or move --workdir"
            )
    except (OSError, ValueError) as error:
        raise UserError(f"cannot use the workdir {workdir}: {error}") from error
    return None

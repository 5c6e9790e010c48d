"""`fit`: one run from a config to `result.json`."""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
from clu import parameter_overview

from vprompt_jax import config as config_lib
from vprompt_jax import data
from vprompt_jax.adaptation import build
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.process import cluster
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.files import replace
from vprompt_jax.train import cache
from vprompt_jax.train.assemble import Run, assemble, assemble_for_inference
from vprompt_jax.train.checkpoint import Checkpoints
from vprompt_jax.train.evaluate import evaluate
from vprompt_jax.train.loop import restore, train
from vprompt_jax.train.step import make_eval_step, trained

_SPACE_NEEDED = 100 * 2**20  # bytes


def default_workdir(config) -> Path:
    """runs/<config name>-<fingerprint of the resolved config>."""
    resolved = config_lib.resolve(config)
    return Path("runs") / f"{resolved.name}-{config_lib.fingerprint(resolved)}"


def read_result(workdir: Path) -> dict[str, Any] | None:
    """The result of a finished run, or None."""
    path = workdir / "result.json"
    return json.loads(path.read_text()) if path.is_file() else None


def fit(config, workdir: Path | str, dataset: Dataset | None = None) -> dict[str, Any]:
    """Trains and evaluates what a config describes.

    Writes `config.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/` and, last,
    `result.json` to the workdir. An interrupted run goes on from its newest save; a finished one
    is not run again.

    Args:
      config: a `ConfigDict` made from `config.default_config`.
      workdir: folder of this run; made if need be.
      dataset: images in memory, say, in place of what `config.data` names.

    Returns:
      The contents of `result.json`.

    Raises:
      UserError: if the config, the weights or the data are at fault, or the workdir belongs to
        another config.
    """
    config = config_lib.resolve(config)
    workdir = Path(workdir)
    finished = _prepare(config, workdir)
    cluster.agree("config and workdir", [config_lib.as_json(config), _contents(workdir)])
    if finished is not None:
        return finished
    started = time.time()
    with jax.default_matmul_precision(config.model.matmul_precision):
        try:
            run = assemble(config, dataset)
            cluster.agree("weights and data", run.identity)
        except BaseException:
            with contextlib.suppress(OSError):  # a run that could not start leaves no trace
                workdir.rmdir()  # only if empty
            raise
        run = cache.with_prefix(run, workdir)
        params = run.initial_params()
        by_part = {
            part: sum(leaf.size for leaf in jax.tree.leaves(tree))
            for part, tree in trained(params).items()
        }
        if params and jax.process_index() == 0:
            overview = parameter_overview.get_parameter_overview(params, include_stats=False)
            print(overview, file=sys.stderr)
        if jax.process_index() == 0:
            replace(workdir / "config.json", config_lib.as_json(config))
        outcome = train(run, workdir)

        def on_test(eval_step, params):
            return evaluate(eval_step, params, run, run.dataset.test)

        zero_shot = None
        if run.model.clip.config.has_text:
            zero_shot = on_test(make_eval_step(run.zero_shot_model), {})
        last = on_test(outcome.eval_step, outcome.params) if params else zero_shot
        best = None
        if run.dataset.val is not None:
            same = not params or outcome.best.step == run.steps
            best = last if same else on_test(outcome.eval_step, outcome.best.params)
    result = {
        "name": config.name,
        "method": config.method.name,
        "dataset": run.dataset.name,
        "dataset_fingerprint": run.dataset.fingerprint,
        "skipped_images": list(run.dataset.skipped),
        "protocol": config.protocol,
        "seed": config.seed,
        "classes": len(run.dataset.class_names),
        "class_names": list(run.dataset.class_names),
        "templates": list(data.templates(config, run.dataset)),
        "clip": dataclasses.asdict(run.model.clip.config),
        "split_sizes": {
            name: 0 if split is None else len(split)
            for name, split in (
                ("train", run.dataset.train),
                ("val", run.dataset.val),
                ("test", run.dataset.test),
            )
        },
        "test_accuracy": last["accuracy"],
        "test_accuracy_best_val": None if best is None else best["accuracy"],
        "val_accuracy_best": outcome.best.accuracy if best is not None and params else None,
        "zero_shot_accuracy": None if zero_shot is None else zero_shot["accuracy"],
        "regions_on": last.get("regions_on"),
        "trainable_parameters": sum(by_part.values()),
        "trainable_parameters_by_part": by_part,
        **build.describe(run.model),
        "steps": run.steps,
        "seconds": round(outcome.earlier_seconds + time.time() - started, 2),
        "seconds_to_first_step": outcome.clock.first_step,
        "images_per_second": outcome.clock.images_per_second,
        "input_wait": outcome.clock.share_waited,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in ("jax", "flax", "optax", "vprompt_jax")},
        },
    }
    cache.remove(workdir)
    text = json.dumps(result, indent=2) + "\n"
    if jax.process_index() == 0:
        replace(workdir / "result.json", text)
    return json.loads(text)


def load_run(workdir: Path, *, with_data: bool = True, best: bool = False) -> tuple[Run, Any]:
    """Rebuilds a finished run: its parts and its parameters.

    Args:
      workdir: of the run.
      with_data: whether its dataset is loaded, too; the model alone does not need it.
      best: the parameters best on val, in place of the last step's.

    Raises:
      UserError: if the run has not finished, or has no validation split to be best on.
    """
    result = read_result(workdir)
    if result is None:
        raise UserError(f"{workdir} holds no finished run (no result.json)")
    if best and result["test_accuracy_best_val"] is None:
        raise UserError(f"{workdir}: nothing was selected on val under protocol=paper")
    config = ml_collections.ConfigDict(json.loads((workdir / "config.json").read_text()))
    if with_data:
        run = assemble(config)
    else:
        run = assemble_for_inference(
            config, result["class_names"], result["templates"], result["steps"]
        )
    if run.steps == 0:
        return run, run.initial_params()
    checkpoints = Checkpoints(workdir / "checkpoints", run.identity)
    if checkpoints.latest() is None:
        raise UserError(f"{workdir} has no checkpoint of what was trained: run it again")
    at = restore(run, checkpoints)
    checkpoints.close()
    return run, at.best.params if best else at.state.params


def _contents(workdir: Path) -> list[str]:
    """What decides where a run goes on from."""
    saves = sorted(p.name for p in (workdir / "checkpoints").glob("*"))
    return [name for name in ("config.json", "result.json") if (workdir / name).exists()] + saves


def _prepare(config, workdir: Path) -> dict[str, Any] | None:
    """Makes the workdir, or checks that it is this config's; returns a finished run's result."""
    path = workdir / "config.json"
    try:
        if path.is_file():
            changed = config_lib.difference(
                json.loads(path.read_text()), json.loads(config_lib.as_json(config))
            )
            if changed:
                listed = "\n  ".join(changed)
                raise UserError(
                    f"{workdir} belongs to a run with another config:\n  {listed}\n"
                    "choose another --workdir, or undo the change to go on with that run"
                )
            return read_result(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(workdir).free
        if free < _SPACE_NEEDED:
            raise UserError(
                f"only {free >> 20} MiB free at {workdir}: make room, or move --workdir"
            )
    except (OSError, ValueError) as error:
        raise UserError(f"cannot use the workdir {workdir}: {error}") from error
    return None

"""`result.json`: what a finished run was and how good it is."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vprompt_jax.config.config import flat
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.methods.table import combination
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.files import read_json
from vprompt_jax.train.final import Final
from vprompt_jax.train.loop import Outcome
from vprompt_jax.train.training import Training, trained_counts

# What makes a finished run's command go on from its newest save, or start over without one.
AGAIN = "delete {0}/result.json and give the run's command again"
# What summaries and reports need, and what loading a run needs as well.
_NEEDED = ("steps", "test_accuracy", "seed", "method", "dataset")
TO_LOAD = ("class_names", "templates", *_NEEDED)


def read(workdir: Path, needed: Sequence[str] = _NEEDED) -> dict[str, Any] | None:
    """The result of a finished run, or None.

    Args:
      workdir: of the run.
      needed: entries without which the file counts as damaged.

    Raises:
      UserError: if the file is damaged.
    """
    path = workdir / "result.json"
    if not path.is_file():
        return None
    result = read_json(path, AGAIN.format(workdir))
    if missing := [name for name in needed if name not in result]:
        raise UserError(
            f"{path} is damaged, it lacks {', '.join(missing)}: {AGAIN.format(workdir)}"
        )
    return result


def describe(run: Training, outcome: Outcome, found: Final, seconds: float) -> dict[str, Any]:
    """The contents of `result.json`.

    Args:
      run: what was trained.
      outcome: of training.
      found: the last evaluations.
      seconds: that the run took.
    """
    config, dataset = run.config, run.dataset
    counts = trained_counts(outcome.params)
    test, solver = found.predictions["test"], run.solver()
    zero_shot = test.zero_shot
    return {
        "name": config.name,
        "method": config.method.name,
        "combination": combination(flat(config.as_dict())),
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "dataset_contents": dataset.contents,
        **of_splits(dataset),
        "config_hash": config.fingerprint,
        "weights_hash": run.adaptation.weights_hash,
        "skipped_images": list(dataset.skipped),
        "protocol": config.protocol,
        "seed": config.seed,
        "classes": len(dataset.class_names),
        "class_names": list(dataset.class_names),
        "templates": list(run.adaptation.texts),
        "clip": dataclasses.asdict(run.adaptation.model.clip.config),
        "split_sizes": {
            name: 0 if split is None else len(split)
            for name, split in (
                ("train", dataset.train),
                ("val", dataset.val),
                ("test", dataset.test),
            )
        },
        "test_accuracy": found.metrics["accuracy"],
        "test_accuracy_best_val": found.best_accuracy,
        "val_accuracy_best": outcome.best.accuracy if outcome.best.accuracy >= 0 else None,
        "zero_shot_accuracy": None if zero_shot is None else _accuracy(zero_shot, test.labels),
        "temperature": found.temperature,
        "test": found.measures("test"),
        "val": found.measures("val"),
        "controls": found.controls,
        "regions_on": found.metrics.get("regions_on"),
        "trainable_parameters": sum(counts.values()),
        "trainable_parameters_by_part": counts,
        **run.adaptation.facts,
        **(solver[1].facts(dataset.train.labels, outcome.assigned) if solver else {}),
        "steps": run.steps,
        "last_step": outcome.step,
        "warmup_steps": run.warmup,
        "seconds": round(seconds, 2),
        "seconds_to_first_step": outcome.clock.first_step,
        "images_per_second": outcome.clock.images_per_second,
        "input_wait": outcome.clock.share_waited,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": versions(),
    }


def of_splits(dataset: Dataset) -> dict[str, Any]:
    """Which images a dataset's splits hold, and who dealt them."""
    named = dataset.split_file
    return {
        "split_hashes": {name: split.digest for name, split in dataset.splits() if len(split)},
        "splits_cut": [name for name, _ in dataset.splits() if name in dataset.cut],
        "split_file": None if named is None else {"name": named[0], "sha256": named[1]},
    }


def versions() -> dict[str, str]:
    """Versions of what computes, by name."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "vprompt_jax")
    return {
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(-1) == labels).mean())

"""`result.json`: what a finished run was and how good it is."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from vprompt_jax.config.config import flat
from vprompt_jax.methods.table import combination
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.files import read_json
from vprompt_jax.train.evaluate import Evaluation
from vprompt_jax.train.loop import Outcome
from vprompt_jax.train.training import Training, trained_counts

# What makes a finished run's command go on from its newest save, or start over without one.
AGAIN = "delete {0}/result.json and give the run's command again"
# What summaries and reports need, and what loading a run needs as well.
_NEEDED = ("steps", "test_accuracy", "seed", "method", "dataset")
TO_LOAD = ("class_names", "templates", *_NEEDED)


_MOST_CONFUSED = 100  # classes, up to which the confusion matrix is kept


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


def describe(
    run: Training,
    outcome: Outcome,
    *,
    last: Evaluation,
    best: Evaluation | None,
    zero_shot: Evaluation | None,
    seconds: float,
) -> dict[str, Any]:
    """The contents of `result.json`.

    Args:
      run: what was trained.
      outcome: of training.
      last: of the last step on test.
      best: of what was best on val, on test; None without val.
      zero_shot: of the unadapted CLIP on test; None without a text tower.
      seconds: that the run took.
    """
    config, dataset = run.config, run.dataset
    counts = trained_counts(outcome.params)
    return {
        "name": config.name,
        "method": config.method.name,
        "combination": combination(flat(config.as_dict())),
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "dataset_contents": dataset.contents,
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
        "test_accuracy": last.metrics["accuracy"],
        "test_accuracy_best_val": None if best is None else best.metrics["accuracy"],
        "val_accuracy_best": outcome.best.accuracy if best is not None and run.steps else None,
        "zero_shot_accuracy": None if zero_shot is None else zero_shot.metrics["accuracy"],
        "by_class": _by_class(dataset.class_names, last, zero_shot),
        "confusion": last.confusion.tolist() if len(last.confusion) <= _MOST_CONFUSED else None,
        "regions_on": last.metrics.get("regions_on"),
        "trainable_parameters": sum(counts.values()),
        "trainable_parameters_by_part": counts,
        **run.adaptation.facts,
        "steps": run.steps,
        "warmup_steps": run.warmup,
        "seconds": round(seconds, 2),
        "seconds_to_first_step": outcome.clock.first_step,
        "images_per_second": outcome.clock.images_per_second,
        "input_wait": outcome.clock.share_waited,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in ("jax", "flax", "optax", "vprompt_jax")},
        },
    }


def _by_class(
    names: Sequence[str], last: Evaluation, zero_shot: Evaluation | None
) -> list[dict[str, Any]]:
    """A row per class: its images in test, and the share recognised, adapted and zero-shot.

    Shares are None for a class without images.
    """

    def shares(evaluation: Evaluation | None) -> list[float | None]:
        if evaluation is None:
            return [None] * len(names)
        counts = evaluation.confusion.sum(1)
        hits = evaluation.confusion.diagonal()
        return [float(h / n) if n else None for h, n in zip(hits, counts, strict=True)]

    counts = last.confusion.sum(1).tolist()
    rows = zip(names, counts, shares(last), shares(zero_shot), strict=True)
    return [
        {"class": name, "images": count, "accuracy": accuracy, "zero_shot_accuracy": before}
        for name, count, accuracy, before in rows
    ]

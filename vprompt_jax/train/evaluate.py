"""Evaluation over a whole split, each example counted once."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vprompt_jax.data import pipeline
from vprompt_jax.data.dataset import Split
from vprompt_jax.process import parallel
from vprompt_jax.process.finite import NotFinite

Batch = dict[str, jax.Array]
Step = Callable[[Batch], Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one pass over a split gave.

    Attributes:
      metrics: accuracy, loss, and what the parts measure: means over the examples.
      logits: float32 [n, C], in the split's order.
    """

    metrics: dict[str, float]
    logits: np.ndarray


def mean(sums: Mapping[str, Any]) -> dict[str, float]:
    """(sum, count) -> means, as Python numbers; not a number where nothing was counted."""
    sums = jax.device_get(sums)
    count = float(sums["count"]) or math.nan
    return {name: float(total) / count for name, total in sums.items() if name != "count"}


def placed_batches(split: Split, batch_size: int, workers: int) -> Iterator[Batch]:
    """One pass over a split, each example once, in batches on the devices."""
    batches = pipeline.eval_batches(split, batch_size=batch_size, workers=workers)
    return map(parallel.to_devices, batches)


def evaluate(step: Step, batches: Iterable[Batch]) -> Evaluation:
    """Measures a split: `evaluate_all` with one step."""
    return evaluate_all([step], batches)[0]


def evaluate_all(steps: Sequence[Step], batches: Iterable[Batch]) -> list[Evaluation]:
    """Measures a split with several models, or several parameters, in one pass.

    Args:
      steps: each a batch -> sums, logits and indices; `step.make_eval_step` with all but the batch
        given.
      batches: of one pass over the split. Each is decoded and sent to the devices once.

    Returns:
      What each step gave, in their order.

    Raises:
      NotFinite: if an example's logits, or the loss, are not finite: an accuracy of such logits is
        none.
    """
    totals: list[Any] = [None] * len(steps)
    rows: list[list[Any]] = [[] for _ in steps]
    for batch in batches:
        for i, step in enumerate(steps):
            sums, *of_batch = step(batch)
            totals[i] = sums if totals[i] is None else parallel.added(totals[i], sums)
            rows[i].append(of_batch)
    return [_evaluation(mean(total), of_step) for total, of_step in zip(totals, rows, strict=True)]


def _evaluation(values: dict[str, float], rows: list[list[jax.Array]]) -> Evaluation:
    """From a split's means, and each batch's logits and indices."""
    parts = [[np.asarray(array) for array in arrays] for arrays in zip(*rows, strict=True)]
    logits, index = map(np.concatenate, parts)
    # By index: several devices' padding may lie between.
    logits = logits[np.argsort(index, kind="stable")[(index < 0).sum() :]]
    # The loss alone would not show it: softmax gives a class of minus infinity no weight.
    if bad := int((~np.isfinite(logits)).any(-1).sum()):
        raise NotFinite(f"the logits of {bad:,} of {len(logits):,} images are not finite")
    if not math.isfinite(values.get("loss", 0.0)):
        raise NotFinite("the loss is not finite")
    return Evaluation(values, logits)

"""Evaluation over a whole split, each example counted once."""

from collections.abc import Callable
from typing import Any

import jax

from vprompt_jax.data import pipeline
from vprompt_jax.data.dataset import Split


def mean(sums: dict[str, Any]) -> dict[str, float]:
    """(sum, count) -> means, as Python numbers."""
    sums = jax.device_get(sums)
    count = max(float(sums["count"]), 1.0)
    return {name: float(total) / count for name, total in sums.items() if name != "count"}


def evaluate(
    eval_step: Callable, params, frozen, split: Split, *, batch_size: int, workers: int
) -> dict[str, float]:
    """Metrics over a split: accuracy and loss, and the share of regions on where there is a mask.

    Args:
      eval_step: of `step.make_eval_step`.
      params: trained parameters.
      frozen: the frozen variables, replicated.
      split: what to evaluate on.
      batch_size: over all devices; bounded by the split's size.
      workers: threads that read ahead.
    """
    total = None
    for batch in pipeline.eval_batches(split, batch_size=batch_size, workers=workers):
        sums = eval_step(params, frozen, pipeline.to_devices(batch))
        total = sums if total is None else jax.tree.map(lambda a, b: a + b, total, sums)
    return mean(total)

"""Evaluation over a whole split, each example counted once."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

from vprompt_jax.data import pipeline
from vprompt_jax.data.dataset import Split
from vprompt_jax.train.assemble import Run


def mean(sums: dict[str, Any]) -> dict[str, float]:
    """(sum, count) -> means, as Python numbers; not a number where nothing was counted."""
    sums = jax.device_get(sums)
    count = float(sums["count"]) or math.nan
    return {name: float(total) / count for name, total in sums.items() if name != "count"}


def placed_batches(run: Run, split: Split) -> Iterator[dict[str, jax.Array]]:
    """One pass over a split, each example once, in batches on the devices."""
    config = run.config
    batches = pipeline.eval_batches(
        split, batch_size=config.eval.batch_size, workers=config.data.workers
    )
    return map(pipeline.to_devices, batches)


def evaluate(eval_step: Callable, params, run: Run, split: Split) -> dict[str, float]:
    """Metrics over a split: accuracy and loss, and the share of regions on where there is a mask.

    Args:
      eval_step: of `step.make_eval_step`.
      params: trained parameters.
      run: of the parameters; gives frozen weights, root key and batch size.
      split: what to evaluate on.
    """
    total = None
    for batch in placed_batches(run, split):
        sums = eval_step(params, run.frozen, run.root, batch)
        total = sums if total is None else jax.tree.map(lambda a, b: a + b, total, sums)
    return mean(total)

"""Assigns what a part assigns from a split's images, before a step that it names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vprompt_jax.adaptation.model import AdaptedCLIP
from vprompt_jax.parts import Assignment, SelectedWeights
from vprompt_jax.process import parallel
from vprompt_jax.process.parallel import AXIS, on_all_devices
from vprompt_jax.train.evaluate import Batch
from vprompt_jax.train.step import make_inference


def make_count_step(
    model: AdaptedCLIP,
    weights: Mapping[str, SelectedWeights],
    assignment: Assignment,
    values: Mapping[str, float],
) -> Callable[..., jax.Array]:
    """(params, assigned, frozen, root, batch) -> the assignment's counts over the batch.

    `values` are one of `assignment.contexts`.
    """
    infer = make_inference(model, weights, values)

    def step(params: Any, assigned: Any, frozen: Any, root: jax.Array, batch: Batch) -> jax.Array:
        logits, out = infer(params, assigned, frozen, root, batch)
        return jax.lax.psum(assignment.counts(logits, out, batch), AXIS)

    return on_all_devices(step, arguments=5)


def assigned(
    assignment: Assignment,
    counters: Sequence[Callable[[Batch], jax.Array]],
    batches: Callable[[], Iterable[Batch]],
) -> dict[str, Any]:
    """The arrays that the images now ask for, on every device.

    Args:
      assignment: the part's.
      counters: a batch -> counts, for each of `assignment.contexts`; `make_count_step` with all but
        the batch given.
      batches: starts a pass over the assignment's split.
    """
    totals = []
    for count in counters:
        total: Any = 0.0
        for batch in batches():
            total = total + np.asarray(count(batch), np.float64)
        totals.append(total)
    return jax.device_put(assignment.assigned(*totals), parallel.replicated())

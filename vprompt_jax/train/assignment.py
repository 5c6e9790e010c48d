"""Assigns what a part assigns from a split's images, before a step that it names."""

from collections.abc import Callable, Iterable, Mapping
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
    model: AdaptedCLIP, weights: Mapping[str, SelectedWeights], assignment: Assignment
) -> Callable[..., jax.Array]:
    """(params, assigned, frozen, root, batch) -> the assignment's counts over the batch."""
    contexts = [make_inference(model, weights, values) for values in assignment.contexts]

    def step(params: Any, assigned: Any, frozen: Any, root: jax.Array, batch: Batch) -> jax.Array:
        seen = [infer(params, assigned, frozen, root, batch) for infer in contexts]
        return jax.lax.psum(assignment.counts(seen, batch), AXIS)

    return on_all_devices(step, arguments=5)


def assigned(
    assignment: Assignment, count: Callable[[Batch], jax.Array], batches: Iterable[Batch]
) -> dict[str, Any]:
    """The arrays that the images now ask for, on every device.

    Args:
      assignment: the part's.
      count: a batch -> counts; `make_count_step` with all but the batch given.
      batches: a pass over the assignment's split.
    """
    total: Any = 0.0
    for batch in batches:
        total = total + np.asarray(count(batch), np.float64)
    return jax.device_put(assignment.assigned(total), parallel.replicated())

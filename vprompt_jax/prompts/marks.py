"""Marks of regions: drawn by Gumbel-Softmax in training, chosen by argmax at inference."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def temperature_at(epoch: jax.Array, initial: float, decay: float, minimum: float) -> jax.Array:
    """Gumbel temperature initial * decay^epoch, never below `minimum`.

    The paper has no minimum. Over 1000 epochs its temperature falls to 8e-9. The gradient of the
    marks vanishes then, except at near ties, where it grows with 1/tau = 1e8. With `minimum` 0 the
    temperature stops at 1e-30, so that float32 can still divide by it.
    """
    return jnp.maximum(initial * decay ** epoch.astype(jnp.float32), max(minimum, 1e-30))


def sampled_marks(logits: jax.Array, noise: jax.Array, temperature: jax.Array) -> jax.Array:
    """Straight-through Gumbel-Softmax: hard marks forward, the relaxation's gradient backward.

    Args:
      logits: [..., 2], (off, on).
      noise: Gumbel noise of the same shape, used for the mark and for the gradient.
      temperature: scalar tau of the relaxation.

    Returns:
      float32 [...], exactly 0 or 1.
    """
    scores = jax.nn.log_softmax(logits) + noise
    hard = (scores[..., 1] > scores[..., 0]).astype(jnp.float32)
    soft = jax.nn.softmax(scores / temperature)[..., 1]
    # soft - stop_gradient(soft) is exactly 0, so the sum is exactly hard.
    return hard + (soft - jax.lax.stop_gradient(soft))


def best_marks(logits: jax.Array) -> jax.Array:
    """The marks at inference: argmax without noise. [..., 2] -> float32 [...]."""
    return (logits[..., 1] > logits[..., 0]).astype(jnp.float32)


def dilate(marks: jax.Array, region: int) -> jax.Array:
    """Repeats marks [B, g, g] over the pixels of their regions: [B, g * region, g * region, 1]."""
    return jnp.repeat(jnp.repeat(marks, region, axis=1), region, axis=2)[..., None]


def regions_with(support: jax.Array | np.ndarray, region: int) -> jax.Array | np.ndarray:
    """Tells which regions hold a parameter of the template: bool [n, R, R] -> bool [n, g, g].

    Marks in other regions change nothing, so shares and pictures leave them out. NumPy's array
    gives one of NumPy's.
    """
    n, side, _ = support.shape
    grid = side // region
    cells: Any = support.reshape(n, grid, region, grid, region)
    regions: jax.Array | np.ndarray = cells.any(axis=(2, 4))
    return regions

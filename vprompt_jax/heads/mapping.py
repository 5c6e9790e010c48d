"""Label mapping for towers with a classifier of their own (ILM, arXiv 2211.11635)."""

import jax
import jax.numpy as jnp
import numpy as np

KINDS = ("random", "frequency", "iterative")


def mapped_logits(source_logits: jax.Array, label_map: jax.Array) -> jax.Array:
    """The logits of the source classes that stand for the target's.

    Args:
      source_logits: [B, K].
      label_map: int32 [C], a source class for each target class.

    Returns:
      float32 [B, C].
    """
    return source_logits[:, label_map].astype(jnp.float32)


def random_map(seed: int, classes: int, source_classes: int) -> np.ndarray:
    """A different source class, drawn at random, for each target class: int32 [C]."""
    drawn = np.random.default_rng(seed).permutation(source_classes)[:classes]
    return drawn.astype(np.int32)


def frequency_map(counts: np.ndarray) -> np.ndarray:
    """Gives each target class the source class it is most often taken for (ILM, section 3).

    Greedy and one to one: the largest count decides first; of equal ones the first in row order.

    Args:
      counts: [C, K], how many examples of target class c are classified as source class k.

    Returns:
      int32 [C].
    """
    counts = counts.astype(np.float64).copy()
    chosen = np.zeros(len(counts), np.int32)
    for _ in range(len(counts)):
        target, source = np.unravel_index(np.argmax(counts), counts.shape)
        chosen[target] = source
        counts[target, :] = counts[:, source] = -1.0
    return chosen

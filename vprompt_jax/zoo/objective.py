"""What the mini CLIPs minimise: images find their class, and texts go where their classes are.

All features are of unit length.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vprompt_jax.zoo.captions import Captions

# How far a word that borrows its classes stands beside them, in a direction of its own. Without it,
# two words that borrow from the same noun would have one embedding.
_BESIDE = 0.5


def of_images(
    features: jax.Array, labels: jax.Array, classes: jax.Array, scale: jax.Array, smoothing: float
) -> jax.Array:
    """Mean cross-entropy of images [B, E] among the vectors [C, E] of all classes.

    Args:
      features: of the images.
      labels: their classes, int32 [B].
      classes: a vector per class.
      scale: what cosines are multiplied by.
      smoothing: share of the targets that is spread over all classes.
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, len(classes)), smoothing)
    return optax.softmax_cross_entropy(scale * features @ classes.T, targets).mean()


def word_targets(texts: Captions, classes: np.ndarray, seed: int) -> np.ndarray:
    """Where the words belong: at the mean of their classes' vectors.

    Args:
      texts: the words and what they mean.
      classes: a unit vector per class [C, E].
      seed: of the directions of words that borrow their classes.

    Returns:
      Unit vectors float32 [W, E].
    """
    drawn = np.random.default_rng(seed).normal(size=(len(texts.words), classes.shape[1]))
    means = _unit(texts.meanings.astype(np.float32) @ classes)
    aside = _BESIDE * texts.borrowed[:, None] * _unit(drawn)
    return _unit(means + aside).astype(np.float32)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def of_texts(features: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean of 1 - cosine between texts [n, E] and where they belong [n, E]."""
    return 1 - jnp.sum(features * targets, axis=-1).mean()

"""What the mini CLIPs minimise: images find their class, and texts find the classes they mean.

All features are of unit length, and `scale` multiplies cosines.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


def of_images(
    features: jax.Array, labels: jax.Array, classes: jax.Array, scale: jax.Array, smoothing: float
) -> jax.Array:
    """Mean cross-entropy of images [B, E] among the vectors [C, E] of all classes.

    Args:
      features: of the images.
      labels: their classes, int32 [B].
      classes: a vector per class.
      scale: see above.
      smoothing: share of the targets that is spread over all classes.
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, len(classes)), smoothing)
    return optax.softmax_cross_entropy(scale * features @ classes.T, targets).mean()


class Texts(NamedTuple):
    """Features of captions, and what they mean.

    Attributes:
      captions: of every class in turn [C, E].
      words: of some words [W, E].
      again: the same words in other templates [W, E].
      meanings: whether a word is true of a class, bool [W, C].
    """

    captions: jax.Array
    words: jax.Array
    again: jax.Array
    meanings: jax.Array


def of_texts(texts: Texts, classes: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropies of captions and of words.

    Returns:
      That of every class's caption among the vectors [C, E] of all classes; and that of words among
      the classes and the words. Half of a word is due to its other caption, so that words remain
      distinct, and half to the classes that it is true of. This gives a meaning to words of which
      there is no image.
    """
    own = jnp.arange(len(classes))
    captions = optax.softmax_cross_entropy_with_integer_labels(
        scale * texts.captions @ classes.T, own
    )
    true = texts.meanings.astype(jnp.float32)
    targets = [true / true.sum(1, keepdims=True), jnp.eye(len(texts.words))]
    words = optax.softmax_cross_entropy(
        scale * texts.words @ jnp.concatenate([classes, texts.again]).T,
        jnp.concatenate(targets, axis=1) / 2,
    )
    return captions.mean(), words.mean()

"""What the mini CLIPs minimise: images find their captions, and captions find what they mean."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Batch(NamedTuple):
    """Unit features of a batch, and what belongs together.

    Attributes:
      images: [B, E].
      labels: classes of the images, int32 [B].
      classes: a caption of every class [C, E].
      words: a caption of every drawn word [W, E].
      again: the same words in other templates [W, E].
      meanings: whether a word is true of a class, bool [W, C].
    """

    images: jax.Array
    labels: jax.Array
    classes: jax.Array
    words: jax.Array
    again: jax.Array
    meanings: jax.Array


def losses(batch: Batch, scale: jax.Array, smoothing: float) -> dict[str, jax.Array]:
    """Three cross-entropies, each a mean over its rows.

    Args:
      batch: the unit features.
      scale: what cosines are multiplied by.
      smoothing: share of the images' targets that is spread over all classes.

    Returns:
      "captions": of an image among the captions of all classes.
      "images": of a word among the images; all that it is true of are equally right. With
        "captions" these are CLIP's two directions (arXiv 2103.00020, figure 3), with every true
        pair counted as one (arXiv 2204.03610, equation 2).
      "words": of a word among the classes and the words; one half is due to its other caption, so
        that words remain distinct, the other half to the classes that it is true of. This teaches
        the text tower the words of which there is no image.
    """
    classes, labels = batch.classes, batch.labels
    targets = optax.smooth_labels(jax.nn.one_hot(labels, len(classes)), smoothing)
    captions = optax.softmax_cross_entropy(scale * batch.images @ classes.T, targets)

    true = batch.meanings.astype(jnp.float32)
    shown = true[:, labels]
    matches = shown.sum(1)
    rows = optax.softmax_cross_entropy(
        scale * batch.words @ batch.images.T, shown / jnp.maximum(matches, 1)[:, None]
    )
    seen = (matches > 0).astype(jnp.float32)

    meant = true / true.sum(1, keepdims=True)
    candidates = jnp.concatenate([classes, batch.again])
    targets = jnp.concatenate([meant, jnp.eye(len(batch.words))], axis=1) / 2
    words = optax.softmax_cross_entropy(scale * batch.words @ candidates.T, targets)
    return {
        "captions": captions.mean(),
        "images": (rows * seen).sum() / jnp.maximum(seen.sum(), 1),
        "words": words.mean(),
    }

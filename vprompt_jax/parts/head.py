"""The features' side: the head, which turns image features into class logits."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import optax


@dataclasses.dataclass(frozen=True)
class HeadInputs:
    """What a head may use beside the features; functions, so that only what it uses is computed.

    Attributes:
      texts: () -> the classes' text embeddings, float32 of unit length: [C, E], or [B, C, E] where
        each image has texts of its own.
      logit_scale: () -> CLIP's learned logarithm of the logits' scale, a float32 scalar.
      logit_bias: () -> the learned bias of the logits, a float32 scalar, of a CLIP that has one.
      source_logits: features [B, E] -> logits [B, K] of the checkpoint's own classifier; without
        one, of all class texts by themselves, K = T C, those of the first template first.
      assigned: the arrays that parts assign (`Part.assignment`) or solvers find (`Part.arrays`), by
        name.
    """

    texts: Callable[[], jax.Array]
    logit_scale: Callable[[], jax.Array]
    logit_bias: Callable[[], jax.Array]
    source_logits: Callable[[jax.Array], jax.Array]
    assigned: Mapping[str, jax.Array]


class Head(nn.Module):
    """Turns image features into class logits."""

    def create(self, embed_dim: int) -> None:
        """Creates the parameters, if any, for features of `embed_dim` channels."""

    def __call__(
        self, features: jax.Array, given: HeadInputs
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features [B, E] -> float32 logits [B, C], and any other outputs by name."""
        raise NotImplementedError

    @staticmethod
    def losses(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
        """The loss of each example, float32 [B]: the cross-entropy of the softmax.

        Args:
          logits: float32 [B, C].
          labels: int32 [B].
          smoothing: share of a label that is spread over all classes.
        """
        if not smoothing:
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return optax.softmax_cross_entropy(logits, smoothed(labels, logits.shape[-1], smoothing))


def smoothed(labels: jax.Array, classes: int, share: float) -> jax.Array:
    """int32 [B] -> float32 [B, C]: one at the label, less the share that is spread evenly."""
    return optax.smooth_labels(jax.nn.one_hot(labels, classes), share)

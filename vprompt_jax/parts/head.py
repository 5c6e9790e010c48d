"""The features' side: the head, which turns image features into class logits."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax


@dataclasses.dataclass(frozen=True)
class HeadInputs:
    """What a head may use beside the features; functions, so that only what it uses is computed.

    Attributes:
      texts: () -> the classes' text embeddings, float32 of unit length: [C, E], or [B, C, E] where
        each image has texts of its own.
      logit_scale: () -> CLIP's learned logarithm of the logits' scale, a float32 scalar.
      source_logits: features [B, E] -> logits [B, K] of the checkpoint's own classifier; without
        one, of all class texts by themselves, K = T C, those of the first template first.
      assigned: the arrays that parts assign (`Part.assignment`) or solvers find (`Part.arrays`), by
        name.
    """

    texts: Callable[[], jax.Array]
    logit_scale: Callable[[], jax.Array]
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

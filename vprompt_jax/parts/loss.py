"""The loss's side: penalties that the training loss has beside the cross-entropy."""

import dataclasses

import flax.linen as nn
import jax


@dataclasses.dataclass(frozen=True)
class LossInputs:
    """What a penalty may compare: each of the adapted CLIP and, as `frozen`, of the unadapted one.

    Attributes:
      features: image features [B, E], of any length.
      texts: the classes' text embeddings, float32 [C, E] or [B, C, E] of unit length.
      logits: float32 [B, C].
      logit_scale: CLIP's learned logarithm of the logits' scale, a float32 scalar.
      frozen_features, frozen_texts: as above, of the unadapted CLIP; the texts are [C, E].
    """

    features: jax.Array
    texts: jax.Array
    logits: jax.Array
    logit_scale: jax.Array
    frozen_features: jax.Array
    frozen_texts: jax.Array


class Penalty(nn.Module):
    """Adds to the training loss; evaluation and inference do without it."""

    def __call__(self, given: LossInputs) -> jax.Array:
        """The penalty of each example, float32 [B]."""
        raise NotImplementedError

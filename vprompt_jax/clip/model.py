"""The two towers as one Flax module."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.layers import Tap, no_tap
from vprompt_jax.clip.resnet import ModifiedResNet
from vprompt_jax.clip.text import TextTransformer
from vprompt_jax.clip.variants import CLIPConfig
from vprompt_jax.clip.vision import VisionTransformer


def unit_norm(features: jax.Array) -> jax.Array:
    """Scales each vector of [..., E] to Euclidean length 1; a zero vector stays zero."""
    square = jnp.sum(jnp.square(features.astype(jnp.float32)), axis=-1, keepdims=True)
    return (features * jax.lax.rsqrt(jnp.maximum(square, 1e-24))).astype(features.dtype)


class CLIP(nn.Module):
    """CLIP (arXiv 2103.00020): an image tower and a text tower into one space.

    Attributes:
      config: the architecture.
      dtype: of the computation; parameters keep their own.
      train: whether batch normalisation uses (and updates) the batch's statistics. Only
        pretraining does; everything in this package that adapts a CLIP leaves it False.
    """

    config: CLIPConfig
    dtype: jnp.dtype = jnp.float32
    train: bool = False

    def setup(self):
        if self.config.is_vit:
            self.visual = VisionTransformer(self.config, self.dtype)
        else:
            self.visual = ModifiedResNet(self.config, self.train, self.dtype)
        self.text = TextTransformer(self.config, self.dtype)
        # ln(1/0.07), the paper's initial value of the inverse temperature's logarithm.
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(2.6592), ())

    def encode_image(
        self,
        images: jax.Array,
        *,
        start: int | None = None,
        stop: int | None = None,
        tap: Tap = no_tap,
    ) -> jax.Array:
        """Image features, not of unit length.

        Args:
          images: normalised pixels [B, R, R, 3], or the activation at position `start`.
          start: position to start from: i < L is the input of block i, L the features.
          stop: position whose activation is returned instead of the features.
          tap: called with every position and the activation there; what it returns takes the
            activation's place.

        Returns:
          Features [B, E] in the module's dtype, or the activation at `stop`.
        """
        return self.visual(images, start=start, stop=stop, tap=tap)

    def encode_text(self, tokens: jax.Array) -> jax.Array:
        """Text features [B, E], not of unit length, of token ids int32 [B, T]."""
        return self.text(tokens)

    def __call__(self, images: jax.Array, tokens: jax.Array) -> jax.Array:
        """Logits [images, texts]: exp(logit_scale) times the cosine of every pair."""
        image = unit_norm(self.encode_image(images))
        text = unit_norm(self.encode_text(tokens))
        return jnp.exp(self.logit_scale) * (image @ text.T)

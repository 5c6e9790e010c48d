"""Linear probe: one trained layer on frozen image features."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.model import unit_norm


class LinearHead(nn.Module):
    """Class logits from unit-length image features, started at zero (uniform predictions).

    Unit length is ours: it makes one learning rate fit towers whose features differ in scale.

    Attributes:
      classes: number of classes.
    """

    classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Features [B, E] -> float32 logits [B, classes]."""
        x = unit_norm(features.astype(jnp.float32))
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name="dense")(x)

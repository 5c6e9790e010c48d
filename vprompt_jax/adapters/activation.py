"""Activation prompts (AP, arXiv 2604.06440): one perturbation of an activation for all images."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.sites import Adapter, Site, Where

SHAPES = ("full", "channel")


class ActivationPrompt(Adapter):
    """Adds a learned delta, zero at first, to the activation at each site.

    Attributes:
      shape: "full", a value per position and channel, or "channel", the same at every position. The
        latter at a normalisation's output is exactly tuning its bias.
    """

    shape: str = "full"

    def setup(self):
        self.deltas = {str(site.where): self._delta(site) for site in self.sites}

    def _delta(self, site: Site) -> jax.Array:
        shape = site.outputs if self.shape == "full" else site.outputs[-1:]
        return self.param(f"delta_{site.name}", nn.initializers.zeros, shape, jnp.float32)

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        del x
        # The sum is rounded to the activation's dtype, the delta stays float32.
        return (y + self.deltas[str(where)]).astype(y.dtype)

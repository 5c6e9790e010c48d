"""Scale and shift (SSF, arXiv 2210.08823): a factor and an offset per channel after each layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.sites import Adapter, Site, Where

# Every layer with weights (SSF, figure 2).
VIT_LAYERS = (
    r"conv1|ln_pre|ln_post|resblocks_\d+/(ln_1|ln_2|attn/in_proj|attn/out_proj|mlp/c_fc|mlp/c_proj)"
)
# After a convolution with a frozen normalisation behind it, one pair says all that two could.
RESNET_LAYERS = r"(layer\d+_\d+/)?(bn\d|downsample_bn)"


class ScaleShift(Adapter):
    """y * scale + shift per channel; the scale starts at one, the shift at zero.

    SSF draws both with a deviation of 0.02; starting at the frozen tower is ours.
    """

    def setup(self):
        self.factors = {
            site.where: (
                self._vector(site, "scale", nn.initializers.ones),
                self._vector(site, "shift", nn.initializers.zeros),
            )
            for site in self.sites
        }

    def _vector(self, site: Site, kind: str, init) -> jax.Array:
        return self.param(f"{site.name}_{kind}", init, site.outputs[-1:], jnp.float32)

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        del x
        scale, shift = self.factors[where]
        return (y * scale + shift).astype(y.dtype)

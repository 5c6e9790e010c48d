"""Bottleneck adapters (Houlsby et al., arXiv 1902.00751): small residual networks in the tower."""

import flax.linen as nn
import jax

from vprompt_jax.clip.sites import Adapter, Site, Where

# After attention and after the MLP, inside the residual branch (Houlsby, figure 2); for a ResNet
# its counterpart, the residual branch's end, is ours.
LAYERS = r"resblocks_\d+/(attn|mlp)|layer\d+_\d+/bn3"


class Bottleneck(Adapter):
    """y + up(gelu(down(y))) over the channels; `up` starts at zero: at first the tower is as it
    was. (Houlsby draw it near zero.)

    Attributes:
      width: channels between the two projections.
    """

    width: int = 64

    def setup(self):
        self.projections = {site.where: self._projections(site) for site in self.sites}

    def _projections(self, site: Site) -> tuple[jax.Array, ...]:
        name, channels = site.name, site.outputs[-1]
        zeros, kernel = nn.initializers.zeros, nn.initializers.lecun_normal()
        return (
            self.param(f"{name}_down_kernel", kernel, (channels, self.width)),
            self.param(f"{name}_down_bias", zeros, (self.width,)),
            self.param(f"{name}_up_kernel", zeros, (self.width, channels)),
            self.param(f"{name}_up_bias", zeros, (channels,)),
        )

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        del x
        down, down_bias, up, up_bias = (p.astype(y.dtype) for p in self.projections[where])
        return y + nn.gelu(y @ down + down_bias) @ up + up_bias

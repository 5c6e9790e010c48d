"""Bottleneck adapters (Houlsby et al., arXiv 1902.00751): small residual networks in the tower."""

import dataclasses

import flax.linen as nn
import jax

from vprompt_jax.clip.sites import Site, Where, matching
from vprompt_jax.parts import Adapter, Part, Surroundings
from vprompt_jax.parts.adapter import of_rank
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer

# After attention and after the MLP, inside the residual branch (Houlsby, figure 2). In a ResNet we
# take the counterpart, the end of the residual branch.
LAYERS = r"resblocks_\d+/(attn|mlp)|layer\d+_\d+/bn3"


class Bottleneck(Adapter):
    """Computes y + up(gelu(down(y))) over the channels.

    `up` starts at zero, so that training starts at the frozen tower; Houlsby et al. draw it near
    zero.

    Attributes:
      width: channels between the two projections.
    """

    width: int = 64

    def setup(self) -> None:
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
        hidden = nn.gelu(y @ down + of_rank(down_bias, y.ndim))
        return y + hidden @ up + of_rank(up_bias, y.ndim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BottleneckSection(TrainedSection):
    """Bottleneck adapters."""

    width: int = key(0, "channels between the two projections; 0: none", low=0, high=2**16)
    learning_rate: float = learning_rate(3e-3, "ours, chosen on val: docs/methods.md")
    optimizer: Optimizer = optimizer("adamw", "ours")


class BottleneckPart(Part[BottleneckSection]):
    """Small residual networks at the ends of the tower's residual branches."""

    name = "adapter"
    section = BottleneckSection
    switch = "width"
    side = "tower"
    order = 30

    def build(self, section: BottleneckSection, around: Surroundings) -> Bottleneck:
        return Bottleneck(matching(around.sites, LAYERS), section.width)


PART = BottleneckPart()

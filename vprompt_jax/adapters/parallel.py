"""AdaptFormer (Chen et al., arXiv 2205.13535): a bottleneck beside every MLP of the tower.

The formula and the defaults are those of the authors' code (ShoufaChen/AdaptFormer, the image
configuration), but for its dropout of 0.1 between the projections, which is left out.
"""

import dataclasses

import flax.linen as nn
import jax

from vprompt_jax.clip.sites import MLP_BRANCH, Site, Where, matching
from vprompt_jax.parts import Adapter, Part, Surroundings
from vprompt_jax.parts.adapter import of_rank
from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.parts.part import needs_vit
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer


class ParallelBottleneck(Adapter):
    """Adds s up(relu(down(x))) to a block's second branch mlp(ln_2(x)), x being the branch's input.

    `up` starts at zero, so that training starts at the frozen tower.

    Attributes:
      width: channels between the two projections.
      scale: the factor s.
    """

    width: int = 64
    scale: float = 0.1

    def setup(self) -> None:
        self.projections = {site.where: self._projections(site) for site in self.sites}

    def _projections(self, site: Site) -> tuple[jax.Array, ...]:
        name, channels = site.name, site.inputs[-1]
        zeros = nn.initializers.zeros
        # The kernel as torch initialises Linear layers; the biases are zero.
        kernel = uniform_within(channels**-0.5)
        return (
            self.param(f"{name}_down_kernel", kernel, (channels, self.width)),
            self.param(f"{name}_down_bias", zeros, (self.width,)),
            self.param(f"{name}_up_kernel", zeros, (self.width, channels)),
            self.param(f"{name}_up_bias", zeros, (channels,)),
        )

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        down, down_bias, up, up_bias = (p.astype(y.dtype) for p in self.projections[where])
        hidden = nn.relu(x @ down + of_rank(down_bias, x.ndim))
        return y + (hidden @ up + of_rank(up_bias, y.ndim)) * self.scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptFormerSection(TrainedSection):
    """Bottlenecks beside the MLPs."""

    width: int = key(0, "channels between the two projections; 0: none", low=0, high=2**16)
    scale: float = key(
        0.1, "factor of what is added", low=1e-6, high=1e6, source="AdaptFormer's code"
    )
    learning_rate: float = learning_rate(
        0.1, "AdaptFormer's code: 0.1 for batches of 256, in proportion to their size"
    )
    optimizer: Optimizer = optimizer("sgd", "AdaptFormer's code")


class AdaptFormerPart(Part[AdaptFormerSection]):
    """Bottlenecks in parallel to the MLPs of a ViT."""

    name = "adaptformer"
    section = AdaptFormerSection
    switch = "width"
    side = "tower"
    order = 35

    def build(self, section: AdaptFormerSection, around: Surroundings) -> ParallelBottleneck:
        needs_vit(f"adaptformer.width={section.width}", around)
        layers = matching(around.sites, rf"resblocks_\d+/{MLP_BRANCH}")
        return ParallelBottleneck(layers, section.width, section.scale)


PART = AdaptFormerPart()

"""Scale and shift (SSF, arXiv 2210.08823): a factor and an offset per channel after each layer."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.sites import Site, Where, matching
from vprompt_jax.clip.towers import ViTConfig
from vprompt_jax.parts import Adapter, Part, Surroundings
from vprompt_jax.parts.adapter import Flat, of_rank
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer

# Every layer with weights (SSF, figure 2).
VIT_LAYERS = (
    r"conv1|ln_pre|ln_post|"
    r"resblocks_\d+/(ln_1|ln_2|attn/in_proj|attn/out_proj|mlp/c_fc|mlp/c_gate|mlp/c_proj)"
)
# A frozen normalisation follows each convolution: one pair after it does all that two could.
RESNET_LAYERS = r"(layer\d+_\d+/)?(bn\d|downsample_bn)"


class ScaleShift(Adapter):
    """Computes y * scale + shift per channel.

    The scale starts at one and the shift at zero, so that training starts at the frozen tower; SSF
    draws both with a standard deviation of 0.02 around these.
    """

    def setup(self) -> None:
        self.factors = {
            site.where: (
                self._vector(site, "scale", nn.initializers.ones),
                self._vector(site, "shift", nn.initializers.zeros),
            )
            for site in self.sites
        }

    def _vector(self, site: Site, kind: str, init: Any) -> jax.Array:
        return self.param(f"{site.name}_{kind}", init, site.outputs[-1:], jnp.float32)

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        del x
        scale, shift = self.factors[where]
        return (y * of_rank(scale, y.ndim) + of_rank(shift, y.ndim)).astype(y.dtype)

    def fold(self, site: Site, flat: Flat) -> None:
        scale, shift = self.factors[site.where]
        path = tuple(str(site.where).split("/"))
        weight, bias = (*path, "kernel"), (*path, "bias")
        if weight not in flat:
            weight = (*path, "scale")
        positions = ("positional_embedding",)
        takes_shift = bias in flat and flat[bias].shape == shift.shape
        if not takes_shift and not (site.where == "conv1" and positions in flat):
            raise ValueError(
                f"ScaleShift cannot be folded: {site.where} has no bias that takes the shift"
            )
        flat[weight] = flat[weight] * of_rank(scale, flat[weight].ndim)
        if takes_shift:
            flat[bias] = flat[bias] * scale + shift
        else:  # the patches' convolution has no bias, so their positional embeddings take the shift
            patches = site.outputs[0] * site.outputs[1]  # they come last, after the prefix tokens
            flat[positions] = jnp.asarray(flat[positions]).at[-patches:].add(shift[None])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleShiftSection(TrainedSection):
    """Scale and shift."""

    kind: Literal["none", "all"] = key("none", "all: after every layer with weights")
    learning_rate: float = learning_rate(1e-2, "ours, chosen on val: docs/methods.md")
    optimizer: Optimizer = optimizer("adamw", "ours")


class ScaleShiftPart(Part[ScaleShiftSection]):
    """A factor and an offset per channel after each layer."""

    name = "ssf"
    section = ScaleShiftSection
    switch = "kind"
    side = "tower"
    order = 50

    def build(self, section: ScaleShiftSection, around: Surroundings) -> ScaleShift:
        del section
        is_vit = isinstance(around.clip.config.vision, ViTConfig)
        layers = VIT_LAYERS if is_vit else RESNET_LAYERS
        return ScaleShift(matching(around.sites, layers))


PART = ScaleShiftPart()

"""LoRA (arXiv 2106.09685): low-rank additions to dense layers."""

import dataclasses
from collections.abc import Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.sites import Site, Where, matching
from vprompt_jax.parts import Adapter, Part, Surroundings
from vprompt_jax.parts.adapter import Flat
from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.parts.part import needs_vit
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer

# Dense layers that LoRA can change: the layer's name, which part of its columns, of how many parts.
TARGETS = {
    "q": ("attn/in_proj", 0, 3),
    "k": ("attn/in_proj", 1, 3),
    "v": ("attn/in_proj", 2, 3),
    "out": ("attn/out_proj", 0, 1),
    "fc": ("mlp/c_fc", 0, 1),
    "proj": ("mlp/c_proj", 0, 1),
}


def targets_at(site: Site, targets: Iterable[str]) -> list[str]:
    """Those of the targets that are columns of the layer at a site."""
    return [target for target in targets if str(site.where).endswith(TARGETS[target][0])]


def columns_of(target: str, outputs: int) -> slice:
    """Which columns of its layer, of `outputs` in all, a target is."""
    _, part, parts = TARGETS[target]
    width = outputs // parts
    return slice(part * width, (part + 1) * width)


def chosen_layers(
    part: str, rank: int, targets: tuple[str, ...], around: Surroundings
) -> tuple[Site, ...]:
    """The dense layers of a ViT that hold the targets of a low-rank part.

    Raises:
      ValueError: if the tower is a ResNet, or as `check`.
    """
    check(part, rank, targets, needs_vit(f"{part}.rank={rank}", around).width)
    ends = "|".join(sorted({TARGETS[target][0] for target in targets}))
    return matching(around.sites, rf"resblocks_\d+/({ends})")


def check(part: str, rank: int, targets: tuple[str, ...], width: int) -> None:
    """Refuses a low-rank part that does not fit a tower of a width.

    Raises:
      ValueError: if a target is unknown or there is none, or the rank is over the width.
    """
    if not targets or set(targets) - set(TARGETS):
        raise ValueError(f"{part}.targets={targets}: choose from {', '.join(TARGETS)}")
    if rank > width:
        raise ValueError(f"{part}.rank={rank} is over the tower's width {width}")


class LoRA(Adapter):
    """Adds (alpha / rank) x A B to the outputs of dense layers with inputs x; B starts at zero.

    Attributes:
      rank: number of columns of A and of rows of B.
      alpha: scale; since it is divided by the rank, as published, a new rank needs no new learning
        rate.
      targets: names in `TARGETS`.
    """

    rank: int = 4
    alpha: float = 4.0
    targets: tuple[str, ...] = ("q", "v")

    def setup(self) -> None:
        self.factors = {site.where: self._factors(site) for site in self.sites}

    def _factors(self, site: Site) -> dict[str, tuple[jax.Array, jax.Array]]:
        factors = {}
        for target in targets_at(site, self.targets):
            _, _, parts = TARGETS[target]
            name = f"{str(site.where).split('/')[0]}_{target}"
            inputs, outputs = site.inputs[-1], site.outputs[-1] // parts
            # The reference code initialises A as torch initialises Linear layers.
            a = self.param(f"{name}_a", uniform_within(inputs**-0.5), (inputs, self.rank))
            b = self.param(f"{name}_b", nn.initializers.zeros, (self.rank, outputs))
            factors[target] = (a, b)
        return factors

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        for target, (a, b) in self.factors[where].items():
            added = (x @ a.astype(y.dtype)) @ b.astype(y.dtype) * (self.alpha / self.rank)
            y = y.at[..., columns_of(target, y.shape[-1])].add(added)
        return y

    def merged(self, where: Where, kernel: jax.Array) -> jax.Array:
        """Adds the low-rank product to the kernel [in, out] of the layer at a site."""
        for target, (a, b) in self.factors[where].items():
            added = a @ b * (self.alpha / self.rank)
            kernel = jnp.asarray(kernel).at[:, columns_of(target, kernel.shape[-1])].add(added)
        return kernel

    def fold(self, site: Site, flat: Flat) -> None:
        kernel = (*str(site.where).split("/"), "kernel")
        flat[kernel] = self.merged(site.where, flat[kernel])


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRASection(TrainedSection):
    """Low-rank additions."""

    rank: int = key(0, "columns of the first factor; 0: none", low=0, high=2**16)
    alpha: float = key(
        4.0,
        "the addition is scaled by alpha / rank",
        low=1e-6,
        high=1e30,
        source="LoRA, section 4.2: equal to the rank",
    )
    targets: tuple[str, ...] = key(
        ("q", "v"), "of q, k, v, out, fc, proj", source="LoRA, section 4.2"
    )
    learning_rate: float = learning_rate(1e-2, "ours, chosen on val: docs/methods.md")
    optimizer: Optimizer = optimizer("adamw", "ours")


class LoRAPart(Part[LoRASection]):
    """Low-rank additions to dense layers of a ViT."""

    name = "lora"
    section = LoRASection
    switch = "rank"
    side = "tower"
    order = 40

    def build(self, section: LoRASection, around: Surroundings) -> LoRA:
        sites = chosen_layers("lora", section.rank, section.targets, around)
        return LoRA(sites, section.rank, section.alpha, section.targets)


PART = LoRAPart()

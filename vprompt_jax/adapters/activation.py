"""Activation prompts (AP, arXiv 2604.06440): one learned change of an activation for all images."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.sites import Site, Where
from vprompt_jax.parts import Adapter, Part, Surroundings
from vprompt_jax.parts.adapter import Flat, of_rank
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer


class ActivationPrompt(Adapter):
    """Adds a learned delta, initially zero, to the activation at each site.

    Attributes:
      shape: "full" for a value per position and channel, or "channel" for one value per channel at
        all positions. At a normalisation's output, "channel" is the same as tuning its bias.
      gate: each delta is multiplied by the sigmoid of a learned number that starts here; None for
        no such factor.
    """

    shape: str = "full"
    gate: float | None = None

    def setup(self) -> None:
        self.deltas = {str(site.where): self._delta(site) for site in self.sites}

    def _delta(self, site: Site) -> jax.Array:
        shape = site.outputs if self.shape == "full" else site.outputs[-1:]
        delta = self.param(f"delta_{site.name}", nn.initializers.zeros, shape, jnp.float32)
        if self.gate is None:
            return delta
        start = nn.initializers.constant(self.gate)
        return delta * nn.sigmoid(self.param(f"gate_{site.name}", start, (), jnp.float32))

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        del x
        # The delta stays float32; only the sum is rounded to the activation's dtype.
        return (y + of_rank(self.deltas[str(where)], y.ndim)).astype(y.dtype)

    def fold(self, site: Site, flat: Flat) -> None:
        bias = (*str(site.where).split("/"), "bias")
        if self.shape != "channel" or bias not in flat:
            raise ValueError(
                f"the activation prompt of shape {self.shape!r} at {site.where!r} cannot be "
                "folded: only shape 'channel' at a layer with a bias can"
            )
        flat[bias] = flat[bias] + self.deltas[str(site.where)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActivationSection(TrainedSection):
    """Activation prompts."""

    positions: tuple[int | str, ...] = key(
        (),
        'any of 0..L-1 (input of a block), L (feature vector), "pixels", or a layer whose output '
        'it is added to ("resblocks_3/ln_1", "layer1_0/bn2"); () for none',
        label="AP position",
        axis="position of the activation prompt (block)",
    )
    shape: Literal["full", "channel"] = key(
        "full",
        "a value per position and channel, or the same at every position",
        source="ours",
        label="AP shape",
    )
    gate: float | None = key(
        None,
        "each position's perturbation is multiplied by a learned factor; the logit that it starts "
        "at (none: no factor)",
        low=-30,
        high=30,
        source="ours",
        label="AP gate",
    )
    learning_rate: float = learning_rate(1.0, "ours, chosen on val: docs/methods.md")
    optimizer: Optimizer = optimizer("sgd", "ours")


class ActivationPart(Part[ActivationSection]):
    """Learned changes of activations inside the tower."""

    name = "ap"
    section = ActivationSection
    switch = "positions"
    side = "tower"
    order = 20
    sweepable = "positions"

    def build(self, section: ActivationSection, around: Surroundings) -> ActivationPrompt:
        inside = set(section.positions) != {around.depth}
        if around.token_adder and section.shape == "full" and inside:
            raise ValueError(
                f"{around.token_adder} adds tokens, so ap.shape=full has no fixed shape: set "
                "ap.shape=channel"
            )
        sites = _chosen(section.positions, around)
        return ActivationPrompt(sites, shape=section.shape, gate=section.gate)

    def facts(
        self, section: ActivationSection, built: ActivationPrompt, around: Surroundings
    ) -> dict[str, Any]:
        return {
            "ap_positions": list(section.positions),
            "ap_shape": section.shape,
            "depth": around.depth,
        }


def _chosen(positions: tuple[Where, ...], around: Surroundings) -> tuple[Site, ...]:
    sites = around.sites
    if missing := [p for p in positions if p not in sites]:
        names = [str(where) for where, site in sites.items() if site.is_norm]
        shown = ", ".join(names[:3])
        raise ValueError(
            f"ap.positions={positions}: no {', '.join(map(repr, missing))} in this tower; "
            f'positions are 0..{around.depth}, "pixels", and layers such as {shown}'
        )
    if len(set(positions)) < len(positions):
        raise ValueError(f"ap.positions={positions} names a position twice")
    return tuple(sites[p] for p in positions)


PART = ActivationPart()

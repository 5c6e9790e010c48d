"""GateVPT (Yoo et al., ICML 2023): tokens with a gate per block and a temperature per attention.

The formulas and defaults are those of the authors' code (ryongithub/GatedPromptTuning), but for its
dropout of 0.1 on the tokens, which is left out.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.adapters.tokens import PromptTokens
from vprompt_jax.clip.sites import Where
from vprompt_jax.parts import Part, Surroundings
from vprompt_jax.parts.part import needs_vit
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer

_LIMITS = (0.01, 10.0)  # of the temperatures


class GatedTokens(PromptTokens):
    """Tokens that enter before the first block, and pass each block in part.

    After block i < L - 1 the tokens are g_i out + (1 - g_i) in, with g_i the sigmoid of a learned
    number. Each block's attention logits are divided by a learned temperature, which starts at 1
    and is kept within 0.01..10.

    Attributes:
      start: number whose negative each gate's logit starts at.
    """

    start: float = 5.0

    def setup(self) -> None:
        self.tokens = {site.where: self._tokens(site) for site in self.sites if site.where == 0}
        depth = sum(str(site.where).endswith("in_proj") for site in self.sites)
        gates = nn.initializers.constant(-self.start)
        self.gates = self.param("gate_logits", gates, (depth - 1,), jnp.float32)
        ones = nn.initializers.ones
        self.temperatures = self.param("temperatures", ones, (depth,), jnp.float32)

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        if where == 0:
            return super().__call__(where, x, y)
        block, _, layer = str(where).partition("/")
        i = int(block.removeprefix("resblocks_"))
        if layer:  # the queries come first
            width = y.shape[-1] // 3
            temperature = jnp.clip(self.temperatures[i], *_LIMITS).astype(y.dtype)
            return y.at[..., :width].divide(temperature)
        gate = nn.sigmoid(self.gates[i]).astype(y.dtype)
        own = slice(self.prefix, self.prefix + self.count)
        return y.at[:, own].set(gate * y[:, own] + (1 - gate) * x[:, own])


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatedTokensSection(TrainedSection):
    """Learned tokens with a gate per block."""

    kind: str = key("none", "which tokens are learned, and where they enter")
    tokens: int = key(10, "tokens per block", low=1, high=2**16, source="as VPT's")
    gate: float = key(
        5.0,
        "of gated tokens: minus the logit at which the gates start",
        low=-30,
        high=30,
        source="GateVPT's README",
    )
    learning_rate: float = learning_rate(3e-2, "ours, chosen on val: docs/methods.md")
    optimizer: Optimizer = optimizer("adamw", "ours")


class GatedTokensPart(Part[GatedTokensSection]):
    """Visual prompt tuning whose tokens pass each block in part."""

    name = "vpt"
    section = GatedTokensSection
    switch = "kind"
    kind = "gated"
    side = "tower"
    order = 10
    adds_tokens = True

    def build(self, section: GatedTokensSection, around: Surroundings) -> GatedTokens:
        vision = needs_vit(f"vpt.kind={section.kind}", around)
        blocks = [f"resblocks_{i}" for i in range(around.depth)]
        layers = [*(f"{block}/attn/in_proj" for block in blocks), *blocks[:-1]]
        sites = (around.sites[0], *(around.sites[layer] for layer in layers))
        patch_inputs = 3 * vision.patch_size**2
        return GatedTokens(sites, section.tokens, patch_inputs, vision.prefix, section.gate)


PART = GatedTokensPart()

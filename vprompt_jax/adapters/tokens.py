"""Visual prompt tuning (VPT, arXiv 2203.12119): learned tokens in an image's sequence."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vprompt_jax.clip.sites import Site, Where
from vprompt_jax.parts import Adapter, Part, Surroundings
from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.parts.part import needs_vit
from vprompt_jax.schema import (
    Optimizer,
    Section,
    TrainedSection,
    key,
    learning_rate,
    optimizer,
)


def inserted(x: jax.Array, tokens: jax.Array, prefix: int, *, replace: bool) -> jax.Array:
    """A sequence [B, N, D] with tokens [M, D] behind its first `prefix` ones.

    They are put in, or take the places of the M that stand there.
    """
    new = jnp.broadcast_to(tokens.astype(x.dtype), (x.shape[0], *tokens.shape))
    rest = x[:, prefix + len(tokens) * replace :]
    return jnp.concatenate([x[:, :prefix], new, rest], axis=1)


class PromptTokens(Adapter):
    """Inserts tokens between the tower's own prefix tokens (the class token) and the patches.

    With position 0 as the only site, the tokens enter once and run through all blocks (VPT-shallow,
    eq. 4-6). Every further block whose input is a site gets tokens of its own, which replace what
    the block before has made of its tokens (VPT-deep, eq. 7-8, where all blocks do).

    Attributes:
      count: tokens per site.
      patch_inputs: number of values in a patch, 3 * side^2; as in VPT, tokens start from U(-v, v)
        with v = sqrt(6 / (patch_inputs + width)).
      prefix: number of the tower's own tokens before the patches.
    """

    count: int = 10
    patch_inputs: int = 768
    prefix: int = 1

    def setup(self) -> None:
        self.tokens = {site.where: self._tokens(site) for site in self.sites}

    def _tokens(self, site: Site) -> jax.Array:
        width = site.outputs[-1]
        bound = (6.0 / (self.patch_inputs + width)) ** 0.5
        return self.param(f"tokens_{site.where}", uniform_within(bound), (self.count, width))

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        del x
        return inserted(y, self.tokens[where], self.prefix, replace=where != 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokensSection(TrainedSection):
    """Learned tokens."""

    kind: str = key("none", "which tokens are learned, and where they enter")
    tokens: int = key(
        10,
        "tokens per block",
        low=1,
        high=2**16,
        source="ours; VPT's best count lies between 1 and 200 by dataset (appendix)",
    )
    depth: int | None = key(
        None,
        "blocks, from the first, that have tokens of their own in deep, at most the tower's; none: "
        "all",
        low=1,
        high=2**16,
    )
    learning_rate: float = learning_rate(3e-2, "ours, chosen on val: docs/methods.md")
    optimizer: Optimizer = optimizer("adamw", "ours")


class TokensPart(Part[TokensSection]):
    """Visual prompt tuning, shallow or deep."""

    name = "vpt"
    section = TokensSection
    switch = "kind"
    kind = ("shallow", "deep")
    side = "tower"
    order = 10
    adds_tokens = True

    def check(self, section: TokensSection, sections: Mapping[str, Section]) -> None:
        del sections
        if section.depth is not None and section.kind != "deep":
            raise ValueError(
                f"vpt.depth={section.depth} has no effect with vpt.kind={section.kind}: set "
                "config.vpt.kind=deep"
            )

    def build(self, section: TokensSection, around: Surroundings) -> PromptTokens:
        vision = needs_vit(f"vpt.kind={section.kind}", around)
        depth = min(section.depth or around.depth, around.depth) if section.kind == "deep" else 1
        sites = tuple(around.sites[i] for i in range(depth))
        return PromptTokens(sites, section.tokens, 3 * vision.patch_size**2, vision.prefix)


PART = TokensPart()

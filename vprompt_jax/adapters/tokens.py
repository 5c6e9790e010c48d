"""Visual prompt tuning (VPT, arXiv 2203.12119): learned tokens in an image's sequence."""

import dataclasses

import jax
import jax.numpy as jnp

from vprompt_jax.clip.sites import Site, Where
from vprompt_jax.parts import Adapter, Part, Surroundings
from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.parts.part import needs_vit
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer


class PromptTokens(Adapter):
    """Inserts tokens between the tower's own prefix tokens (the class token) and the patches.

    With position 0 as the only site, the tokens enter once and run through all blocks (VPT-shallow,
    eq. 4-6). With every block's input as a site, each block gets tokens of its own, which replace
    what the block before has made of its tokens (VPT-deep, eq. 7-8).

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
        tokens = self.tokens[where].astype(y.dtype)
        tokens = jnp.broadcast_to(tokens, (y.shape[0], *tokens.shape))
        first = self.prefix
        patches = y[:, first:] if where == 0 else y[:, first + self.count :]
        return jnp.concatenate([y[:, :first], tokens, patches], axis=1)


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

    def build(self, section: TokensSection, around: Surroundings) -> PromptTokens:
        vision = needs_vit(f"vpt.kind={section.kind}", around)
        where = range(around.depth) if section.kind == "deep" else (0,)
        sites = tuple(around.sites[i] for i in where)
        return PromptTokens(sites, section.tokens, 3 * vision.patch_size**2, vision.prefix)


PART = TokensPart()

"""E2VPT (Han et al., arXiv 2307.13770): VPT-deep's tokens, and keys and values without tokens.

The formulas and defaults are those of the authors' code (ChengHan111/E2VPT, `vit_changeVK.py` and
`config.py`), but for what prunes the tokens after training, which is left out.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from vprompt_jax.adapters.tokens import PromptTokens
from vprompt_jax.clip.sites import KEYS_AND_VALUES, Site, Where
from vprompt_jax.parts import Part, Surroundings
from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.parts.part import needs_vit
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer


class KeyValueTokens(PromptTokens):
    """Tokens before every block, and learned keys and values before those of each attention.

    They are vectors of the heads, after the projections, as Kaiming's uniform distribution draws
    them: from U(-v, v) with v = sqrt(6 / (pairs * channels of a head)).

    Attributes:
      pairs: keys, with a value each, per block.
      shared: whether one vector is both a pair's key and its value.
      heads: of the attention.
    """

    pairs: int = 5
    shared: bool = True
    heads: int = 12

    def setup(self) -> None:
        positions = [site for site in self.sites if isinstance(site.where, int)]
        self.tokens = {site.where: self._tokens(site) for site in positions}
        layers = [site for site in self.sites if site not in positions]
        self.vectors = {site.where: self._vectors(site) for site in layers}

    def _vectors(self, site: Site) -> jax.Array:
        width = site.outputs[-1] // 2
        bound = (6.0 / (self.pairs * (width // self.heads))) ** 0.5
        shape = (self.pairs, width if self.shared else 2 * width)
        return self.param(site.name, uniform_within(bound), shape)

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        if isinstance(where, int):
            return super().__call__(where, x, y)
        vectors = self.vectors[where].astype(y.dtype)
        if self.shared:
            vectors = jnp.concatenate([vectors, vectors], axis=-1)
        vectors = jnp.broadcast_to(vectors, (y.shape[0], *vectors.shape))
        return jnp.concatenate([vectors, y], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyValueSection(TrainedSection):
    """Learned tokens, keys and values."""

    kind: str = key("none", "which tokens are learned, and where they enter")
    tokens: int = key(5, "tokens per block", low=1, high=2**16, source="E2VPT's code")
    pairs: int = key(
        5, "of key_value: keys and values per block", low=1, high=2**16, source="E2VPT's code"
    )
    vectors: Literal["shared", "separate"] = key(
        "shared",
        "of key_value: shared if one vector is both a key and its value",
        source="E2VPT's code",
    )
    learning_rate: float = learning_rate(3e-2, "as VPT's")
    optimizer: Optimizer = optimizer("adamw", "as VPT's")


class KeyValuePart(Part[KeyValueSection]):
    """Visual prompt tuning with keys and values of its own."""

    name = "vpt"
    section = KeyValueSection
    switch = "kind"
    kind = "key_value"
    side = "tower"
    order = 10
    adds_tokens = True

    def build(self, section: KeyValueSection, around: Surroundings) -> KeyValueTokens:
        vision = needs_vit(f"vpt.kind={section.kind}", around)
        blocks = range(around.depth)
        attentions = [f"resblocks_{i}/attn/{KEYS_AND_VALUES}" for i in blocks]
        return KeyValueTokens(
            tuple(around.sites[where] for where in (*blocks, *attentions)),
            section.tokens,
            3 * vision.patch_size**2,
            vision.prefix,
            section.pairs,
            section.vectors == "shared",
            vision.heads,
        )


PART = KeyValuePart()

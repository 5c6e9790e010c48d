"""MaPLe (Khattak et al., arXiv 2210.03117): context of the class texts that is also the image's.

The formulas and defaults are those of the authors' code (muzairkhattak/multimodal-prompt-learning,
`trainers/maple.py`, `clip/model.py` and its config), with two differences. The image tower's first
tokens enter behind `ln_pre`, as VPT's do here, not in front of it. And tokens stand before the
patches, which makes no difference to attention.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from vprompt_jax.adapters.tokens import inserted
from vprompt_jax.clip.sites import Where
from vprompt_jax.parts import Adapter, Part, Surroundings, TextPart
from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.parts.part import needs_text, needs_vit
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer
from vprompt_jax.texts.context import LearnedContext, learned_context

_CODE = "MaPLe's code"


class CoupledTokens(Adapter, TextPart):
    """Learned context in the text tower, and its projections as tokens of the image tower.

    The tokens of image block i < J are P_i W_i + b_i, with P_i the context's vectors in text block
    i. As torch's Linear, W and b start from U(-1/sqrt(D), 1/sqrt(D)).

    Attributes:
      context: the context of the class texts.
      prefix: number of the image tower's own tokens before the patches.
    """

    context: LearnedContext
    prefix: int

    def setup(self) -> None:
        self.projections = [
            self._projection(i, site.outputs[-1]) for i, site in enumerate(self.sites)
        ]

    def _projection(self, i: int, width: int) -> tuple[jax.Array, jax.Array]:
        start = uniform_within(self.context.width**-0.5)
        kernel = self.param(f"kernel_{i}", start, (self.context.width, width))
        return kernel, self.param(f"bias_{i}", start, (width,))

    def create(self) -> None:
        self.context.create()

    def texts(self, class_names: Sequence[str], class_texts: list[list[str]]) -> list[list[str]]:
        return self.context.texts(class_names, class_texts)

    def initial(self, params: dict[str, Any], embedding: jax.Array) -> dict[str, Any]:
        return {**params, "context": self.context.initial(params["context"], embedding)}

    def at(
        self, position: int | str, x: jax.Array, tokens: jax.Array, images: jax.Array | None
    ) -> jax.Array:
        return self.context.at(position, x, tokens, images)

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        del x
        assert isinstance(where, int)
        kernel, bias = self.projections[where]
        tokens = self.context.vectors_of(where) @ kernel + bias[None]
        return inserted(y, tokens, self.prefix, replace=where > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoupledSection(TrainedSection):
    """Context of the class texts whose projections are tokens of the image tower."""

    tokens: int = key(0, f"number of them (2 in {_CODE}); 0: none", low=0, high=2**16)
    depth: int = key(
        9,
        "blocks, from the first, that have tokens of their own; at most those of a tower",
        low=1,
        high=2**16,
        source=_CODE,
    )
    start: str = key(
        "a photo of a", "words before the name, where the first tokens start", source=_CODE
    )
    learning_rate: float = learning_rate(0.0035, _CODE)
    optimizer: Optimizer = optimizer("sgd", _CODE)


class CoupledPart(Part[CoupledSection]):
    """Context of the class texts whose projections are tokens of the image tower."""

    name = "maple"
    section = CoupledSection
    switch = "tokens"
    side = "tower"
    order = 10
    adds_tokens = True
    also_on_texts = True
    writes_texts = True

    def build(self, section: CoupledSection, around: Surroundings) -> CoupledTokens:
        what, off = f"maple.tokens={section.tokens}", "config.maple.tokens=0"
        vision, text = needs_vit(what, around), needs_text(what, around, off)
        depth = min(section.depth, around.depth, text.layers)
        context = learned_context("maple", section.tokens, section.start, depth, text)
        sites = tuple(around.sites[i] for i in range(depth))
        return CoupledTokens(sites, context, vision.prefix)

    def facts(
        self, section: CoupledSection, built: CoupledTokens, around: Surroundings
    ) -> dict[str, Any]:
        del around
        return {"maple_tokens": section.tokens, "maple_depth": built.context.depth}


PART = CoupledPart()

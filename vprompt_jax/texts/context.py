"""CoOp and CoCoOp (Zhou et al., arXiv 2109.01134, 2203.05557): learned context of class names.

The formulas and defaults are those of the authors' code (KaiyangZhou/CoOp, `trainers/coop.py`,
`trainers/cocoop.py` and their configs). Context of deeper blocks is that of PromptSRC's code
(muzairkhattak/PromptSRC, `clip/model.py`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.clip.class_texts import class_texts
from vprompt_jax.clip.text import EMBEDDINGS
from vprompt_jax.clip.tokenizer import tokenize
from vprompt_jax.clip.towers import TextConfig
from vprompt_jax.parts import Part, Surroundings, TextPart
from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.parts.part import needs_text
from vprompt_jax.schema import (
    Optimizer,
    Section,
    TrainedSection,
    key,
    learning_rate,
    optimizer,
)

_CODE = "CoOp's code"
_PLACEHOLDER = "X"  # one token; what stands there is replaced
_NARROWER = 16  # by how much CoCoOp's bottleneck is narrower than the image features


class LearnedContext(TextPart):
    """Puts M learned vectors beside every class name, in place of a template.

    The text is "V_1 ... V_M NAME." (position "end"), "V_1 ... V_h NAME V_h+1 ... V_M." with h = M /
    2 rounded down ("middle"), or "NAME V_1 ... V_M." ("front"). Vectors start from N(0, 0.02^2), or
    as the embeddings of given words. In blocks 1..J-1, vectors of their own take the places of what
    the blocks before made of them. For an image with features f of unit length, CoCoOp adds
    relu(f A + a) B + b to each of the first vectors, with A and B as torch's Linear layers start.

    Attributes:
      count: number M of vectors.
      width: channels D of the text tower.
      position: where the class name stands.
      classes: number of classes with vectors of their own; None for vectors that all share.
      depth: number J of blocks with vectors of their own.
      start: words before the name, the first M of which are where the vectors start; "" for noise.
      image_width: channels E of the image features that move the vectors; None for none.
      end_token: id of the end of a text; None for the largest id.
    """

    count: int
    width: int
    position: str = "end"
    classes: int | None = None
    depth: int = 1
    start: str = ""
    image_width: int | None = None
    end_token: int | None = None

    def setup(self) -> None:
        own = () if self.classes is None else (self.classes,)
        shape, normal = (*own, self.count, self.width), nn.initializers.normal(0.02)
        self.vectors = self.param("vectors", normal, shape)
        self.deeper = [self.param(f"vectors_{i}", normal, shape) for i in range(1, self.depth)]
        if self.image_width is not None:
            narrow = max(self.image_width // _NARROWER, 1)
            self.down = self._linear("down", self.image_width, narrow)
            self.up = self._linear("up", narrow, self.width)

    def _linear(self, name: str, inputs: int, outputs: int) -> tuple[jax.Array, jax.Array]:
        start = uniform_within(inputs**-0.5)
        kernel = self.param(f"{name}_kernel", start, (inputs, outputs))
        return kernel, self.param(f"{name}_bias", start, (outputs,))

    @property
    def sees_images(self) -> bool:
        return self.image_width is not None

    @property
    def before(self) -> int:
        """How many of the vectors stand before the class name."""
        return {"end": self.count, "middle": self.count // 2, "front": 0}[self.position]

    def texts(self, class_names: Sequence[str], texts: list[list[str]]) -> list[list[str]]:
        del texts
        first, last = self.before, self.count - self.before
        words = [self.start] if self.start else [_PLACEHOLDER] * first
        return class_texts(class_names, [" ".join([*words, "{}", *[_PLACEHOLDER] * last]) + "."])

    def initial(self, params: dict[str, Any], embedding: jax.Array) -> dict[str, Any]:
        if not self.start:
            return params
        fresh = params["vectors"]
        words = embedding[_ids(self.start)[: self.count]].astype(fresh.dtype)
        return {**params, "vectors": jnp.broadcast_to(words, fresh.shape)}

    def vectors_of(self, block: int) -> jax.Array:
        """The vectors that enter a block: float32 [M, D], or [C, M, D] of classes."""
        vectors: jax.Array = self.deeper[block - 1] if block else self.vectors
        return vectors

    def at(
        self, position: int | str, x: jax.Array, tokens: jax.Array, images: jax.Array | None
    ) -> jax.Array:
        block = 0 if position == EMBEDDINGS else int(position) or None
        if block is None or block >= self.depth:
            return x
        ids = tokens if self.end_token is None else tokens == self.end_token
        end = jnp.argmax(ids, axis=-1).astype(jnp.int32)  # a full stop stands before it
        j = jnp.arange(self.count, dtype=jnp.int32)[None]
        places = jnp.where(j < self.before, 1 + j, end[:, None] - 1 - self.count + j)
        vectors = self.vectors_of(block)
        if self.classes is None:
            vectors = jnp.broadcast_to(vectors[None], (x.shape[0], *vectors.shape))
        if block == 0 and self.image_width is not None:
            assert images is not None
            hidden = nn.relu(images @ self.down[0] + self.down[1][None])
            vectors = vectors + (hidden @ self.up[0] + self.up[1][None])[:, None]
        rows = jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]
        return x.at[rows, places].set(vectors.astype(x.dtype))


def learned_context(
    section: str, count: int, start: str, depth: int, text: TextConfig, **others: Any
) -> LearnedContext:
    """Builds learned context for a text tower.

    Args:
      section: name of the config section, for messages.
      count, start, depth: attributes of `LearnedContext`; at most as deep as the tower.
      text: config of the tower.
      **others: further attributes.

    Raises:
      ValueError: if the tower's texts are not CLIP's or it has no room for the vectors, or if
        `start` has fewer tokens than `count`.
    """
    if text.tokenizer != "clip" or text.pooling == "last":
        raise ValueError(
            f"{section} puts vectors between the tokens that start and end a text of CLIP's: this "
            "text tower has other texts; choose a CLIP, or another method"
        )
    words = len(_ids(start)) if start else count
    if words < count:
        raise ValueError(
            f"{section}.start={start!r} has {words} tokens and {section}.tokens={count}: set "
            f"config.{section}.tokens={words} or fewer, or more words"
        )
    if (least := words + 4) > text.context_length:  # start, a name, full stop, end
        raise ValueError(
            f"{section}.tokens={count} leaves no room for a class name: this text tower takes "
            f"{text.context_length} tokens, and the text would have {least} or more"
        )
    return LearnedContext(
        count,
        text.width,
        depth=min(depth, text.layers),
        start=start,
        end_token=text.end_token,
        **others,
    )


def _ids(words: str) -> np.ndarray:
    """Token ids of words, without those of the start and the end of a text: int32 [M]."""
    tokens = tokenize([words], truncate=True)[0]
    return tokens[1 : int(tokens.argmax())]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextSection(TrainedSection):
    """Learned context tokens around the class names."""

    kind: Literal["none", "unified", "class", "image"] = key(
        "none",
        "whether all classes share them, each has its own, or each image moves them (CoCoOp)",
    )
    tokens: int = key(16, "number of them", low=1, high=2**16, source=_CODE)
    position: Literal["end", "middle", "front"] = key(
        "end", "where the class name stands among them", source=_CODE
    )
    start: str = key(
        "", 'words before the name, where the first tokens start: "a photo of a"; none: noise'
    )
    depth: int = key(
        1,
        "blocks, from the first, that have tokens of their own; at most the tower's",
        low=1,
        high=2**16,
        source=_CODE,
    )
    learning_rate: float = learning_rate(0.002, _CODE)
    optimizer: Optimizer = optimizer("sgd", _CODE)


class ContextPart(Part[ContextSection]):
    """Learned context tokens in place of a template."""

    name = "context"
    section = ContextSection
    switch = "kind"
    side = "text"
    order = 10
    writes_texts = True

    def check(self, section: ContextSection, sections: Mapping[str, Section]) -> None:
        if section.start and section.position != "end":
            raise ValueError(
                f"context.start={section.start!r} stands before the name: set "
                "config.context.position=end"
            )

    def build(self, section: ContextSection, around: Surroundings) -> LearnedContext:
        text = needs_text(f"context.kind={section.kind}", around, "config.context.kind=none")
        return learned_context(
            "context",
            section.tokens,
            section.start,
            section.depth,
            text,
            position=section.position,
            classes=around.classes if section.kind == "class" else None,
            image_width=around.clip.config.embed_dim if section.kind == "image" else None,
        )

    def facts(
        self, section: ContextSection, built: LearnedContext, around: Surroundings
    ) -> dict[str, Any]:
        del around
        return {
            "context_tokens": section.tokens,
            "context_position": section.position,
            "context_depth": built.depth,
        }


PART = ContextPart()

"""CoOp (Zhou et al., arXiv 2109.01134): learned context tokens around the class names.

The formulas and defaults are those of the authors' code (KaiyangZhou/CoOp, `trainers/coop.py` and
its configs).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.class_texts import class_texts
from vprompt_jax.clip.text import EMBEDDINGS
from vprompt_jax.parts import Part, Surroundings, TextPart
from vprompt_jax.parts.part import needs_text
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer

_CODE = "CoOp's code"
_PLACEHOLDER = "X"  # one token; what stands there is replaced


class LearnedContext(TextPart):
    """Puts M learned vectors beside every class name, in place of a template.

    The text is "V_1 ... V_M NAME." (position "end"), "V_1 ... V_h NAME V_h+1 ... V_M." with h = M /
    2 rounded down ("middle"), or "NAME V_1 ... V_M." ("front"). Vectors start from N(0, 0.02^2).

    Attributes:
      count: number M of vectors.
      position: where the class name stands.
      classes: number of classes with vectors of their own; None for vectors that all share.
      width: channels D of the text tower.
      end_token: id of the end of a text; None for the largest id.
    """

    count: int
    position: str
    classes: int | None
    width: int
    end_token: int | None = None

    def setup(self) -> None:
        own = () if self.classes is None else (self.classes,)
        shape = (*own, self.count, self.width)
        self.vectors = self.param("vectors", nn.initializers.normal(0.02), shape)

    @property
    def before(self) -> int:
        """How many of the vectors stand before the class name."""
        return {"end": self.count, "middle": self.count // 2, "front": 0}[self.position]

    def texts(self, class_names: Sequence[str], texts: list[list[str]]) -> list[list[str]]:
        del texts
        first, last = self.before, self.count - self.before
        words = [*[_PLACEHOLDER] * first, "{}", *[_PLACEHOLDER] * last]
        return class_texts(class_names, [" ".join(words) + "."])

    def __call__(self, position: int | str, x: jax.Array, tokens: jax.Array) -> jax.Array:
        if position != EMBEDDINGS:
            return x
        ids = tokens if self.end_token is None else tokens == self.end_token
        end = jnp.argmax(ids, axis=-1).astype(jnp.int32)  # a full stop stands before it
        j = jnp.arange(self.count, dtype=jnp.int32)[None]
        places = jnp.where(j < self.before, 1 + j, end[:, None] - 1 - self.count + j)
        vectors = self.vectors.astype(x.dtype)
        if self.classes is None:
            vectors = jnp.broadcast_to(vectors[None], (len(x), *vectors.shape))
        rows = jnp.arange(len(x), dtype=jnp.int32)[:, None]
        return x.at[rows, places].set(vectors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextSection(TrainedSection):
    """Learned context tokens around the class names."""

    kind: Literal["none", "unified", "class"] = key(
        "none", "whether all classes share them or each has its own"
    )
    tokens: int = key(16, "number of them", low=1, high=2**16, source=_CODE)
    position: Literal["end", "middle", "front"] = key(
        "end", "where the class name stands among them", source=_CODE
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

    def build(self, section: ContextSection, around: Surroundings) -> LearnedContext:
        text = needs_text(f"context.kind={section.kind}", around, "config.context.kind=none")
        if (least := section.tokens + 4) > text.context_length:  # start, a name, full stop, end
            raise ValueError(
                f"context.tokens={section.tokens} leaves no room for a class name: this text tower "
                f"takes {text.context_length} tokens, and the text would have {least} or more"
            )
        classes = around.classes if section.kind == "class" else None
        return LearnedContext(section.tokens, section.position, classes, text.width, text.end_token)

    def facts(
        self, section: ContextSection, built: LearnedContext, around: Surroundings
    ) -> dict[str, Any]:
        del around
        return {"context_tokens": section.tokens, "context_position": section.position}


PART = ContextPart()

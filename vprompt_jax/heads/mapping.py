"""Label mapping (ILM, arXiv 2211.11635): reuses the classifier that a checkpoint came with."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.parts import Head, HeadInputs, Part, Seen, Surroundings
from vprompt_jax.schema import Section, key


def mapped_logits(source_logits: jax.Array, label_map: jax.Array) -> jax.Array:
    """Selects the logits of the source classes that stand for the target classes.

    Args:
      source_logits: [B, K].
      label_map: int32 [C], a source class for each target class.

    Returns:
      float32 [B, C].
    """
    return source_logits[:, label_map].astype(jnp.float32)


def random_map(seed: int, classes: int, source_classes: int) -> np.ndarray:
    """Draws a different source class for each target class: int32 [C]."""
    drawn = np.random.default_rng(seed).permutation(source_classes)[:classes]
    return drawn.astype(np.int32)


def frequency_map(counts: np.ndarray) -> np.ndarray:
    """Gives each target class the source class it is most often taken for (ILM, section 3).

    The assignment is greedy and one to one. The largest count decides first; among equal counts,
    the first in row order.

    Args:
      counts: [C, K], how many examples of target class c are classified as source class k.

    Returns:
      int32 [C].
    """
    counts = counts.astype(np.float64).copy()
    chosen = np.zeros(len(counts), np.int32)
    for _ in range(len(counts)):
        target, source = np.unravel_index(np.argmax(counts), counts.shape)
        chosen[target] = source
        counts[target, :] = counts[:, source] = -1.0
    return chosen


class MappingHead(Head):
    """Gives each target class the logit of the source class that is assigned to it."""

    def __call__(
        self, features: jax.Array, given: HeadInputs
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features [B, E] -> float32 logits [B, C], and the most likely source class [B]."""
        logits = given.source_logits(features)
        source = jnp.argmax(logits, -1)
        return mapped_logits(logits, given.assigned["label_map"]), {"source": source}


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """Assigns a source class to each target class.

    Attributes:
      mapping: "random", "frequency" (assigned once, before training) or "iterative" (assigned
        anew before every epoch).
      classes: number of target classes C.
      sources: number of source classes K.
      split: whose images are counted, those of train.
      contexts: one, the usual one.
    """

    mapping: str
    classes: int
    sources: int
    split: Literal["train", "val"] = "train"
    contexts: Sequence[Mapping[str, float]] = ({},)

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """A random map."""
        return {"label_map": random_map(seed, self.classes, self.sources)}

    def is_due(self, step: int, steps_per_epoch: int, steps: int) -> bool:
        del steps
        if self.mapping == "iterative":
            return step % steps_per_epoch == 0
        return self.mapping == "frequency" and step == 0

    def counts(self, seen: Sequence[Seen], batch: Mapping[str, jax.Array]) -> jax.Array:
        """How many examples of each target class are taken for each source class: [C, K]."""
        ((_, out),) = seen
        zeros = jnp.zeros((self.classes, self.sources))
        return zeros.at[batch["label"], out["source"]].add(batch["weight"])

    def assigned(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        return {"label_map": frequency_map(counts)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MappingHeadSection(Section):
    """The label-mapping head."""

    kind: str = key("text", "what turns image features into class logits")
    mapping: Literal["random", "frequency", "iterative"] = key(
        "iterative", "how source classes are assigned to the target's", source="ILM, section 3"
    )


class MappingHeadPart(Part[MappingHeadSection]):
    """Maps the target classes to the checkpoint's own classes."""

    name = "head"
    section = MappingHeadSection
    switch = "kind"
    kind = "mapping"
    side = "head"

    def build(self, section: MappingHeadSection, around: Surroundings) -> MappingHead:
        del section
        source = around.variables["params"].get("classifier")
        if source is None:
            raise ValueError("head.kind=mapping needs a checkpoint with a classifier of its own")
        if around.classes > source["bias"].shape[-1]:
            raise ValueError(
                f"head.kind=mapping: {around.classes} classes cannot be mapped one to one to the "
                f"checkpoint's {source['bias'].shape[-1]}"
            )
        return MappingHead()

    def assignment(self, section: MappingHeadSection, around: Surroundings) -> LabelMap:
        sources = around.variables["params"]["classifier"]["bias"].shape[-1]
        return LabelMap(section.mapping, around.classes, sources)


PART = MappingHeadPart()

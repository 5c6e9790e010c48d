"""Label mapping: reuses the classifier that a checkpoint came with, or a CLIP's texts.

One source class stands for each target class (ILM, arXiv 2211.11635), or every source class has a
weight (BLM and BLM+, arXiv 2410.24018, after the authors' code, tmlr-group/BayesianLM). A CLIP's
source classes are the classes' texts, each template's by themselves, as in ILM's code
(OPTML-Group/ILM-VP, `experiments/clip/ilm_tp_vp.py`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.parts import Head, HeadInputs, Part, Seen, Surroundings
from vprompt_jax.schema import Section, key

_WEIGHTED = ("bayesian", "bayesian_top")
_TOP = 0.15  # of the number of target classes: how many source classes count (BLM+'s code)


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


def bayesian_weights(counts: np.ndarray) -> np.ndarray:
    """Weights of the source classes for each target class (BLM).

    w[c, k] = p(c | k) / sum over k' of p(c | k'), where p(c | k) is counts[c, k] over 1 + the sum
    of counts[:, k]: the share of target class c in source class k, with a Laplace smoothing of 1.

    Args:
      counts: [C, K], how often, or how likely, examples of target class c are taken for source
        class k.

    Returns:
      float32 [C, K], whose rows add up to one.
    """
    shares = counts / (counts.sum(0, keepdims=True) + 1.0)
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


class MappingHead(Head):
    """Gives each target class the logit of its source class, or weighted logits of all of them."""

    def __call__(
        self, features: jax.Array, given: HeadInputs
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features [B, E] -> float32 logits [B, C], and the source classes' logits [B, K]."""
        source = given.source_logits(features).astype(jnp.float32)
        if "label_weights" in given.assigned:
            logits = source @ given.assigned["label_weights"].T
        else:
            logits = mapped_logits(source, given.assigned["label_map"])
        return logits, {"source_logits": source}


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
        source = jnp.argmax(out["source_logits"], -1)
        return zeros.at[batch["label"], source].add(batch["weight"])

    def assigned(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        return {"label_map": frequency_map(counts)}


@dataclasses.dataclass(frozen=True)
class LabelWeights(LabelMap):
    """Weighs the source classes for each target class, anew before every epoch.

    Attributes:
      mapping: "bayesian", which counts as `LabelMap` does, or "bayesian_top", which adds the
        probabilities of an example's likeliest source classes, 0.15 C of them (at least one).
    """

    @property
    def top(self) -> int:
        """How many of an example's source classes count."""
        return max(int(_TOP * self.classes), 1)

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """The weights of a random map, in which classes share sources if there are too few."""
        one = np.resize(random_map(seed, self.classes, self.sources), self.classes)
        return {"label_weights": np.eye(self.sources, dtype=np.float32)[one]}

    def is_due(self, step: int, steps_per_epoch: int, steps: int) -> bool:
        del steps
        return step % steps_per_epoch == 0

    def counts(self, seen: Sequence[Seen], batch: Mapping[str, jax.Array]) -> jax.Array:
        """As `LabelMap.counts`, or the sums of probabilities."""
        if self.mapping == "bayesian":
            return super().counts(seen, batch)
        ((_, out),) = seen
        values, sources = jax.lax.top_k(nn.softmax(out["source_logits"]), self.top)
        zeros = jnp.zeros((self.classes, self.sources))
        return zeros.at[batch["label"][:, None], sources].add(values * batch["weight"][:, None])

    def assigned(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        return {"label_weights": bayesian_weights(counts)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MappingHeadSection(Section):
    """The label-mapping head."""

    kind: str = key("text", "what turns image features into class logits")
    mapping: Literal["random", "frequency", "iterative", "bayesian", "bayesian_top"] = key(
        "iterative",
        "how source classes are assigned to the target's: one each, or with weights (BLM, BLM+)",
        source="ILM, section 3",
    )


class MappingHeadPart(Part[MappingHeadSection]):
    """Maps the target classes to the checkpoint's own classes, or to a CLIP's texts."""

    name = "head"
    section = MappingHeadSection
    switch = "kind"
    kind = "mapping"
    side = "head"
    maps_sources = True

    def build(self, section: MappingHeadSection, around: Surroundings) -> MappingHead:
        c = around.clip.config
        if not c.classes and not c.has_text:
            raise ValueError(
                "head.kind=mapping needs a checkpoint with a classifier of its own, or with a text "
                "tower: set config.head.kind=linear"
            )
        if section.mapping not in _WEIGHTED and around.classes > _sources(around):
            raise ValueError(
                f"head.kind=mapping: {around.classes} classes cannot be mapped one to one to the "
                f"checkpoint's {_sources(around)}: set config.head.mapping=bayesian"
            )
        return MappingHead()

    def assignment(self, section: MappingHeadSection, around: Surroundings) -> LabelMap:
        kind = LabelWeights if section.mapping in _WEIGHTED else LabelMap
        return kind(section.mapping, around.classes, _sources(around))

    def facts(
        self, section: MappingHeadSection, built: MappingHead, around: Surroundings
    ) -> dict[str, Any]:
        del section, built
        return {"source_classes": _sources(around)}


def _sources(around: Surroundings) -> int:
    """Number of source classes: the classifier's, or the texts of all classes."""
    return around.clip.config.classes or around.classes * around.templates


PART = MappingHeadPart()

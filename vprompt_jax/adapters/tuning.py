"""Trains weights of the tower itself: all (full fine-tuning), normalisations, or biases."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from flax import traverse_util

from vprompt_jax.clip.sites import normalisations
from vprompt_jax.parts import Part, Surroundings
from vprompt_jax.parts.weights import SelectedWeights, Tree
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TunedWeights(SelectedWeights):
    """Selects the weights of an image tower that train.

    Attributes:
      kind: "all"; "norm" for normalisation layers (of BatchNorms the scale and bias alone, as
        their statistics are no parameters); or "bias" (BitFit, arXiv 2106.10199).
      norms: paths of the tower's normalisation layers.
      interpolation: the share a of the trained weights at inference, (1 - a) frozen + a trained
        (WiSE-FT, arXiv 2109.01903).
    """

    kind: str
    norms: frozenset[Path]
    interpolation: float = 1.0

    def selected(self, tower: Tree) -> dict[str, Any]:
        """The parameters of an image tower that train.

        Raises:
          ValueError: if the tower has none of them.
        """
        flat = traverse_util.flatten_dict(tower)
        select: dict[str, Callable[[Path], bool]] = {
            "all": lambda path: True,
            "norm": lambda path: path[:-1] in self.norms,
            "bias": lambda path: path[-1] == "bias",
        }
        chosen = {path: leaf for path, leaf in flat.items() if select[self.kind](path)}
        if not chosen:
            raise ValueError(f"tune.weights={self.kind}: this tower has no such weights")
        return traverse_util.unflatten_dict(chosen)

    def initial(self, tower: Tree, key: jax.Array) -> dict[str, Any]:
        """Float32 copies of the selected weights, on the host."""
        del key
        selected = jax.device_get(self.selected(tower))
        return jax.tree.map(lambda w: np.array(w, np.float32), selected)

    def at_inference(self, tower: Tree, params: Any) -> Any:
        if self.interpolation == 1.0:
            return params
        share = self.interpolation
        return jax.tree.map(
            lambda w, p: (1 - share) * w.astype(p.dtype) + share * p, self.selected(tower), params
        )

    def paths(self, tower: Tree) -> list[Path]:
        """The paths of the selected weights."""
        return list(traverse_util.flatten_dict(self.selected(tower)))

    def replaced(self, tower: Tree, params: Tree) -> dict[str, Any]:
        """The tower's parameters, with the trained ones in place of the frozen ones."""
        flat = traverse_util.flatten_dict(tower)
        return traverse_util.unflatten_dict(flat | traverse_util.flatten_dict(params))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneSection(TrainedSection):
    """The tower's own weights."""

    weights: Literal["none", "all", "norm", "bias"] = key("none", "which of them train")
    interpolation: float = key(
        1.0,
        "share of the trained weights at inference; the rest is the frozen ones' (WiSE-FT)",
        low=0,
        high=1,
    )
    learning_rate: float = learning_rate(1e-3, "ours, chosen on val: docs/methods.md")
    optimizer: Optimizer = optimizer("adamw", "ours")


class TunePart(Part[TuneSection]):
    """Fine-tuning of the image tower, or of some kinds of its weights."""

    name = "tune"
    section = TuneSection
    switch = "weights"
    side = "weights"

    def build(self, section: TuneSection, around: Surroundings) -> TunedWeights:
        norms = normalisations(around.sites)
        weights = TunedWeights(section.weights, norms, section.interpolation)
        weights.selected(around.variables["params"]["visual"])
        return weights


PART = TunePart()

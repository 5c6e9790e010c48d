"""Linear probe: one trained layer on frozen image features."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.model import unit_norm
from vprompt_jax.heads import probe
from vprompt_jax.parts import Head, HeadInputs, Part, Solver, Surroundings
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer


class LinearHead(Head):
    """Computes class logits from image features of unit length; initially all logits are zero.

    We scale features to unit length so that one learning rate fits towers whose features differ in
    scale.

    Attributes:
      classes: number of classes.
    """

    classes: int

    def create(self, embed_dim: int) -> None:
        self(jnp.zeros((1, embed_dim)))

    @nn.compact
    def __call__(
        self, features: jax.Array, given: HeadInputs | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features [B, E] -> float32 logits [B, classes]; other inputs are ignored."""
        del given
        x = unit_norm(features.astype(jnp.float32))
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name="dense")(x), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearHeadSection(TrainedSection):
    """The linear head."""

    kind: str = key("text", "what turns image features into class logits")
    solver: Literal["sgd", "lbfgs"] = key(
        "sgd", "sgd: the train step; lbfgs: logistic regression by scikit-learn, the head alone"
    )
    learning_rate: float = learning_rate(10.0, "ours, chosen on val: docs/methods.md")
    optimizer: Optimizer = optimizer("sgd", "ours")


class LinearHeadPart(Part[LinearHeadSection]):
    """A linear classifier on image features."""

    name = "head"
    section = LinearHeadSection
    switch = "kind"
    kind = "linear"
    side = "head"

    def build(self, section: LinearHeadSection, around: Surroundings) -> LinearHead:
        del section
        return LinearHead(around.classes)

    def solver(self, section: LinearHeadSection) -> Solver | None:
        return probe.Probe() if section.solver == "lbfgs" else None


PART = LinearHeadPart()

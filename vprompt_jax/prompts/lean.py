"""Whether masks begin at on or at off, once a prompt has trained alone (ours)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.parts import Seen
from vprompt_jax.prompts.generator import LEAN


@dataclasses.dataclass(frozen=True)
class Lean:
    """By how much the logit of "on" is raised, once the prompt has trained alone.

    Attributes:
      hold: share of the run in which it does.
      split: whose images are counted. On those of train, a prompt that overfits looks better.
      contexts: no region marked, and every region marked.
    """

    hold: float
    split: Literal["train", "val"] = "val"
    contexts: Sequence[Mapping[str, float]] = ({"tried": 0.0}, {"tried": 1.0})

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """Zero; `mask.hold` marks every region until it is assigned."""
        del seed
        return {"lean": np.zeros((), np.float32)}

    def is_due(self, step: int, steps_per_epoch: int, steps: int) -> bool:
        del steps_per_epoch
        return step == math.ceil(self.hold * steps)

    def counts(self, seen: Sequence[Seen], batch: Mapping[str, jax.Array]) -> jax.Array:
        """How many images are recognised only with the prompt, and how many only without: [2]."""
        without, everywhere = (jnp.argmax(logits, -1) == batch["label"] for logits, _ in seen)
        only = jnp.stack([everywhere & ~without, without & ~everywhere])
        return only.astype(jnp.float32) @ batch["weight"]

    def assigned(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Towards "on" if the prompt helps by more than one standard error, else towards "off".

        The gain in images is the difference of two counts, whose variance is about their sum
        (McNemar).
        """
        helped, harmed = counts
        on = helped - harmed > math.sqrt(helped + harmed)
        return {"lean": np.asarray(LEAN if on else -LEAN, np.float32)}

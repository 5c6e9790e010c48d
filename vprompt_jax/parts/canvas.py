"""What the parts on the pixel side pass from one to the next."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax


class Canvas(flax.struct.PyTreeNode):
    """Images, and what is to be added to them.

    Attributes:
      image: normalised pixels, float32 [B, R, R, 3].
      added: what is added to them, float32 [1 or B, R, R, 3]; None for nothing (yet).
      support: where `added` has parameters, bool [1 or B, R, R]; None with `added`.
      metrics: numbers per example, float32 [B], by name; logged as means.
      shown: arrays for pictures and inspection by name; unused ones cost nothing when compiled.
    """

    image: jax.Array
    added: jax.Array | None = None
    support: jax.Array | None = None
    metrics: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)
    shown: Mapping[str, Any] = flax.struct.field(default_factory=dict)

    @property
    def result(self) -> jax.Array:
        """The images as the tower sees them, float32 [B, R, R, 3]."""
        return self.image if self.added is None else self.image + self.added

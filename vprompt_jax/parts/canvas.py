"""The canvas: what parts on the pixel side pass from one to the next."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import numpy as np


class Canvas(flax.struct.PyTreeNode):
    """Images, and what is to be added to them.

    Attributes:
      image: normalised pixels, float32 [B, R, R, 3].
      added: pixels to add to them, float32 [1 or B, R, R, 3]; None if no part adds any (yet).
      support: where `added` has parameters, bool [1 or B, R, R]; None if `added` is None. A NumPy
        array if it is the same at every step, so that what lies elsewhere need not be computed.
      metrics: numbers per example, float32 [B], by name; their means are logged.
      assigned: arrays by name that parts assign rather than train (`Part.assignment`).
      shown: arrays by name, for pictures and inspection; the compiler drops those nobody reads.
    """

    image: jax.Array
    added: jax.Array | None = None
    support: jax.Array | np.ndarray | None = None
    metrics: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)
    assigned: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)
    shown: Mapping[str, Any] = flax.struct.field(default_factory=dict)

    @property
    def result(self) -> jax.Array:
        """The images as the tower sees them, float32 [B, R, R, 3]."""
        return self.image if self.added is None else self.image + self.added

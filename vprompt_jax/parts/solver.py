"""Solvers: what finds a part from image features, in place of train steps or around them."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from vprompt_jax.parts.head import HeadInputs


class Examples(NamedTuple):
    """A split as the frozen CLIP sees it.

    Attributes:
      features: float [N, E], not of unit length.
      labels: int32 [N].
    """

    features: np.ndarray
    labels: np.ndarray


class Found(NamedTuple):
    """What a part has.

    Attributes:
      params: its trained parameters; {} if it has none.
      assigned: its assigned arrays, by name (`Part.arrays`); {} if it has none.
    """

    params: Any
    assigned: Mapping[str, Any]


class Solver:
    """Finds a part from the features of all images at once.

    The part has to be the only one that learns, since it is given the frozen CLIP's features.

    Attributes:
      asked: the key and the value that ask for it, as "config.PART.KEY=VALUE".
      beside_others: likewise, what to set where other parts are to learn as well.
      before_steps: whether train steps follow `start`; otherwise it takes their place.
      by_steps: if it takes their place, the key and the value that ask for them.
    """

    asked: str
    beside_others: str
    by_steps: str = ""
    before_steps: ClassVar[bool] = False

    def start(self, at: Found, train: Examples, val: Examples | None, given: HeadInputs) -> Found:
        """What the part has before the first step, or without any; of the structure of `at`.

        Args:
          at: what it has so far.
          train: to find it from.
          val: to choose by; None under `protocol=paper`.
          given: what the head is given beside features.
        """
        raise NotImplementedError

    def finish(self, at: Found, val: Examples, given: HeadInputs) -> Mapping[str, Any]:
        """The assigned arrays after the last step, chosen on val; the parameters stay.

        Args:
          at: what has been learned, of the last step or of the one that was best on val.
          val: to choose by. Without a val split there is no such call.
          given: what the head is given beside features.
        """
        del val, given
        return at.assigned

    def facts(self, labels: np.ndarray, assigned: Mapping[str, Any]) -> dict[str, Any]:
        """What `result.json` states, given train's labels [N] and the arrays of the last step."""
        del labels, assigned
        return {}

    def warning(self, labels: np.ndarray) -> str | None:
        """What the user should know before it starts, given train's labels [N]; None: nothing."""
        del labels
        return None

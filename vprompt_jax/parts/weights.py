"""The weights' side: parts that replace some of the image tower's own weights."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

Tree = Mapping[str, Any]


class SelectedWeights(Protocol):
    """Says which weights of the image tower train, and puts trained ones in their place.

    A class that inherits from it has its `at_inference`.
    """

    def initial(self, tower: Tree, key: jax.Array) -> dict[str, Any]:
        """The part's parameters at the start, from the frozen tower's and a random key."""
        ...

    def at_inference(self, tower: Tree, params: Any) -> Any:
        """The parameters to use at inference, where they are not those that training uses."""
        del tower
        return params

    def paths(self, tower: Tree) -> list[tuple[str, ...]]:
        """The paths of the weights that change."""
        ...

    def replaced(self, tower: Tree, params: Tree) -> dict[str, Any]:
        """The tower's parameters, with the trained ones in place of the frozen ones."""
        ...

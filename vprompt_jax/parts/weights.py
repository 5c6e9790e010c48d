"""The weights' side: what replaces some of the image tower's own weights."""

from collections.abc import Mapping
from typing import Any, Protocol

Tree = Mapping[str, Any]


class SelectedWeights(Protocol):
    """Which weights of the image tower train, and how the trained ones take their places."""

    def initial(self, tower: Tree) -> dict[str, Any]:
        """The parameters at the start, from the frozen tower's."""
        ...

    def paths(self, tower: Tree) -> list[tuple[str, ...]]:
        """The tower's weights that change, by path."""
        ...

    def replaced(self, tower: Tree, params: Tree) -> dict[str, Any]:
        """The tower's parameters with the trained ones in their places."""
        ...

"""Which of the tower's own weights train: all (full fine-tune), normalisations, or biases."""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util

Path = tuple[str, ...]


def _is_norm(path: Path) -> bool:
    """Scale or bias of a LayerNorm or BatchNorm; a BatchNorm's statistics are no parameters."""
    layer = path[-2] if len(path) > 1 else ""
    return layer.startswith(("ln_", "bn")) or layer.endswith("_bn")


_SELECT = {
    "all": lambda path: True,
    "norm": _is_norm,  # LayerNorm in ViTs, the affine part of BatchNorm in CNNs
    "bias": lambda path: path[-1] == "bias",  # BitFit, arXiv 2106.10199
}
CHOICES = ("none", *_SELECT)


def selected(tower: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The part of an image tower's parameters that trains.

    Args:
      tower: nested parameters.
      kind: one of `CHOICES`.

    Raises:
      ValueError: if the tower has none of them.
    """
    if kind == "none":
        return {}
    flat = traverse_util.flatten_dict(tower)
    chosen = {path: leaf for path, leaf in flat.items() if _SELECT[kind](path)}
    if not chosen:
        raise ValueError(f"tune.weights={kind}: this tower has no such weights")
    return traverse_util.unflatten_dict(chosen)


def paths(tree: Mapping[str, Any]) -> list[Path]:
    """The paths of a nested tree's leaves."""
    return list(traverse_util.flatten_dict(tree))


def replaced(tower: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """The tower's parameters with the trained ones in their places."""
    flat = traverse_util.flatten_dict(tower)
    return traverse_util.unflatten_dict(flat | traverse_util.flatten_dict(trained))

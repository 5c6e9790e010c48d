"""Which of the tower's own weights train: all (full fine-tune), normalisations, or biases."""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from vprompt_jax.clip.config import CLIPConfig
from vprompt_jax.clip.sites import normalisations

Path = tuple[str, ...]


# "norm": LayerNorms in ViTs, the affine part of BatchNorms in CNNs (their statistics are no
# parameters); "bias": BitFit, arXiv 2106.10199.
CHOICES = ("none", "all", "norm", "bias")


def selected(tower: Mapping[str, Any], kind: str, config: CLIPConfig) -> dict[str, Any]:
    """The part of an image tower's parameters that trains.

    Args:
      tower: nested parameters.
      kind: one of `CHOICES`.
      config: what the tower is.

    Raises:
      ValueError: if the tower has none of them.
    """
    if kind == "none":
        return {}
    flat = traverse_util.flatten_dict(tower)
    if kind == "all":
        chosen = flat
    elif kind == "bias":
        chosen = {path: leaf for path, leaf in flat.items() if path[-1] == "bias"}
    else:
        norms = normalisations(config)
        chosen = {path: leaf for path, leaf in flat.items() if path[:-1] in norms}
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

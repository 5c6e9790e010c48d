"""Folds what is linear into plain weights: the adapted tower at the frozen tower's cost."""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from vprompt_jax.adaptation.build import BuiltParts


def folded(
    parts: BuiltParts, params: Mapping[str, Any], tower: Mapping[str, Any]
) -> dict[str, Any]:
    """An image tower's plain parameters whose outputs are those of the adapted tower.

    Args:
      parts: on the tower.
      params: their trained parameters, by name.
      tower: the frozen image tower's parameters.

    Raises:
      ValueError: if a part cannot be folded.
    """
    model = parts.model
    if pixels := [part.name for part in model.parts if part.side == "pixels"]:
        raise ValueError(f"{', '.join(pixels)} cannot be folded into the tower's weights")
    for name, weights in parts.weights.items():
        tower = weights.replaced(tower, params[name])
    flat = traverse_util.flatten_dict(tower)
    # In the order in which they act at one layer.
    for part in model.parts:
        if part.side == "tower":
            adapter = part.module.clone(parent=None).bind({"params": params[part.name]})
            for site in adapter.sites:
                adapter.fold(site, flat)
    return traverse_util.unflatten_dict(flat)

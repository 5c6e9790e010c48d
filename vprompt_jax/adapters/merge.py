"""Folds what is linear into plain weights: the adapted tower at the frozen tower's cost."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import traverse_util

from vprompt_jax.adapters import tuning
from vprompt_jax.adapters.activation import ActivationPrompt
from vprompt_jax.adapters.lora import LoRA
from vprompt_jax.adapters.scale_shift import ScaleShift
from vprompt_jax.clip.sites import Site

Flat = dict[tuple[str, ...], Any]


def merged(model: Any, params: Mapping[str, Any], tower: Mapping[str, Any]) -> dict[str, Any]:
    """An image tower's plain parameters whose outputs are those of the adapted tower.

    Tuned weights, LoRA, SSF, and activation prompts of shape "channel" at a normalisation's output
    fold exactly.

    Args:
      model: the `PromptedCLIP`.
      params: its trained parameters, by part.
      tower: the frozen image tower's parameters.

    Raises:
      ValueError: if a part cannot be folded.
    """
    kept = [p for p in ("prompt", "mask", "vpt", "adapter") if getattr(model, p) is not None]
    if kept:
        raise ValueError(f"{', '.join(kept)} cannot be folded into the tower's weights")
    flat: Flat = traverse_util.flatten_dict(tuning.replaced(tower, params.get("tune", {})))
    # In the order in which they act at one layer.
    for part, fold in (("ap", _fold_ap), ("lora", _fold_lora), ("ssf", _fold_ssf)):
        adapter = getattr(model, part)
        if adapter is None:
            continue
        bound = adapter.clone(parent=None).bind({"params": params[part]})
        for site in adapter.sites:
            fold(bound, site, flat)
    return traverse_util.unflatten_dict(flat)


def _path(site: Site, name: str) -> tuple[str, ...]:
    return (*str(site.where).split("/"), name)


def _fold_ap(adapter: ActivationPrompt, site: Site, flat: Flat) -> None:
    bias = _path(site, "bias")
    if adapter.shape != "channel" or bias not in flat:
        raise ValueError(
            f"the activation prompt of shape {adapter.shape!r} at {site.where!r} cannot be folded: "
            "only shape 'channel' at a layer with a bias can"
        )
    flat[bias] = flat[bias] + adapter.deltas[str(site.where)]


def _fold_lora(adapter: LoRA, site: Site, flat: Flat) -> None:
    kernel = _path(site, "kernel")
    flat[kernel] = adapter.merged(site.where, flat[kernel])


def _fold_ssf(adapter: ScaleShift, site: Site, flat: Flat) -> None:
    scale, shift = adapter.factors[site.where]
    weight, bias = _path(site, "kernel"), _path(site, "bias")
    if weight not in flat:
        weight = _path(site, "scale")
    flat[weight] = flat[weight] * scale
    if bias in flat:
        flat[bias] = flat[bias] * scale + shift
    else:  # the patches' convolution; every patch's place takes the shift
        places = ("positional_embedding",)
        patches = site.outputs[0] * site.outputs[1]  # they come last, after the class token
        flat[places] = jnp.asarray(flat[places]).at[-patches:].add(shift)

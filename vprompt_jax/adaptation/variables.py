"""The variables of an adapted CLIP: trained ones beside, or in place of, the frozen ones."""

import functools
from collections.abc import Mapping
from typing import Any

import jax

from vprompt_jax.adaptation.model import AdaptedCLIP
from vprompt_jax.parts import SelectedWeights


def for_inference(
    model: AdaptedCLIP,
    params: Mapping[str, Any],
    frozen: Mapping[str, Any],
    weights: Mapping[str, SelectedWeights],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and frozen variables of `model.at_inference()`.

    Class texts that parts on the text side make stay the same at inference, so that they are
    encoded here, once, unless they depend on the image. Parts on the weights' side may use others
    than in training.
    """
    clip = frozen["params"]["clip"]
    changed = {
        name: selected.at_inference(clip["visual"], params[name])
        for name, selected in weights.items()
    }
    if model.has("text") and not model.texts_see_images:
        variables = {"params": {"clip": clip, **params}, "constants": frozen["constants"]}
        frozen = {**frozen, "constants": {"text_features": _encoded_texts(model, variables)}}
    return {**params, **changed}, dict(frozen)


@functools.partial(jax.jit, static_argnums=0)  # compiled once, not at every evaluation
def _encoded_texts(model: AdaptedCLIP, variables: Mapping[str, Any]) -> Any:
    return model.apply(variables, method="text_features")


def variables_of(
    params: Mapping[str, Any],
    assigned: Mapping[str, Any],
    frozen: Mapping[str, Any],
    weights: Mapping[str, SelectedWeights],
) -> dict[str, Any]:
    """All variables of an `AdaptedCLIP`: the trained ones beside, or in place of, the frozen ones.

    Args:
      params: parameters by part.
      assigned: assigned arrays by name.
      frozen: the frozen variables.
      weights: how the parts on the weights' side replace the image tower's weights, by name.
    """
    clip = frozen["params"]["clip"]
    for name, selected in weights.items():
        clip = {**clip, "visual": selected.replaced(clip["visual"], params[name])}
    parts = {name: tree for name, tree in params.items() if name not in weights}
    return {**frozen, "params": {"clip": clip, **parts}, "assigned": dict(assigned)}

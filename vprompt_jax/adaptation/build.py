"""Builds the parts of a config on a tower, or says why one does not fit."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from vprompt_jax.adaptation.model import AdaptedCLIP, Built
from vprompt_jax.clip.model import CLIP
from vprompt_jax.clip.sites import PIXELS, Where, entry_of_weight, lowest
from vprompt_jax.config import Config
from vprompt_jax.methods import registry
from vprompt_jax.parts import Assignment, Part, SelectedWeights, Side, Surroundings
from vprompt_jax.process.errors import UserError
from vprompt_jax.schema import Section


@dataclasses.dataclass(frozen=True)
class BuiltParts:
    """The parts of a config on a tower.

    Attributes:
      model: the CLIP with the parts that are Flax modules.
      weights: parts that replace some of the tower's weights, by name.
      assignment: what a part assigns rather than trains; None if none does.
      arrays: those that a part's solver finds, as they are before it, by part and by name.
      maps_texts: whether every class text by itself is a class to map from.
      facts: what is said of the parts in `result.json`.
    """

    model: AdaptedCLIP
    weights: Mapping[str, SelectedWeights]
    assignment: Assignment | None
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    maps_texts: bool
    facts: Mapping[str, Any]


def parts_of(sections: Mapping[str, Section]) -> list[Part[Any]]:
    """The declarations of the parts that sections belong to, in the order in which they act."""
    return registry.ordered(
        part for part in registry.PARTS if type(sections.get(part.name)) is part.section
    )


def build(
    config: Config, clip: CLIP, variables: Mapping[str, Any], classes: int, templates: int = 1
) -> BuiltParts:
    """Builds the parts of a config.

    Args:
      config: whose `parts` are on; sizes left at None follow the tower's resolution.
      clip: the frozen CLIP.
      variables: its variables; only their shapes matter.
      classes: number of classes.
      templates: number of texts per class.

    Raises:
      UserError: if a part does not fit the tower.
    """
    parts = parts_of(config.parts)
    adder = next((part.name for part in parts if part.adds_tokens), None)
    dtype = jnp.dtype(config.model.dtype)
    around = Surroundings(clip, variables, classes, templates, dtype, config.parts, adder)
    modules: list[Built] = []
    weights: dict[str, SelectedWeights] = {}
    entries: list[Where] = []
    assignment, assigns = None, ""
    arrays: dict[str, Mapping[str, np.ndarray]] = {}
    facts: dict[str, Any] = {}
    for part in parts:
        section = config.parts[part.name]
        try:
            built = part.build(section, around)
        except ValueError as error:
            raise UserError(str(error)) from error
        if part.side == "weights":
            weights[part.name] = built
        else:
            sides: tuple[Side, ...] = (part.side, "text") if part.also_on_texts else (part.side,)
            modules += [Built(part.name, side, built) for side in sides]
        entries += _entries(part, built, around)
        if (rule := part.assignment(section, around)) is not None:
            if assignment is not None:
                raise UserError(
                    f"config.{assigns} and config.{part.name} both assign arrays from the images, "
                    "and one at a time can: change one of the two"
                )
            if rule.split == "val" and config.protocol == "paper":
                raise UserError(
                    f"config.{part.name} assigns arrays from the validation images, and "
                    "config.protocol=paper has none: set config.protocol=val"
                )
            assignment, assigns = rule, part.name
        if found := part.arrays(section, around):
            arrays[part.name] = found
        facts |= part.facts(section, built, around)
    _check_texts_are_read(parts)
    _check_frozen_is_there(parts)
    entry = lowest(entries)
    model = AdaptedCLIP(clip, tuple(modules), around.depth if entry is None else entry)
    maps_texts = clip.config.classes == 0 and any(part.maps_sources for part in parts)
    return BuiltParts(model, weights, assignment, arrays, maps_texts, facts)


def _check_texts_are_read(parts: Sequence[Part[Any]]) -> None:
    """Refuses parts that act on the texts beside a head that does not look at them."""
    learn = [part for part in parts if part.side in ("text", "loss") or part.also_on_texts]
    if not learn or any(part.reads_texts for part in parts):
        return
    (head,) = (part for part in parts if part.side == "head")
    others = [part for part in registry.alternatives(head.name) if part.reads_texts]
    kinds = " or ".join(str(kind) for part in others for kind in part.kinds)
    raise UserError(
        f"config.{learn[0].name} acts on the classes' texts, and this head does not compare images "
        f"with them: set config.{head.name}.{head.switch}={kinds}"
    )


def _check_frozen_is_there(parts: Sequence[Part[Any]]) -> None:
    """Refuses a penalty that needs the frozen tower beside parts that take its weights' places."""
    losses, weights = ([p.name for p in parts if p.side == side] for side in ("loss", "weights"))
    if losses and weights:
        raise UserError(
            f"config.{losses[0]} compares with the frozen tower, whose weights config.{weights[0]} "
            "replaces: switch one of the two off"
        )


def _entries(part: Part[Any], built: Any, around: Surroundings) -> list[Where]:
    """Where the image tower has to be entered for a part to have its effect."""
    if part.side == "pixels":
        return [PIXELS]
    if part.side == "tower":
        return [site.entry for site in built.sites]
    if part.side == "weights":
        paths = built.paths(around.variables["params"]["visual"])
        return [entry_of_weight(path, around.sites) for path in paths]
    return []

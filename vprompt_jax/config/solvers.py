"""Refuses what stands in the way of a solver, before anything is loaded."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vprompt_jax.methods import registry
from vprompt_jax.parts import Part, Solver
from vprompt_jax.process.errors import UserError
from vprompt_jax.schema import Section


def check(
    parts: Sequence[Part[Any]],
    sections: Mapping[str, Section],
    values: Mapping[str, Any],
    overridden: Iterable[str],
) -> None:
    """Refuses keys that a part's solver cannot go with.

    A solver is given the frozen CLIP's features of the images as they are, so nothing else may
    learn. In place of train steps it reads no key of theirs.

    Args:
      parts: those that are on.
      sections: theirs, by name.
      values: of all keys, by dotted key.
      overridden: dotted keys that the command line sets, and so keeps if it can.

    Raises:
      UserError: naming the key, and what to set.
    """
    for part in parts:
        solver = part.solver(sections[part.name])
        if solver is None:
            continue
        if others := [other.name for other in parts if other is not part and other.trains]:
            raise UserError(
                f"{solver.asked} reads the frozen CLIP's features, and so learns the {part.name} "
                f"alone, without {', '.join(others)}: set "
                + _way_out(solver, others, {key.partition(".")[0] for key in overridden})
            )
        if (augment := values["data.augment"]) != "none":
            raise UserError(
                f"{solver.asked} needs features that stay as they are, which "
                f"config.data.augment={augment} changes: set config.data.augment=none"
            )
        if values["cache.mode"] == "off":
            raise UserError(
                f"{solver.asked} needs the features of all images: set config.cache.mode=on"
            )
        if solver.before_steps:
            continue
        if (weights := values["optim.class_weights"]) != "none":
            raise UserError(
                f"{solver.asked} weighs every image alike: set config.optim.class_weights=none, "
                f"not {weights}, or {solver.by_steps}"
            )
        if smoothing := values["optim.label_smoothing"]:
            raise UserError(
                f"{solver.asked} takes labels as they are: set config.optim.label_smoothing=0, not "
                f"{smoothing}, or {solver.by_steps}"
            )


def _way_out(solver: Solver, others: Sequence[str], asked: set[str]) -> str:
    """What to set where other parts are on: what the command line did not ask for goes.

    Args:
      solver: of the part that has to be alone.
      others: names of the other parts.
      asked: names of the parts that the command line has keys of.
    """
    off = [f"config.{k}={v}" for k, v in registry.switches() if k.partition(".")[0] in others]
    return solver.beside_others if asked & set(others) else ", ".join(off)

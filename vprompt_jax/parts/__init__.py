"""Parts: how a part declares itself, and what it receives and returns on each side."""

from vprompt_jax.parts.adapter import Adapter
from vprompt_jax.parts.canvas import Canvas
from vprompt_jax.parts.context import Context
from vprompt_jax.parts.head import Head, HeadInputs
from vprompt_jax.parts.loss import LossInputs, Penalty
from vprompt_jax.parts.part import Assignment, Part, Progress, Schedule, Seen, Side, Surroundings
from vprompt_jax.parts.solver import Examples, Found, Solver
from vprompt_jax.parts.text import TextPart
from vprompt_jax.parts.weights import SelectedWeights

__all__ = [
    "Adapter",
    "Assignment",
    "Canvas",
    "Context",
    "Examples",
    "Found",
    "Head",
    "HeadInputs",
    "LossInputs",
    "Part",
    "Penalty",
    "Progress",
    "Schedule",
    "Seen",
    "SelectedWeights",
    "Side",
    "Solver",
    "Surroundings",
    "TextPart",
]

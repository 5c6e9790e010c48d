"""Sections of the config as typed, frozen dataclasses, whose fields say what a key means."""

from vprompt_jax.schema.keys import (
    LARGE,
    Key,
    Optimizer,
    Section,
    TrainedSection,
    key,
    learning_rate,
    optimizer,
)

__all__ = [
    "LARGE",
    "Key",
    "Optimizer",
    "Section",
    "TrainedSection",
    "key",
    "learning_rate",
    "optimizer",
]

"""Datasets as splits of uint8 images, and the order in which a run reads them."""

from vprompt_jax.data.arrays import from_arrays, save
from vprompt_jax.data.load import labelled, load, prepare, text_templates

__all__ = ["from_arrays", "labelled", "load", "prepare", "save", "text_templates"]

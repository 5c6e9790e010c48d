"""The frozen CLIP: towers, tokenizer, preprocessing and weights."""

from vprompt_jax.clip.checkpoints.load import load
from vprompt_jax.clip.model import CLIP, unit_norm
from vprompt_jax.clip.preprocess import preprocess, preprocess_batch
from vprompt_jax.clip.tokenizer import tokenize
from vprompt_jax.clip.variants import CLIPConfig

__all__ = [
    "CLIP",
    "CLIPConfig",
    "load",
    "preprocess",
    "preprocess_batch",
    "tokenize",
    "unit_norm",
]

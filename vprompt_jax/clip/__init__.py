"""The frozen CLIP: towers, tokenizer, preprocessing and weights."""

from vprompt_jax.clip.checkpoints.load import load
from vprompt_jax.clip.config import CLIPConfig, ResNetConfig, TextConfig, ViTConfig
from vprompt_jax.clip.model import CLIP, unit_norm
from vprompt_jax.clip.preprocess import preprocess, preprocess_batch
from vprompt_jax.clip.tokenizer import tokenize

__all__ = [
    "CLIP",
    "CLIPConfig",
    "ResNetConfig",
    "TextConfig",
    "ViTConfig",
    "load",
    "preprocess",
    "preprocess_batch",
    "tokenize",
    "unit_norm",
]

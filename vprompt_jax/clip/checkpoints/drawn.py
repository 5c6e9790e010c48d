"""Public architectures with random weights: as large and as fast as with the real ones."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vprompt_jax.clip.checkpoints import formats, openai
from vprompt_jax.clip.checkpoints.load import variable_shapes
from vprompt_jax.clip.model import CLIP
from vprompt_jax.clip.tokenizer import VOCABULARY
from vprompt_jax.clip.variants import VARIANTS
from vprompt_jax.process.errors import UserError


def random_weights(name: str, dtype: jnp.dtype) -> tuple[CLIP, dict[str, Any]]:
    """Makes a public variant with random weights, which is as fast as with the real ones.

    Raises:
      UserError: if there is no such variant.
    """
    if name not in VARIANTS:
        raise UserError(f"no variant {name!r}; there are {', '.join(VARIANTS)}")
    config = VARIANTS[name]
    if config.text is not None and config.text.tokenizer != "clip":
        # Its vocabulary is not at hand. With random embeddings any will do, at the same speed.
        config = config.with_fields({"text.tokenizer": "clip", "text.vocab_size": VOCABULARY})
    rng = np.random.default_rng(0)
    flat = {}
    for path, shape in variable_shapes(config).items():
        fan_in = max(int(np.prod(shape[:-1])), 1)
        values = rng.standard_normal(shape, np.float32) * fan_in**-0.5
        if path[-1] in ("scale", "var"):
            values = np.ones(shape, np.float32)
        flat[path] = np.asarray(values, np.float32 if len(shape) < 2 else dtype)
    return CLIP(config, dtype), traverse_util.unflatten_dict(flat)


def write(name: str, folder: Path) -> Path:
    """Writes such weights in this package's own layout, in float32; the path of the weights.

    Raises:
      UserError: if there is no such variant.
    """
    clip, variables = random_weights(name, jnp.dtype(jnp.float32))
    path = folder / "random.safetensors"
    flat = traverse_util.flatten_dict(variables)
    formats.write_safetensors(path, openai.to_state_dict(flat), {})
    path.with_suffix(".json").write_text(json.dumps({"clip": dataclasses.asdict(clip.config)}))
    return path

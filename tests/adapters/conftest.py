"""A tiny ViT and a tiny ResNet with everything an adapter needs, in float64 where asked."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.conftest import TINY
from vprompt_jax import clip as clip_lib
from vprompt_jax.adaptation.build import build
from vprompt_jax.adaptation.fold import folded
from vprompt_jax.adaptation.variables import variables_of
from vprompt_jax.clip import CLIP
from vprompt_jax.clip.checkpoints.load import variable_shapes
from vprompt_jax.config import default_config, resolve
from vprompt_jax.parts.context import at_inference

RESNET = dataclasses.replace(
    TINY, vision=clip_lib.ResNetConfig(8, (1, 2), image_resolution=32, heads=2)
)


def random_variables(config: clip_lib.CLIPConfig, seed: int = 0) -> dict:
    """Random variables of a tower, with positive scales and variances."""
    from flax import traverse_util

    rng, flat = np.random.default_rng(seed), {}
    for path, shape in variable_shapes(config).items():
        fan_in = max(int(np.prod(shape[:-1])), 1)
        values = rng.normal(0, fan_in**-0.5, shape)
        if path[-1] in ("scale", "var"):
            values = rng.uniform(0.5, 1.5, shape)
        flat[path] = np.asarray(values, np.float32)
    return traverse_util.unflatten_dict(flat)


class Adapted:
    """A model made from config keys, with its frozen variables and fresh or random parameters."""

    def __init__(self, tower, variables, **keys):
        config = default_config()
        config.method.name = "tp"
        with config.unlocked():
            config.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
        self.config, self.clip = resolve(config), CLIP(tower)
        self.parts = build(self.config, self.clip, variables, classes=5)
        self.model = self.parts.model
        texts = np.random.default_rng(1).normal(size=(5, tower.embed_dim))
        texts /= np.linalg.norm(texts, axis=-1, keepdims=True)
        used = {k: v for k, v in variables["params"].items() if k != "text"}
        self.frozen = {"params": {"clip": used}, "constants": {"text_features": texts}}
        if "batch_stats" in variables:
            self.frozen["batch_stats"] = {"clip": variables["batch_stats"]}

    def params(self, seed: int | None = None):
        """Fresh parameters; with a seed, each is moved by a random tenth."""
        key = jax.random.key(0)
        fresh = self.model.init_parts(key)
        tower = self.frozen["params"]["clip"]["visual"]
        fresh |= {name: part.initial(tower, key) for name, part in self.parts.weights.items()}
        if seed is None:
            return fresh
        rng = np.random.default_rng(seed)
        return jax.tree.map(
            lambda p: np.asarray(p + 0.1 * rng.normal(size=p.shape), p.dtype), fresh
        )

    def variables(self, params):
        return variables_of(params, {}, self.frozen, self.parts.weights)

    def logits(self, params, images):
        return self.model.apply(self.variables(params), images, at_inference(0))[0]

    def features(self, params, pixels):
        return self.model.apply(self.variables(params), pixels, method="features")

    def folded(self, params):
        """The image tower's plain weights with the parts folded into them."""
        return folded(self.parts, params, self.frozen["params"]["clip"]["visual"])


@pytest.fixture(scope="session")
def towers():
    """Name -> (config, variables)."""
    return {name: (c, random_variables(c)) for name, c in (("vit", TINY), ("resnet", RESNET))}


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def pixels():
    return np.random.default_rng(3).normal(size=(3, 32, 32, 3)).astype(np.float32)

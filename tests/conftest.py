"""Every test runs on four virtual CPU devices, with a CLIP small enough to compile in seconds."""

import dataclasses
import functools
import json
import os
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Many tests compile the same small programs, in two workers and in processes that tests start; a
# cache of this session's own, which the workers inherit, keeps the suite short.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import flax.linen as nn
import jax
import numpy as np
import optax
import psutil
import pytest
from flax import traverse_util

from vprompt_jax.clip import CLIP, CLIPConfig, TextConfig, ViTConfig
from vprompt_jax.clip.checkpoints import formats, openai
from vprompt_jax.clip.checkpoints.load import variable_shapes

# Arrays that gain an axis or another dtype by themselves are defects until the code says which.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def _promotes_by_itself(function):
    @functools.wraps(function)
    def promoting(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return promoting


# Flax and Optax rely on it where they divide by a size or multiply by a count of steps.
for _owner, _name in [
    (nn.Dense, "__call__"), (nn.LayerNorm, "__call__"), (nn.BatchNorm, "__call__"),
    (nn, "avg_pool"), (jax.nn, "dot_product_attention"),
]:  # fmt: skip
    setattr(_owner, _name, _promotes_by_itself(getattr(_owner, _name)))
_multi_transform = optax.multi_transform


def _optimizer(*args):
    made = _multi_transform(*args)
    return made._replace(update=_promotes_by_itself(made.update))


optax.multi_transform = _optimizer


@pytest.fixture(autouse=True)
def programs_do_not_pile_up():
    """Forgets compiled programs once they fill the process.

    Each is mapped into memory several times, and a process that has more than 65,530 mappings, as
    many as Linux allows, crashes.
    """
    yield
    if psutil.Process().memory_info().rss > 3 * 2**30:
        jax.clear_caches()


@pytest.fixture
def dtypes_promote():
    """For steps that rely on it otherwise: pretraining, and gradients of attention in bfloat16."""
    with jax.numpy_dtype_promotion("standard"):
        yield


ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"

TINY = CLIPConfig(
    embed_dim=16,
    vision=ViTConfig(width=64, layers=2, heads=1, patch_size=8, image_resolution=32),
    text=TextConfig(width=64, layers=1, heads=1, context_length=16, vocab_size=49408),
)


def random_tensors(config: CLIPConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """An OpenAI-named state dict of random weights."""
    rng = np.random.default_rng(seed)
    flat = {}
    for path, shape in variable_shapes(config).items():
        # Embeddings of size 1 keep the texts of different classes apart.
        fan_in = 1 if path[-1] == "embedding" else max(int(np.prod(shape[:-1])), 1)
        values = rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
        if path[-1] in ("scale", "var"):
            values = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        flat[path] = np.float32(2.0) if path[-1] == "logit_scale" else values
    return openai.to_state_dict(flat)


def abstract_variables(config: CLIPConfig) -> dict:
    """The variables' shapes and dtypes; nothing is allocated."""
    flat = {p: jax.ShapeDtypeStruct(s, "float32") for p, s in variable_shapes(config).items()}
    return traverse_util.unflatten_dict(flat)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory) -> Path:
    """A tiny ViT CLIP with random weights, as a checkpoint file with a config beside it."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    formats.write_safetensors(path, random_tensors(TINY), {})
    path.with_suffix(".json").write_text(json.dumps({"clip": dataclasses.asdict(TINY)}))
    return path


@pytest.fixture(scope="session")
def tiny(tiny_path) -> tuple[CLIP, dict]:
    from vprompt_jax import clip

    return clip.load(tiny_path)


@pytest.fixture
def tiny_config(tiny_path):
    return small_config(tiny_path)


def small_config(checkpoint: Path):
    """A run of a few seconds: AdaViPro, tiny CLIP, embedded digits."""
    from vprompt_jax.config import default_config

    c = default_config()
    c.name = "tiny"
    c.data.few_shot = 320  # training scenes, and 4 of val, per class
    c.model.checkpoint = str(checkpoint)
    c.prompt.size = 4
    c.prompt.learning_rate = 1.0
    c.mask.region = 8
    c.mask.width = 4
    c.mask.learning_rate = 0.1
    c.optim.batch_size = 600
    c.optim.epochs = 2
    c.optim.warmup_steps = 2
    c.eval.every_epochs = 1
    c.eval.batch_size = 1000
    c.log.every_steps = 3
    return c


def leaves_by_path(tree) -> dict[str, np.ndarray]:
    """A nested dictionary's leaves as NumPy arrays, by dotted path."""
    flat = traverse_util.flatten_dict(jax.device_get(tree))
    return {".".join(map(str, k)): np.asarray(v) for k, v in flat.items()}

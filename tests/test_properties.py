"""Whatever a user hands in, the answer is a result or one UserError, never a traceback."""

import io
import json
import shutil

import ml_collections
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.config.test_config import keys_of
from tests.conftest import GOLDEN
from vprompt_jax import clip, data
from vprompt_jax import config as config_lib
from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.process.errors import UserError

KEYS = sorted(keys_of(config_lib.default_config()))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["adavipro", "vp", "linear", "paper", "folder", "zeros", "sobel", "none"]),
    st.just(10**400),
)
# The same examples at every run, no limit of time on a busy machine, no search for the smallest
# failure.
HERE = dict(
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def answer(function, *args):
    """A result and "", or None and the message of a UserError; anything else is a failure."""
    try:
        return function(*args), ""
    except UserError as error:
        return None, str(error)


def with_value(key: str, value) -> ml_collections.ConfigDict:
    """The default with one value, whatever its type."""
    nested = config_lib.default_config().to_dict()
    section, _, field = key.rpartition(".")
    (nested[section] if section else nested)[field] = value
    return ml_collections.ConfigDict(nested)


@settings(max_examples=200, **HERE)
@given(st.sampled_from(KEYS), VALUES)
def test_a_config_resolves_to_a_fixed_point_or_is_refused_by_key(key, value):
    resolved, refusal = answer(config_lib.resolve, with_value(key, value))
    if refusal:
        assert key in refusal
        return
    for stored in (resolved.as_dict(), json.loads(resolved.as_json())):
        again = config_lib.resolve(stored)
        assert again == resolved
        assert again.as_json() == resolved.as_json()


@settings(max_examples=40, **HERE)
@given(st.sampled_from([k for k in KEYS if len(k.split(".")[-1]) > 5]), st.data())
def test_a_misspelt_key_names_the_right_one(key, chosen):
    field = key.rpartition(".")[2]
    at = chosen.draw(st.integers(0, len(field) - 1))
    wrong = key[: len(key) - len(field)] + field[:at] + field[at + 1 :]
    if wrong in KEYS:
        return
    with pytest.raises(UserError, match="unknown config key") as caught:
        config_lib.resolve(with_value(wrong, 1))
    assert f"config.{key}" in str(caught.value).split("did you mean")[1]


def mutated(content: bytes, chosen) -> bytes:
    """Some bytes changed, cut off, removed or repeated."""
    kind = chosen.draw(st.sampled_from(["change", "change the start", "cut", "remove", "repeat"]))
    end = min(len(content), 2000) if kind == "change the start" else len(content)
    a = chosen.draw(st.integers(0, end - 1))
    b = min(a + chosen.draw(st.integers(1, 64)), len(content))
    if kind == "cut":
        return content[:a]
    if kind == "remove":
        return content[:a] + content[b:]
    if kind == "repeat":
        return content[:b] + content[a:]
    new = chosen.draw(st.binary(min_size=b - a, max_size=b - a))
    return content[:a] + new + content[b:]


@pytest.mark.parametrize("name", ["openai_vit_tiny.safetensors", "openai_vit_tiny_jit_fp16.pt"])
@settings(max_examples=40, **HERE)
@given(chosen=st.data())
def test_a_damaged_checkpoint_is_read_or_refused(tmp_path, name, chosen):
    path = tmp_path / name
    path.write_bytes(mutated((GOLDEN / name).read_bytes(), chosen))
    tensors, refusal = answer(formats.read_arrays, path)
    if refusal:
        assert name in refusal
        return
    assert all(isinstance(x, np.ndarray) for x in tensors.values())


@pytest.mark.parametrize("name", ["openai_vit_tiny.safetensors", "openai_vit_tiny_jit_fp16.pt"])
@settings(max_examples=12, **HERE)
@given(chosen=st.data())
def test_tensors_of_other_names_and_shapes_load_or_are_refused(tmp_path, name, chosen):
    tensors = dict(formats.read_arrays(GOLDEN / name))
    for key in chosen.draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=3)):
        if key not in tensors:
            continue
        array = tensors.pop(key)
        change = chosen.draw(st.sampled_from(["drop", "rename", "cut", "flatten", "scalar"]))
        if change == "rename":
            tensors[key + "x"] = array
        elif change == "cut" and array.ndim:
            tensors[key] = array[:-1]
        elif change == "flatten":
            tensors[key] = array.ravel()
        elif change == "scalar":
            tensors[key] = np.zeros((), array.dtype)
    path = tmp_path / "changed.safetensors"
    formats.write_safetensors(path, tensors, {})
    loaded, refusal = answer(clip.load, path)
    if refusal:
        return
    module, variables = loaded
    assert module.config.embed_dim > 0
    assert "visual" in variables["params"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")
    return root


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tiff", "bmp"])
@settings(max_examples=10, **HERE)
@given(chosen=st.data())
def test_a_damaged_image_is_read_or_refused(photos, suffix, chosen):
    pixels = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, {"jpg": "jpeg"}.get(suffix, suffix))
    path = photos / "train" / "dog" / f"damaged.{suffix}"
    path.write_bytes(mutated(written.getvalue(), chosen))
    config = config_lib.default_config()
    config.data.source, config.data.dir, config.protocol = "folder", str(photos), "paper"
    config.data.workers = 1
    resolved = config_lib.resolve(config)
    dataset, refusal = answer(data.load, resolved.data, resolved.protocol, 32)
    path.unlink()
    if refusal:
        assert str(path) in refusal
        return
    images = dataset.train.fetch(np.arange(len(dataset.train)))
    assert images.shape[0] == 5
    assert images.dtype == np.uint8


def test_the_strategies_reach_both_answers(tmp_path):
    """Mutations that are never refused, or always, would test nothing."""
    content = (GOLDEN / "openai_vit_tiny.safetensors").read_bytes()
    path = tmp_path / "c.safetensors"
    shutil.copy(GOLDEN / "openai_vit_tiny.safetensors", path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert formats.read_arrays(path)
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        formats.read_arrays(path)

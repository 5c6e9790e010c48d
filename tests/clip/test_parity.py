"""Features and logits against the recorded outputs of OpenAI's model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vprompt_jax as vp
from tests.conftest import GOLDEN, TINY, random_tensors
from vprompt_jax.clip.checkpoints import formats

FILES = ("openai_vit_tiny.safetensors", "openai_rn_tiny.pt", "openai_vit_tiny_jit_fp16.pt")


def golden(name):
    clip, variables = vp.clip.load(GOLDEN / name)
    return clip, variables, np.load(GOLDEN / f"{name.split('.')[0]}.io.npz")


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("name", FILES)
def test_features_and_logits_agree_with_openai(name):
    clip, variables, io = golden(name)
    images = io["images_nchw"].transpose(0, 2, 3, 1)
    image = clip.apply(variables, images, method="encode_image")
    text = clip.apply(variables, io["tokens"], method="encode_text")
    assert relative_error(image, io["image_features"]) < 1e-4
    assert relative_error(text, io["text_features"]) < 1e-4
    logits = clip.apply(variables, images, io["tokens"])
    assert relative_error(logits, io["logits_per_image"]) < 1e-4


@pytest.mark.parametrize("name", FILES[:2])
def test_stop_and_start_meet_exactly_at_every_position(name):
    clip, variables, io = golden(name)
    images = io["images_nchw"].transpose(0, 2, 3, 1)
    whole = clip.apply(variables, images, method="encode_image")
    for position in range(clip.config.depth + 1):
        below = clip.apply(variables, images, stop=position, method="encode_image")
        above = clip.apply(variables, below, start=position, method="encode_image")
        np.testing.assert_array_equal(above, whole)


@pytest.mark.parametrize("name", FILES[:2])
def test_the_tap_sees_every_position_and_changes_what_follows(name):
    clip, variables, io = golden(name)
    images = io["images_nchw"].transpose(0, 2, 3, 1)
    seen = []

    def add_one_at_1(position, x):
        seen.append(position)
        return x + 1.0 if position == 1 else x

    tapped = clip.apply(variables, images, tap=add_one_at_1, method="encode_image")
    assert seen == list(range(clip.config.depth + 1))
    entering = clip.apply(variables, images, stop=1, method="encode_image")
    by_hand = clip.apply(variables, entering + 1.0, start=1, method="encode_image")
    np.testing.assert_array_equal(tapped, by_hand)


def test_a_position_that_does_not_exist_is_refused():
    clip, variables, io = golden(FILES[0])
    with pytest.raises(ValueError, match=r"position 9 does not exist: this tower has 0\.\.2"):
        clip.apply(variables, io["images_nchw"], stop=9, method="encode_image")


def test_bfloat16_is_close(tmp_path):
    path = tmp_path / "openai.safetensors"
    formats.write_safetensors(path, random_tensors(TINY), {})
    x = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    clip, variables = vp.clip.load(path)
    half, half_variables = vp.clip.load(path, dtype=jnp.bfloat16)
    assert half_variables["params"]["visual"]["proj"].dtype == jnp.bfloat16
    y = clip.apply(variables, x, method="encode_image")
    z = half.apply(half_variables, x, method="encode_image").astype(np.float32)
    assert relative_error(z, np.asarray(y)) < 0.05


def test_activation_override_changes_the_function(tiny_path):
    quick, variables = vp.clip.load(tiny_path)
    exact, _ = vp.clip.load(tiny_path, activation="gelu")
    assert quick.config.vision.activation == quick.config.text.activation == "quick_gelu"
    assert exact.config.vision.activation == exact.config.text.activation == "gelu"
    assert exact.config.with_fields({"activation": "quick_gelu"}) == quick.config
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    a = quick.apply(variables, x, method="encode_image")
    b = exact.apply(variables, x, method="encode_image")
    assert 1e-4 < relative_error(a, np.asarray(b)) < 0.2

"""VP's templates and their parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vprompt_jax.adaptation.model import AdaptedCLIP, Built
from vprompt_jax.heads.text import TextHead
from vprompt_jax.parts.context import at_inference
from vprompt_jax.prompts.vp import VisualPrompt, largest_size, support

pytestmark = pytest.mark.fast
TEXT_HEAD = Built("head", "head", TextHead())


def init(prompt):
    keys = jax.random.split(jax.random.key(7), 1)
    return prompt.init(jax.random.key(0), keys), keys


@pytest.mark.parametrize(
    "template, size, count",
    [
        ("padding", 30, 69_840),  # the published count
        ("padding", 112, 3 * 224 * 224),
        ("fixed_patch", 50, 7_500),
        ("random_patch", 50, 7_500),
    ],
)
def test_parameter_counts(template, size, count):
    params, _ = init(VisualPrompt(template, size, 224))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_padding_frames_the_image():
    params, keys = init(VisualPrompt("padding", 3, 10))
    pixels, where = VisualPrompt("padding", 3, 10).apply(params, keys)
    assert pixels.shape == (1, 10, 10, 3)
    expected = np.ones((10, 10), bool)
    for i, j in np.ndindex(10, 10):
        expected[i, j] = min(i, j, 9 - i, 9 - j) < 3
    np.testing.assert_array_equal(where[0], expected)
    np.testing.assert_array_equal((np.asarray(pixels[0]) != 0).all(-1), expected)


def test_fixed_patch_is_in_the_top_left_corner():
    where = support("fixed_patch", 4, 9)
    assert where[:4, :4].all()
    assert where.sum() == 16


def test_random_patch_reaches_every_place_and_repeats_with_its_key():
    prompt = VisualPrompt("random_patch", 2, 4)
    params, _ = init(prompt)
    keys = jax.random.split(jax.random.key(1), 300)
    pixels, where = prompt.apply(params, keys)
    corners = {tuple(np.argwhere(w)[0]) for w in np.asarray(where)}
    assert corners == {(i, j) for i in range(3) for j in range(3)}
    again, _ = prompt.apply(params, keys)
    np.testing.assert_array_equal(pixels, again)
    values = np.asarray(params["params"]["values"]).reshape(2, 2, 3)
    i, j = np.argwhere(np.asarray(where[5]))[0]
    np.testing.assert_array_equal(pixels[5, i : i + 2, j : j + 2], values)


def test_initialisation():
    params, _ = init(VisualPrompt("padding", 112, 224))
    values = params["params"]["values"]
    assert abs(float(values.mean())) < 0.01
    assert float(values.std()) == pytest.approx(1.0, abs=0.01)
    zeros, _ = init(VisualPrompt("padding", 30, 224, "zeros"))
    assert not zeros["params"]["values"].any()


@pytest.mark.parametrize("template, largest", [("padding", 16), ("fixed_patch", 32)])
def test_the_largest_size_covers_the_image_and_more_is_refused(template, largest):
    assert largest_size(template, 32) == largest
    assert support(template, largest, 32).all()
    with pytest.raises(ValueError, match=rf"size 1\.\.{largest}"):
        support(template, largest + 1, 32)
    with pytest.raises(ValueError, match=r"prompt\.size=0"):
        support(template, 0, 32)


def test_prompts_are_added_as_they_are(tiny):
    """x' = x + P * m: after normalisation, and not clamped."""
    prompt = VisualPrompt("padding", 2, 32)
    model = AdaptedCLIP(tiny[0], (Built("prompt", "pixels", prompt), TEXT_HEAD))
    params = model.init_parts(jax.random.key(0))
    params["prompt"]["values"] = params["prompt"]["values"] * 100
    x = jnp.ones((3, 32, 32, 3))
    canvas = model.apply({"params": params}, x, at_inference(0), method="prompted")
    pixels, _ = prompt.apply({"params": params["prompt"]}, jax.random.split(jax.random.key(0), 1))
    np.testing.assert_array_equal(canvas.result, x + pixels)
    np.testing.assert_array_equal(canvas.shown["prompt"], pixels)
    assert np.abs(canvas.result).max() > 100

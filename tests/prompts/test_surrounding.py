"""EVP's prompt against Pillow and NumPy, its parameter count, and its normalised gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from tests.adapters.conftest import Adapted, random_variables
from tests.conftest import TINY
from vprompt_jax.inference import adapted
from vprompt_jax.parts import Canvas
from vprompt_jax.parts.context import at_inference
from vprompt_jax.process.errors import UserError
from vprompt_jax.prompts.surrounding import PART, SurroundingPrompt, SurroundingSection
from vprompt_jax.train import fit

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.5)


def prompted(prompt, params, x):
    return prompt.apply({"params": params}, Canvas(x), at_inference(0), method="prompted")


@pytest.mark.fast
def test_the_parameter_count_is_that_of_a_frame():
    prompt = SurroundingPrompt("padding", 30, 224, "zeros", MEAN, STD)
    params = prompt.init(jax.random.key(0), None)["params"]
    assert params["values"].size == 69_840
    assert not params["values"].any()


def test_the_image_is_shrunk_and_framed_before_normalisation():
    """normalise(pad(shrink(image)) + frame), the image shrunk by Pillow."""
    prompt = SurroundingPrompt("padding", 5, 24, "zeros", MEAN, STD)
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(40, 200, (2, 4, 4, 3)), 6, 1), 6, 2)
    frame = np.zeros((24, 24, 3), np.float32)
    outside = np.ones((24, 24), bool)
    outside[5:19, 5:19] = False
    frame[outside] = rng.normal(size=(outside.sum(), 3))
    normalised = ((smooth / 255 - MEAN) / STD).astype(np.float32)
    canvas = prompted(prompt, {"values": jnp.asarray(frame[outside])}, jnp.asarray(normalised))
    for i, image in enumerate(smooth.astype(np.uint8)):
        small = Image.fromarray(image).resize((14, 14), Image.Resampling.BICUBIC)
        whole = np.zeros((24, 24, 3))
        whole[5:19, 5:19] = np.asarray(small) / 255
        expected = (whole + frame - MEAN) / STD
        error = np.abs(np.asarray(canvas.result[i]) - expected) * STD
        assert error.max() < 2.1 / 255  # Pillow rounds to grey levels after each of two passes
    np.testing.assert_array_equal(canvas.support[0], outside)


def test_a_step_has_the_length_of_the_rate():
    optimizer = PART.transform(SurroundingSection(), optax.sgd(7.0))
    gradient = {"values": jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)}
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    length = np.linalg.norm(gradient["values"])
    np.testing.assert_allclose(updates["values"], -7.0 * gradient["values"] / length, rtol=1e-5)


def test_a_frame_that_leaves_no_image_is_refused():
    with pytest.raises(UserError, match=r"leaves nothing of an image of 32 pixels: choose 1\.\.15"):
        Adapted(TINY, random_variables(TINY), prompt__template="around", prompt__size=16)


def test_a_run_trains_shows_its_prompt_and_takes_a_mask(tiny_config, tmp_path):
    tiny_config.method.name = "evp"
    tiny_config.data.few_shot = 8
    tiny_config.optim.batch_size = 40
    result = fit(tiny_config, tmp_path / "alone")
    assert result["trainable_parameters"] == 3 * (32**2 - 24**2)
    model = adapted.load(tmp_path / "alone")
    assert np.abs(model.prompt).max() > 0
    assert not model.prompt[4:-4, 4:-4].any()
    tiny_config.mask.kind = "adavipro"
    assert fit(tiny_config, tmp_path / "masked")["regions_on"] is not None

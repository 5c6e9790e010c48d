"""AutoVP's prompt against SciPy, its parameter count, and the limits of its scale."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage

from tests.adapters.conftest import Adapted, random_variables
from tests.conftest import TINY
from vprompt_jax.clip.preprocess import resize_matrix
from vprompt_jax.export import files as export
from vprompt_jax.inference import adapted
from vprompt_jax.parts import Canvas
from vprompt_jax.parts.context import at_inference
from vprompt_jax.process.errors import UserError
from vprompt_jax.prompts.scaled import PART, ScaledPrompt, ScaledSection
from vprompt_jax.train import fit

SIDE, SOURCE = 30, 17  # 128/224 of 30; 13 pixels around it, 7 of them before it
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
VALUES = RNG.normal(size=(SIDE, SIDE, 3)).astype(np.float32)


def prompted(scale, images=IMAGES, values=VALUES):
    params = {"params": {"values": values, "scale": jnp.float32(scale)}}
    return ScaledPrompt(SIDE).apply(params, Canvas(images), at_inference(0), method="prompted")


def placed(image, scale):
    """The image of scale 1 padded with zeros, and that scaled about its middle, in float64."""
    smaller = resize_matrix(SIDE, SOURCE).astype(np.float64)
    small = np.einsum("hwc,ih,jw->ijc", image.astype(np.float64), smaller, smaller)
    padded = np.pad(small, ((7, 6), (7, 6), (0, 0)))
    middle = (SIDE - 1) / 2
    matrix = np.array([1 / scale, 1 / scale, 1.0])
    offset = np.array([middle - middle / scale, middle - middle / scale, 0.0])
    return ndimage.affine_transform(padded, matrix, offset, order=1, mode="grid-constant")


@pytest.mark.fast
def test_the_parameters_are_a_frame_and_a_scale():
    canvas = Canvas(jnp.zeros((1, 224, 224, 3)))
    prompt = ScaledPrompt(224)
    params = prompt.init(jax.random.key(0), canvas, at_inference(0), method="prompted")["params"]
    assert sum(p.size for p in params.values()) == 3 * 224**2 + 1 == 150_529
    assert prompt.source == 128
    assert params["scale"] == 1.5
    assert not params["values"].any()


@pytest.mark.fast
@pytest.mark.parametrize("scale,first,last", [(0.4, 12, 18), (1.0, 6, 23), (1.5, 2, 27)])
def test_the_image_is_scaled_and_framed(scale, first, last):
    canvas = prompted(scale)
    frame = VALUES.copy()
    frame[first:last, first:last] = 0
    for i, image in enumerate(IMAGES):
        expected = placed(image, scale) + frame
        np.testing.assert_allclose(canvas.result[i], expected, rtol=1e-4, atol=1e-4)
    outside = np.ones((SIDE, SIDE), bool)
    outside[first:last, first:last] = False
    np.testing.assert_array_equal(canvas.support[0], outside)
    np.testing.assert_array_equal(canvas.metrics["image_scale"], np.float32([scale, scale]))


@pytest.mark.fast
def test_an_image_larger_than_the_frame_leaves_no_prompt():
    canvas = prompted(3.0)
    assert not canvas.support.any()
    np.testing.assert_allclose(canvas.result[0], placed(IMAGES[0], 3.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.43, 1.31, 2.17])
def test_the_gradient_for_the_scale_is_that_of_the_interpolation(scale):
    weights = RNG.normal(size=IMAGES.shape)

    def total(s):
        return sum((placed(image, s) * w).sum() for image, w in zip(IMAGES, weights, strict=True))

    step = 1e-6
    measured = (total(scale + step) - total(scale - step)) / (2 * step)
    slope = jax.grad(lambda s: (prompted(s).result * weights.astype(np.float32)).sum())(scale)
    assert float(slope) == pytest.approx(measured, rel=1e-3)


@pytest.mark.fast
def test_the_scales_gradient_and_the_scale_are_limited():
    optimizer = PART.transform(ScaledSection(), optax.sgd(40.0))
    params = {"values": jnp.zeros(3), "scale": jnp.float32(4.98)}
    gradient = {"values": jnp.float32([1.0, -2.0, 3.0]), "scale": jnp.float32(0.3)}
    updates, state = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(updates["values"], [-40, 80, -120])
    assert float(updates["scale"]) == pytest.approx(-0.04, rel=1e-5)
    up = {**gradient, "scale": jnp.float32(-0.3)}
    updates, _ = optimizer.update(up, state, params)
    assert float(params["scale"] + updates["scale"]) == pytest.approx(5.0)
    low = {**params, "scale": jnp.float32(0.11)}
    updates, _ = optimizer.update(gradient, state, low)
    assert float(low["scale"] + updates["scale"]) == pytest.approx(0.1)


def test_a_scale_beyond_the_limits_is_refused():
    with pytest.raises(UserError, match=r"prompt\.scale=6.*0\.1"):
        Adapted(TINY, random_variables(TINY), prompt__template="around_scaled", prompt__scale=6.0)


def test_a_run_trains_its_scale_is_exported_and_takes_a_mask(tiny_config, tmp_path):
    tiny_config.method.name = "auto_vp"
    tiny_config.data.few_shot = 8
    tiny_config.optim.batch_size = 40
    result = fit(tiny_config, tmp_path / "alone")
    assert result["trainable_parameters"] == 3 * 32**2 + 1
    assert result["prompt_size"] == (32 - 27) // 2
    model = adapted.load(tmp_path / "alone")
    assert float(model.params["prompt"]["scale"]) != 1.5
    assert np.abs(model.prompt).max() > 0
    images = RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    export.write(model, tmp_path / "export")
    logits = export.load(tmp_path / "export").logits(images)
    np.testing.assert_allclose(logits, model.logits(images), rtol=1e-4, atol=1e-4)
    tiny_config.mask.kind = "adavipro"
    assert fit(tiny_config, tmp_path / "masked")["regions_on"] is not None

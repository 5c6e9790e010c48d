"""The device's resize against Pillow's."""

import numpy as np
import pytest
from PIL import Image

from vprompt_jax import clip
from vprompt_jax.clip.preprocess import MEAN, STD, preprocess, preprocess_batch

SIZES = [(32, 32, 224), (224, 224, 224), (48, 32, 64), (500, 375, 224), (97, 211, 64), (7, 9, 32)]


@pytest.mark.parametrize("height, width, resolution", SIZES)
def test_device_agrees_with_pillow_within_one_grey_level(height, width, resolution):
    rng = np.random.default_rng(height)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 2] = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    device = np.asarray(preprocess_batch(image[None], resolution))[0]
    host = preprocess(Image.fromarray(image), resolution)
    assert device.shape == host.shape == (resolution, resolution, 3)
    levels = np.abs(device - host) * STD * 255
    assert levels.max() < 1.01


def test_normalisation():
    white = clip.preprocess(np.full((8, 8, 3), 255, np.uint8), 8)
    np.testing.assert_allclose(white[0, 0], (1 - MEAN) / STD, rtol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(mode):
    image = Image.new("RGB", (20, 30), (200, 30, 90)).convert(mode)
    assert clip.preprocess(image, 16).shape == (16, 16, 3)

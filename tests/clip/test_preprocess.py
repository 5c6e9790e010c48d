"""The device's resize against Pillow's, and images of every kind."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from vprompt_jax import clip
from vprompt_jax.clip.preprocess import MEAN, STD, preprocess, preprocess_batch, resize_and_crop

pytestmark = pytest.mark.fast

SIZES = [(32, 32, 224), (224, 224, 224), (48, 32, 64), (500, 375, 224), (97, 211, 64), (7, 9, 32),
         (1, 1, 8), (1, 5, 8), (33, 1, 8), (31, 517, 16)]  # fmt: skip


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


def test_a_tower_with_other_statistics_is_given_them():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    half = (0.5, 0.5, 0.5)
    expected = image / 127.5 - 1
    np.testing.assert_allclose(clip.preprocess(image, 8, half, half), expected, atol=1e-6)
    device = preprocess_batch(image[None], 8, half, half)[0]
    np.testing.assert_allclose(device, expected, atol=1e-6)


def gradient(mode, size=(40, 24)):
    """An image whose left half is dark and right half bright, its lower half reddish."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, size[0] // 2 :] = 200
    pixels[size[1] // 2 :, :, 0] = 255
    return Image.fromarray(pixels).convert(mode)


def as_file(image, kind, **options):
    """What comes back from a file, as a user's image does."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize(
    "kind, mode", [("PNG", "L"), ("PNG", "LA"), ("PNG", "RGBA"), ("PNG", "1"), ("TIFF", "CMYK"),
                   ("PNG", "P"), ("GIF", "P")]
)  # fmt: skip
def test_other_modes_look_like_themselves(kind, mode):
    image = as_file(gradient(mode), kind)
    # Away from the edges, resizing changes nothing, so the colours must be those Pillow converts.
    ours = resize_and_crop(image, 12)
    theirs = np.asarray(image.convert("RGB").resize((20, 12)).crop((4, 0, 16, 12)))
    for row, column in ((1, 1), (1, 10), (10, 1), (10, 10)):
        difference = ours[row, column].astype(int) - theirs[row, column]
        assert np.abs(difference).max() <= 1, (row, column)


def test_a_transparent_palette_keeps_its_colours():
    image = gradient("RGB").quantize(4)  # its four colours exactly
    image = as_file(image, "PNG", transparency=image.getpixel((0, 0)))
    assert image.mode == "P"
    assert "transparency" in image.info
    ours = resize_and_crop(image, 12)
    assert np.abs(ours[10, 10].astype(int) - (255, 200, 200)).max() <= 1


def test_sixteen_bits_keep_their_contrast():
    levels = np.linspace(0, 65535, 64).astype(np.uint16)
    image = as_file(Image.fromarray(np.tile(levels, (64, 1))), "PNG")
    assert image.mode.startswith("I")
    ours = resize_and_crop(image, 64)
    np.testing.assert_array_equal(ours[5, :, 0], np.round(levels / 257))
    assert (np.diff(ours[5, :, 0].astype(int)) > 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = as_file(gradient("RGB"), "PNG", exif=exif)
    upright = ImageOps.exif_transpose(image)
    assert upright.size == ((24, 40) if orientation > 4 else (40, 24))
    np.testing.assert_array_equal(
        resize_and_crop(image, 16), resize_and_crop(np.asarray(upright), 16)
    )

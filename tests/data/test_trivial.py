"""TrivialAugment's and RandAugment's operations against Pillow's, as torchvision applies them."""

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vprompt_jax.data.augment import augment
from vprompt_jax.data.trivial import _RAND, OPERATIONS

RNG = np.random.default_rng(0)
# Noise, and a smooth picture, whose levels are few.
PICTURES = [
    RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8),
    np.repeat(np.repeat(RNG.integers(40, 90, (6, 8, 3), dtype=np.uint8), 4, 0), 4, 1),
    np.full((24, 32, 3), 77, np.uint8),
]


def affine(picture, *matrix):
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix)


def enhanced(kind):
    return lambda picture, level, sign: kind(picture).enhance(1 + 0.99 * level * sign)


BY_PILLOW = {
    "identity": lambda picture, level, sign: picture,
    "shear_x": lambda picture, level, sign: affine(picture, 1, 0.99 * level * sign, 0, 0, 1, 0),
    "shear_y": lambda picture, level, sign: affine(picture, 1, 0, 0, 0.99 * level * sign, 1, 0),
    "translate_x": lambda p, level, sign: affine(p, 1, 0, -sign * int(32 / 7 * level), 0, 1, 0),
    "translate_y": lambda p, level, sign: affine(p, 1, 0, 0, 0, 1, -sign * int(24 / 7 * level)),
    "rotate": lambda picture, level, sign: picture.rotate(135 * level * sign),
    "brightness": enhanced(ImageEnhance.Brightness),
    "color": enhanced(ImageEnhance.Color),
    "contrast": enhanced(ImageEnhance.Contrast),
    "sharpness": enhanced(ImageEnhance.Sharpness),
    "posterize": lambda picture, level, sign: ImageOps.posterize(picture, 8 - round(6 * level)),
    "solarize": lambda picture, level, sign: ImageOps.solarize(picture, 255 * (1 - level)),
    "autocontrast": lambda picture, level, sign: ImageOps.autocontrast(picture),
    "equalize": lambda picture, level, sign: ImageOps.equalize(picture),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_what_pillow_gives(name):
    operation = jax.jit(OPERATIONS[name])
    for pixels in PICTURES:
        for level in (0.0, 0.1, 0.4, 0.7, 1.0):
            for sign in (-1.0, 1.0):
                arguments = (np.float32(level), np.float32(sign))
                found = np.asarray(operation(pixels.astype(np.float32), *arguments))
                expected = np.asarray(BY_PILLOW[name](Image.fromarray(pixels), level, sign))
                # A level may fall to either side in float32; so may a place between two pixels, as
                # all of a diagonal is after 135 degrees.
                differ = np.abs(found - expected.astype(np.float32)) > 1
                allowed = {"rotate": 0.04, "shear_x": 0.02, "shear_y": 0.02}
                assert differ.mean() <= allowed.get(name, 0.0)
                np.testing.assert_array_equal(found, np.round(found))


def test_rand_augment_has_torchvisions_strengths():
    """Magnitude 9 of 31: 0.09, 45 / 331 of the side, 9 degrees, 0.27, 7 bits, 178.5."""
    pixels = PICTURES[0]
    picture = Image.fromarray(pixels)
    move_x, move_y = (int(150 / 331 * side * 0.3) for side in (32, 24))
    expected = {
        "shear_x": affine(picture, 1, 0.09, 0, 0, 1, 0),
        "shear_y": affine(picture, 1, 0, 0, 0.09, 1, 0),
        "translate_x": affine(picture, 1, 0, -move_x, 0, 1, 0),
        "translate_y": affine(picture, 1, 0, 0, 0, 1, -move_y),
        "rotate": picture.rotate(9),
        "brightness": ImageEnhance.Brightness(picture).enhance(1.27),
        "color": ImageEnhance.Color(picture).enhance(1.27),
        "contrast": ImageEnhance.Contrast(picture).enhance(1.27),
        "sharpness": ImageEnhance.Sharpness(picture).enhance(1.27),
        "posterize": ImageOps.posterize(picture, 7),
        "solarize": ImageOps.solarize(picture, 178.5),
    }
    for name, right in expected.items():
        level = np.float32(0.3 * _RAND.get(name, 1.0))
        found = np.asarray(jax.jit(OPERATIONS[name])(pixels.astype(np.float32), level, 1.0))
        differ = np.abs(found - np.asarray(right, np.float32)) > 1
        assert differ.mean() <= (0.04 if name in ("rotate", "shear_x", "shear_y") else 0), name


def test_rand_augment_applies_two_operations_that_the_key_alone_chooses():
    pixels = np.repeat(PICTURES[0][None], 40, 0)
    keys = jax.vmap(jax.random.key)(np.arange(40, dtype=np.uint32))
    run = jax.jit(augment, static_argnums=2)
    whole = np.asarray(run(pixels, keys, "rand"))
    np.testing.assert_array_equal(run(pixels[7:11], keys[7:11], "rand"), whole[7:11])
    operations = {name: jax.jit(operation) for name, operation in OPERATIONS.items()}
    names = list(operations)
    for key, found in zip(keys, whole, strict=True):
        image = pixels[0].astype(np.float32)
        for one in jax.random.split(key, 2):
            which, sign = jax.random.split(one)
            name = names[int(jax.random.randint(which, (), 0, 14))]
            signed = np.float32(1 if jax.random.bernoulli(sign) else -1)
            level = np.float32(0.3 * _RAND.get(name, 1.0))
            image = np.asarray(operations[name](image, level, signed))
        assert (np.abs(found - image) > 1).mean() < 0.05


def test_draws_are_of_every_operation_and_depend_on_the_key_alone():
    pixels = np.repeat(PICTURES[0][None], 280, 0)
    keys = jax.vmap(jax.random.key)(np.arange(280, dtype=np.uint32))
    run = jax.jit(augment, static_argnums=2)
    whole = np.asarray(run(pixels, keys, "trivial"))
    np.testing.assert_array_equal(run(pixels[40:60], keys[40:60], "trivial"), whole[40:60])
    operations = jax.vmap(lambda key: jax.random.randint(jax.random.split(key, 3)[0], (), 0, 14))
    counts = np.bincount(np.asarray(operations(keys)), minlength=14)
    assert counts.min() >= 8  # 20 each on average
    unchanged = (whole == pixels).all((1, 2, 3))
    assert unchanged[np.asarray(operations(keys)) == 0].all()
    assert unchanged.mean() < 0.25
    assert whole.min() >= 0
    assert whole.max() <= 255

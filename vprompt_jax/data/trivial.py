"""TrivialAugment and RandAugment (arXiv 2103.10158, 1909.13719), inside the compiled step.

The operations and their ranges are those of torchvision's `TrivialAugmentWide` and `RandAugment`,
whose results on Pillow's images these have. Ours: TrivialAugment's moves are in proportion to the
image, 32 pixels at 224.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_BINS = 31  # strengths per operation
_STRENGTH = 9  # of RandAugment's operations, counted from 0
# The largest strengths that RandAugment's operations have, over those of TrivialAugment's.
_RAND = {
    "shear_x": 0.3 / 0.99,
    "shear_y": 0.3 / 0.99,
    "translate_x": (150 / 331) / (32 / 224),
    "translate_y": (150 / 331) / (32 / 224),
    "rotate": 30 / 135,
    "brightness": 0.9 / 0.99,
    "color": 0.9 / 0.99,
    "contrast": 0.9 / 0.99,
    "sharpness": 0.9 / 0.99,
    "posterize": 4 / 6,
}
_GREY = (19595, 38470, 7471)  # weights of Pillow's grey values, of 65536


def trivial(image: jax.Array, key: jax.Array) -> jax.Array:
    """Applies one operation of a random kind, strength and sign to an image.

    Args:
      image: [h, w, 3], whole grey levels 0..255.
      key: of the example.

    Returns:
      float32 [h, w, 3], whole grey levels.
    """
    which, strength, sign = jax.random.split(key, 3)
    op = jax.random.randint(which, (), 0, len(OPERATIONS))
    level = jax.random.randint(strength, (), 0, _BINS).astype(jnp.float32) / (_BINS - 1)
    return _changed(image.astype(jnp.float32), op, level, sign)


def rand(image: jax.Array, key: jax.Array) -> jax.Array:
    """Applies two operations of random kinds and signs, both of torchvision's default strength.

    Arguments and result are those of `trivial`.
    """
    image = image.astype(jnp.float32)
    shares = jnp.asarray([_RAND.get(name, 1.0) for name in OPERATIONS], jnp.float32)
    for one in jax.random.split(key, 2):
        which, sign = jax.random.split(one)
        op = jax.random.randint(which, (), 0, len(OPERATIONS))
        image = _changed(image, op, shares[op] * (_STRENGTH / (_BINS - 1)), sign)
    return image


def _changed(image: jax.Array, op: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    """An image after an operation, by its number, with a sign that the key `sign` draws."""
    signed = jnp.where(jax.random.bernoulli(sign), 1.0, -1.0)
    return jax.lax.switch(op, list(OPERATIONS.values()), image, level, signed)


def _moved(image: jax.Array, x: tuple[jax.Array, ...], y: tuple[jax.Array, ...]) -> jax.Array:
    """Samples the nearest pixels at x = a i + b j + c, y likewise; black outside.

    Places i, j are those of the pixels' centres.
    """
    height, width = image.shape[:2]
    j, i = (np.arange(n, dtype=np.float32) + 0.5 for n in (height, width))
    at = [jnp.floor(a * i[None] + b * j[:, None] + c).astype(jnp.int32) for a, b, c in (x, y)]
    inside = (at[0] >= 0) & (at[0] < width) & (at[1] >= 0) & (at[1] < height)
    found = image[jnp.clip(at[1], 0, height - 1), jnp.clip(at[0], 0, width - 1)]
    return jnp.where(inside[..., None], found, 0.0)


def _numbers(*values: jax.Array | float) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(value, jnp.float32) for value in values)


def shear_x(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    return _moved(image, _numbers(1.0, 0.99 * level * sign, 0.0), _numbers(0.0, 1.0, 0.0))


def shear_y(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    return _moved(image, _numbers(1.0, 0.0, 0.0), _numbers(0.99 * level * sign, 1.0, 0.0))


def translate_x(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    shift = jnp.trunc(image.shape[1] * 32 / 224 * level) * sign
    return _moved(image, _numbers(1.0, 0.0, -shift), _numbers(0.0, 1.0, 0.0))


def translate_y(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    shift = jnp.trunc(image.shape[0] * 32 / 224 * level) * sign
    return _moved(image, _numbers(1.0, 0.0, 0.0), _numbers(0.0, 1.0, -shift))


def rotate(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    """By up to 135 degrees around the centre; positive is counter-clockwise."""
    angle = -jnp.deg2rad(135.0 * level * sign)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    v, u = (n / 2 for n in image.shape[:2])
    return _moved(image, (cos, sin, u - cos * u - sin * v), (-sin, cos, v + sin * u - cos * v))


def _blended(image: jax.Array, other: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    """other + f (image - other) with f = 1 + 0.99 level sign, cut off to whole grey levels."""
    factor = 1.0 + 0.99 * level * sign
    return jnp.floor(jnp.clip(other + factor * (image - other), 0.0, 255.0))


def _grey(image: jax.Array) -> jax.Array:
    whole = image.astype(jnp.int32) @ jnp.asarray(_GREY, jnp.int32)
    return ((whole + 0x8000) >> 16).astype(jnp.float32)[..., None]


def brightness(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    return _blended(image, jnp.zeros_like(image), level, sign)


def color(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    return _blended(image, _grey(image), level, sign)


def contrast(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    mean = jnp.floor(_grey(image).mean() + 0.5)
    return _blended(image, jnp.broadcast_to(mean, image.shape), level, sign)


def sharpness(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    """Between the image and one that is smoothed over 3 x 3 pixels, but for its border."""
    height, width = image.shape[:2]
    rows = [image[i : height - 2 + i] for i in range(3)]
    around = sum(row[:, j : width - 2 + j] for row in rows for j in range(3))
    smooth = jnp.floor((around + 4.0 * image[1:-1, 1:-1]) / 13.0 + 0.5)
    return _blended(image, image.at[1:-1, 1:-1].set(smooth), level, sign)


def posterize(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    """Keeps the upper 8 to 2 bits."""
    del sign
    step = 2.0 ** jnp.round(6.0 * level)
    return jnp.floor(image / step) * step


def solarize(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    """Inverts what is at or above a threshold, 255 to 0."""
    del sign
    return jnp.where(image >= 255.0 * (1.0 - level), 255.0 - image, image)


def _by_channel(
    change: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """An operation without strength, which changes every channel [h, w] by itself."""

    @functools.wraps(change)
    def operation(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
        del level, sign
        return jax.vmap(change, in_axes=-1, out_axes=-1)(image)

    return operation


@_by_channel
def autocontrast(channel: jax.Array) -> jax.Array:
    """Stretches the levels to 0..255."""
    low, high = channel.min(), channel.max()
    scale = 255.0 / jnp.maximum(high - low, 1.0)
    stretched = jnp.clip(jnp.trunc(channel * scale - low * scale), 0.0, 255.0)
    return jnp.where(high > low, stretched, channel)


@_by_channel
def equalize(channel: jax.Array) -> jax.Array:
    """Spreads the levels so that all are about as frequent, as Pillow counts them."""
    levels = channel.astype(jnp.int32)
    histogram = jnp.zeros(256, jnp.int32).at[levels.ravel()].add(1)
    # The pixels of the highest level do not count.
    step = (channel.size - histogram[levels.max()]) // 255
    before = jnp.cumsum(histogram) - histogram
    table = (step // 2 + before) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.clip(table[levels], 0, 255).astype(jnp.float32), channel)


def identity(image: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    del level, sign
    return image


OPERATIONS: dict[str, Callable[..., jax.Array]] = {
    operation.__name__: operation
    for operation in (
        identity,
        shear_x,
        shear_y,
        translate_x,
        translate_y,
        rotate,
        brightness,
        color,
        contrast,
        sharpness,
        posterize,
        solarize,
        autocontrast,
        equalize,
    )
}

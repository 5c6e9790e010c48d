"""The mini CLIPs' architectures, and how their training images are staged and distorted."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vprompt_jax.clip.config import CLIPConfig, ResNetConfig, TextConfig, ViTConfig

_TEXT = TextConfig(width=64, layers=2, heads=1, context_length=32, vocab_size=49408)
TOWERS = {
    "rn": CLIPConfig(64, ResNetConfig(32, (1, 1, 1), image_resolution=32, heads=8), _TEXT),
    # Six blocks, so that a sweep over layers has something to show; 17 tokens, for speed.
    "vit": CLIPConfig(
        64, ViTConfig(64, layers=6, heads=2, patch_size=8, image_resolution=32), _TEXT
    ),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a mini CLIP is trained; every value was chosen on unseen photographs and renderings."""

    tower: str = "rn"  # a name of `TOWERS`
    text_from: str = ""  # a CLIP whose text tower is taken over; "" to train one
    renderings: int = 100_000  # images of glyphs
    steps: int = 6_000  # of the image tower
    text_steps: int = 2_000
    photos: int = 192  # photographs in a batch
    glyphs: int = 160  # glyphs in a batch
    words: int = 256  # words in a batch, beside a caption of every class
    learning_rate: float = 1e-3  # of the image tower
    text_learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    label_smoothing: float = 0.1
    shift: int = 4  # pixels by which an image is moved, at most
    plain_fraction: float = 0.0  # share of steps, at first, with bright glyphs on black
    ramp_fraction: float = 0.1  # share of steps to bring in scenes
    seed: int = 0

    @property
    def config(self) -> CLIPConfig:
        return TOWERS[self.tower]

    def scenes(self, step: jax.Array) -> jax.Array:
        """How much of a scene a rendering shows after `step` steps: 0 (the bare glyph) to 1."""
        if not self.plain_fraction:
            return jnp.ones(())
        return jnp.clip((step / self.steps - self.plain_fraction) / self.ramp_fraction, 0, 1)


# Differences from the defaults. In a scene, a glyph is as often dark on bright as bright on dark.
# So, on average, no pixel of a patch says anything about the class, and a ViT, whose first layer is
# linear in its patches, stays near chance for thousands of steps. It therefore starts with glyphs
# of one polarity. Its steps are shorter than the ResNet's, and it needs more of them.
RECIPES: dict[str, dict[str, Any]] = {
    "rn": {},
    "vit": dict(
        text_from="mini-clip-rn",
        steps=12_000,
        learning_rate=2e-3,
        warmup_steps=500,
        plain_fraction=0.1,
    ),
}


def plain(x: jax.Array) -> jax.Array:
    """Turns normalised images [B, R, R, 3] grey: a pixel's distance from the rim's mean colour."""
    rim = jnp.concatenate([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], axis=1).mean(1)
    distance = jnp.linalg.norm(x - rim[:, None, None], axis=-1, keepdims=True)
    distance = distance / jnp.maximum(distance.max((1, 2, 3), keepdims=True), 1e-6)
    return jnp.broadcast_to(3 * distance - 1, x.shape)


def moved(key: jax.Array, x: jax.Array, most: int) -> jax.Array:
    """Moves every image of [B, R, R, 3] by up to `most` pixels; what comes in is mirrored."""
    side = x.shape[1]
    wide = jnp.pad(x, ((0, 0), (most, most), (most, most), (0, 0)), mode="reflect")
    corners = jax.random.randint(key, (len(x), 2), 0, 2 * most + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (side, side, 3))

    return jax.vmap(cut)(wide, corners)


def flipped(key: jax.Array, x: jax.Array) -> jax.Array:
    """Mirrors every second image of [B, R, R, 3], at random, from left to right."""
    flips = jax.random.bernoulli(key, 0.5, (len(x), 1, 1, 1))
    return jnp.where(flips, x[:, :, ::-1], x)


def blurred(key: jax.Array, x: jax.Array) -> jax.Array:
    """Blurs normalised images [B, R, R, 3] and changes their brightness, each at random."""
    keys = jax.random.split(key, 3)

    def per_image(key: jax.Array, low: float, high: float) -> jax.Array:
        return jax.random.uniform(key, (len(x), 1, 1, 1), minval=low, maxval=high)

    around = [jnp.roll(x, s, axis) for axis in (1, 2) for s in (-1, 1)]
    x = x + (sum(around) / 4 - x) * per_image(keys[0], -0.8, 0.8).clip(0)
    return x * (1 + per_image(keys[1], -0.4, 0.2)) + per_image(keys[2], -0.4, 0.4)

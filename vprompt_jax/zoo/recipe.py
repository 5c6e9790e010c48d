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
    """How a mini CLIP is trained; every value was chosen on unseen renderings alone."""

    tower: str = "rn"  # a name of `TOWERS`
    text_from: str = ""  # a CLIP whose text tower is taken over, frozen; "" for none
    images: int = 60_000
    steps: int = 4_000
    batch: int = 128
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_fraction: float = 0.08
    label_smoothing: float = 0.1
    logit_scale: float = 10.0
    noise: float = 1.0  # largest standard deviation of noise on normalised pixels
    border: int = 10  # largest width of a noisy border, in pixels
    plain_fraction: float = 0.0  # share of steps, at first, with bright glyphs on black
    ramp_fraction: float = 0.3  # share of steps to bring in scenes, and again distortions
    seed: int = 0

    @property
    def config(self) -> CLIPConfig:
        return TOWERS[self.tower]

    def stage(self, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Strength of the scenes and of the distortions after `step` steps, each in 0..1."""
        time, ramp = step / self.steps - self.plain_fraction, self.ramp_fraction
        if not self.plain_fraction:
            return jnp.ones(()), jnp.clip(time / ramp, 0, 1)
        return jnp.clip(time / ramp, 0, 1), jnp.clip(time / ramp - 1, 0, 1)


# Differences from the defaults. In a scene, a glyph is as often dark on bright as bright on dark.
# So, on average, no pixel of a patch says anything about the class, and the ViT, whose first layer
# is linear in its patches, stayed near chance for thousands of steps. It therefore starts with
# glyphs of one polarity.
RECIPES: dict[str, dict[str, Any]] = {
    "rn": {},
    "vit": dict(
        text_from="mini-clip-rn",
        steps=8_000,
        learning_rate=2e-3,
        plain_fraction=0.3,
        ramp_fraction=0.2,
    ),
}


def plain(x: jax.Array) -> jax.Array:
    """Turns normalised images [B, R, R, 3] grey: a pixel's distance from the rim's mean colour."""
    rim = jnp.concatenate([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], axis=1).mean(1)
    distance = jnp.linalg.norm(x - rim[:, None, None], axis=-1, keepdims=True)
    distance = distance / distance.max((1, 2, 3), keepdims=True)
    return jnp.broadcast_to(3 * distance - 1, x.shape)


def augment(key: jax.Array, x: jax.Array, strength: jax.Array, recipe: Recipe) -> jax.Array:
    """Blurs normalised images [B, R, R, 3], changes their brightness, adds noise and borders.

    Each distortion has a random strength per image, and `strength`, in 0..1, scales all of them.
    """
    batch, side = x.shape[:2]
    k = jax.random.split(key, 9)

    def per_image(key: jax.Array, low: float, high: float) -> jax.Array:
        return jax.random.uniform(key, (batch, 1, 1, 1), minval=low, maxval=high)

    around = [jnp.roll(x, s, axis) for axis in (1, 2) for s in (-1, 1)]
    x = x + (sum(around) / 4 - x) * per_image(k[0], -0.8, 0.8).clip(0) * strength
    x = x * (1 + strength * per_image(k[1], -0.4, 0.2)) + strength * per_image(k[2], -0.4, 0.4)
    level = strength * recipe.noise * per_image(k[3], -1.0, 1.0).clip(0)
    x = x + level * jax.random.normal(k[4], x.shape)
    width = strength * recipe.border * per_image(k[5], -1.0, 1.0).clip(0)
    edge = jnp.minimum(jnp.arange(side), side - 1 - jnp.arange(side))
    distance = jnp.minimum(edge[:, None], edge[None, :])[None, :, :, None]
    frame = per_image(k[6], 0.0, 1.5) * jax.random.normal(k[7], x.shape)
    frame = frame + per_image(k[8], -1.0, 1.0)
    return x + frame * (distance + 1 <= width)

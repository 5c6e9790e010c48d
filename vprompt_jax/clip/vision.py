"""CLIP's vision transformer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.layers import (
    LAYER_NORM_EPS,
    ResidualAttentionBlock,
    Tap,
    no_tap,
    run_tower,
)
from vprompt_jax.clip.variants import CLIPConfig


class VisionTransformer(nn.Module):
    """ViT of CLIP: bias-free patches, class token, `ln_pre`, blocks, `ln_post`, projection."""

    config: CLIPConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        c = self.config
        width, patch = c.vision_width, c.vision_patch_size
        tokens = (c.image_resolution // patch) ** 2 + 1
        scale = nn.initializers.normal(width**-0.5)
        self.conv1 = nn.Conv(
            width, (patch, patch), (patch, patch), "VALID", use_bias=False, dtype=self.dtype
        )
        self.class_embedding = self.param("class_embedding", scale, (width,))
        self.positional_embedding = self.param("positional_embedding", scale, (tokens, width))
        self.ln_pre = nn.LayerNorm(epsilon=LAYER_NORM_EPS, dtype=self.dtype)
        self.resblocks = [
            ResidualAttentionBlock(c.vision_heads, c.activation, dtype=self.dtype)
            for _ in range(c.vision_layers)
        ]
        self.ln_post = nn.LayerNorm(epsilon=LAYER_NORM_EPS, dtype=self.dtype)
        self.proj = self.param("proj", scale, (width, c.embed_dim))

    def __call__(
        self,
        x: jax.Array,
        *,
        start: int | None = None,
        stop: int | None = None,
        tap: Tap = no_tap,
    ) -> jax.Array:
        """Pixels [B, R, R, 3] -> features [B, E]; `start`, `stop`, `tap` as in `run_tower`."""
        return run_tower(
            x,
            stem=self._stem,
            blocks=self.resblocks,
            pool=self._pool,
            start=start,
            stop=stop,
            tap=tap,
        )

    def _stem(self, x: jax.Array) -> jax.Array:
        x = self.conv1(x.astype(self.dtype))
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height * width, channels)
        first = jnp.broadcast_to(self.class_embedding.astype(x.dtype), (batch, 1, channels))
        x = jnp.concatenate([first, x], axis=1) + self.positional_embedding.astype(x.dtype)
        return self.ln_pre(x)

    def _pool(self, x: jax.Array) -> jax.Array:
        return self.ln_post(x[:, 0]) @ self.proj.astype(self.dtype)

"""The vision transformer of CLIP, and the supervised one it descends from."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.layers import ResidualAttentionBlock, Tap, no_tap, run_tower
from vprompt_jax.clip.variants import CLIPConfig


def _product_of_patches(x: jax.Array, kernel: jax.Array, *args, precision=None, **kwargs):
    """A convolution without padding whose stride is its kernel's side, as a matrix product.

    [B, H, W, C], [p, p, C, D] -> [B, H // p, W // p, D]. XLA's CPU backend takes four times as
    long for the convolution, and twelve times for its gradient for the pixels, which every
    visual prompt needs: a tenth of a whole step of ViT-B/32.
    """
    del args, kwargs  # stride, padding and layout, which are known
    side, channels = kernel.shape[0], x.shape[-1]
    rows, columns = x.shape[1] // side, x.shape[2] // side
    x = x[:, : rows * side, : columns * side]
    x = x.reshape(-1, rows, side, columns, side, channels).swapaxes(2, 3)
    x = x.reshape(-1, rows, columns, side * side * channels)
    return jnp.matmul(x, kernel.reshape(-1, kernel.shape[-1]), precision=precision)


class VisionTransformer(nn.Module):
    """ViT of CLIP: bias-free patches, class token, `ln_pre`, blocks, `ln_post`, projection.

    A supervised one (arXiv 2010.11929) has patches with a bias, no `ln_pre` and no projection.
    """

    config: CLIPConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        c = self.config
        width, patch = c.vision_width, c.vision_patch_size
        tokens = (c.image_resolution // patch) ** 2 + 1
        scale = nn.initializers.normal(width**-0.5)
        self.conv1 = nn.Conv(
            width,
            (patch, patch),
            (patch, patch),
            "VALID",
            use_bias=c.supervised,
            dtype=self.dtype,
            conv_general_dilated=_product_of_patches,
        )
        self.class_embedding = self.param("class_embedding", scale, (width,))
        self.positional_embedding = self.param("positional_embedding", scale, (tokens, width))
        if not c.supervised:
            self.ln_pre = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=self.dtype)
        self.resblocks = [
            ResidualAttentionBlock(
                c.vision_heads,
                c.activation,
                c.vision_mlp_width,
                c.layer_norm_eps,
                dtype=self.dtype,
                outputs=1 if i + 1 == c.vision_layers else None,
            )
            for i in range(c.vision_layers)
        ]
        self.ln_post = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=self.dtype)
        if not c.supervised:
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
        x = jnp.concatenate([first, x], axis=1) + self.positional_embedding.astype(x.dtype)[None]
        return x if self.config.supervised else self.ln_pre(x)

    def _pool(self, x: jax.Array) -> jax.Array:
        x = self.ln_post(x[:, 0])
        return x if self.config.supervised else x @ self.proj.astype(self.dtype)

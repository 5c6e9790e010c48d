"""The vision transformer, as CLIP and other models use it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.layers import ResidualAttentionBlock, Tap, no_tap, run_tower
from vprompt_jax.clip.pooling import ProbePooling, QueryPooling
from vprompt_jax.clip.towers import ViTConfig


def _product_of_patches(
    x: jax.Array,
    kernel: jax.Array,
    *args: Any,
    precision: jax.lax.PrecisionLike = None,
    **kwargs: Any,
) -> jax.Array:
    """Computes an unpadded convolution whose stride is its kernel's side as a matrix product.

    [B, H, W, C], [p, p, C, D] -> [B, H // p, W // p, D]. XLA's CPU backend takes four times as
    long for the convolution, and twelve times as long for the gradient for the pixels, which every
    visual prompt needs. That is a tenth of a whole step with ViT-B/32.
    """
    del args, kwargs  # stride, padding and layout: always the same here
    side, channels = kernel.shape[0], x.shape[-1]
    rows, columns = x.shape[1] // side, x.shape[2] // side
    x = x[:, : rows * side, : columns * side]
    x = x.reshape(-1, rows, side, columns, side, channels).swapaxes(2, 3)
    x = x.reshape(-1, rows, columns, side * side * channels)
    return jnp.matmul(x, kernel.reshape(-1, kernel.shape[-1]), precision=precision)


class VisionTransformer(nn.Module):
    """A vision transformer with the tokens, blocks, pooling and projection that its config states.

    Attributes:
      config: the tower's config.
      embed_dim: channels E of the features if they are projected.
      dtype: dtype of the computation.
    """

    config: ViTConfig
    embed_dim: int
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        c = self.config
        scale = nn.initializers.normal(c.width**-0.5)
        self.conv1 = nn.Conv(
            c.width,
            (c.patch_size, c.patch_size),
            (c.patch_size, c.patch_size),
            "VALID",
            use_bias=c.patch_bias,
            dtype=self.dtype,
            conv_general_dilated=_product_of_patches,
        )
        if c.class_token:
            self.class_embedding = self.param("class_embedding", scale, (c.width,))
        if c.registers:
            shape = (c.registers, c.width)
            self.register_embedding = self.param("register_embedding", scale, shape)
        if c.positions != "none":
            shape = (c.placed + c.grid**2, c.width)
            self.positional_embedding = self.param("positional_embedding", scale, shape)
        if c.pre_norm:
            self.ln_pre = nn.LayerNorm(epsilon=c.norm_eps, dtype=self.dtype)
        self.resblocks = [
            ResidualAttentionBlock(
                c.heads,
                c.activation,
                c.mlp_width,
                c.norm_eps,
                dtype=self.dtype,
                outputs=c.pooled if i + 1 == c.layers else None,
                layer_scale=c.layer_scale,
                gated_mlp=c.gated_mlp,
                qkv_bias=c.qkv_bias,
                rotation=c.rotation,
                inner_norms=c.inner_norms,
                post_norm=c.post_norm,
            )
            for i in range(c.layers)
        ]
        if c.final_norm != "none":
            self.ln_post = nn.LayerNorm(epsilon=c.norm_eps, dtype=self.dtype)
        heads, channels = c.pool_heads or c.heads, c.width
        if c.pooling == "attention":
            mlp = c.pool_mlp_width or c.mlp_width
            self.attnpool: nn.Module = ProbePooling(
                heads, c.activation, mlp, c.norm_eps, dtype=self.dtype
            )
        if c.pooling == "query":
            channels = self.embed_dim
            self.attnpool = QueryPooling(heads, channels, dtype=self.dtype)
        if c.projection:
            self.proj = self.param("proj", scale, (channels, self.embed_dim))
        if c.projection_bias:
            self.proj_bias = self.param("proj_bias", nn.initializers.zeros, (self.embed_dim,))

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
        c = self.config
        x = self.conv1(x.astype(self.dtype))
        batch, height, width, channels = x.shape
        if (height, width) != (c.grid, c.grid):
            raise ValueError(f"images of {height} x {width} patches; the tower has {c.grid} a side")
        x = x.reshape(batch, height * width, channels)
        prefix = [self.class_embedding[None]] if c.class_token else []
        prefix += [self.register_embedding] if c.registers else []
        first = [jnp.broadcast_to(p.astype(x.dtype), (batch, *p.shape)) for p in prefix]
        x = jnp.concatenate([*first, x], axis=1)
        if c.positions != "none":
            table = self.positional_embedding.astype(x.dtype)
            if without := c.prefix - c.placed:
                rows = [table[: c.placed], jnp.zeros((without, channels), x.dtype)]
                table = jnp.concatenate([*rows, table[c.placed :]])
            x = x + table[None]
        return self.ln_pre(x) if c.pre_norm else x

    def _pool(self, x: jax.Array) -> jax.Array:
        c = self.config
        if c.pooling == "class":
            x = x[:, 0]
        else:
            first = x[:, : int(c.pool_class)]
            x = x[:, -(c.grid**2) :]  # patches come last, whatever tokens precede them
            x = jnp.concatenate([first, x], axis=1) if c.pool_class else x
            x = x if c.final_norm != "before" else self.ln_post(x)
            x = x.mean(axis=1) if c.pooling == "mean" else self.attnpool(x)
        if c.final_norm == "after" or (c.final_norm == "before" and c.pooling == "class"):
            x = self.ln_post(x)
        x = x @ self.proj.astype(self.dtype) if c.projection else x
        return x + self.proj_bias.astype(self.dtype)[None] if c.projection_bias else x

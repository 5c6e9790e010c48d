"""The text tower, as CLIP, SigLIP and CoCa use it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.layers import ResidualAttentionBlock, Tap, no_tap
from vprompt_jax.clip.towers import TextConfig

EMBEDDINGS = "embeddings"


def seen(tokens: jax.Array, pad_token: int) -> jax.Array:
    """Which places CoCa's tokens attend to, as OpenCLIP's models were trained: bool [B, T + 1].

    The padding and a class token behind it are meant, but the mask was shifted by one place: each
    token is left out if the one before it is padding. So the first padding token is seen, and the
    class token sees itself only in a text that fills all places. (OpenCLIP keeps this, as
    `correct_cls_mask=False`.)

    Args:
      tokens: ids [B, T] without the class token.
      pad_token: id of the padding.
    """
    first = jnp.ones((tokens.shape[0], 1), bool)
    return jnp.concatenate([first, tokens != pad_token], axis=1)


class TextTransformer(nn.Module):
    """Transformer whose feature is taken at the end-of-text token, at the last place, or at a
    learned token behind it.

    Attributes:
      config: the tower's config.
      embed_dim: channels E of the features.
      dtype: dtype of the computation.
    """

    config: TextConfig
    embed_dim: int
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        c = self.config
        self.token_embedding = nn.Embed(
            c.vocab_size,
            c.width,
            embedding_init=nn.initializers.normal(0.02),
            dtype=self.dtype,
        )
        places = c.context_length
        if c.pooling == "class":
            places += 1
            self.class_embedding = self.param(
                "class_embedding", nn.initializers.normal(0.01), (c.width,)
            )
        self.positional_embedding = self.param(
            "positional_embedding", nn.initializers.normal(0.01), (places, c.width)
        )
        self.resblocks = [
            ResidualAttentionBlock(
                c.heads,
                c.activation,
                c.mlp_width,
                c.norm_eps,
                causal=c.causal,
                dtype=self.dtype,
                layer_scale=c.layer_scale,
            )
            for _ in range(c.layers)
        ]
        self.ln_final = nn.LayerNorm(epsilon=c.norm_eps, dtype=self.dtype)
        if c.projection:
            self.text_projection = self.param(
                "text_projection",
                nn.initializers.normal(c.width**-0.5),
                (c.width, self.embed_dim),
            )
        if c.projection_bias:
            self.text_projection_bias = self.param(
                "text_projection_bias", nn.initializers.zeros, (self.embed_dim,)
            )

    def __call__(self, tokens: jax.Array, *, tap: Tap = no_tap) -> jax.Array:
        """Features [B, E] of token ids int32 [B, T], T <= context_length.

        Args:
          tokens: the ids, among them the end-of-text token. A tower that is not causal, or that
            reads another place, was trained with T = context_length.
          tap: called with "embeddings" and the tokens' embeddings [B, T, D] before positions are
            added, then with 0..L-1 and the inputs of the blocks, in which a class token stands
            behind the others; the tower continues with what it returns.
        """
        c = self.config
        x, among = tap(EMBEDDINGS, self.token_embedding(tokens)), None
        if c.pooling == "class":
            last = self.class_embedding.astype(x.dtype)
            x = jnp.concatenate([x, jnp.broadcast_to(last, (x.shape[0], 1, c.width))], axis=1)
            among = seen(tokens, c.pad_token)
        x = x + self.positional_embedding[None, : x.shape[1]].astype(x.dtype)
        for position, block in enumerate(self.resblocks):
            x = block(tap(position, x), among)
        x = self._pool(self.ln_final(x), tokens)
        if self.config.projection:
            x = x @ self.text_projection.astype(self.dtype)
        if self.config.projection_bias:
            x = x + self.text_projection_bias.astype(self.dtype)[None]
        return x

    def _pool(self, x: jax.Array, tokens: jax.Array) -> jax.Array:
        """Where the feature is read: [B, T, D] -> [B, D]."""
        if self.config.pooling in ("last", "class"):
            return x[:, -1]
        end_token = self.config.end_token
        # argmax finds the first maximum: the largest id, or the first place of the end token.
        end = jnp.argmax(tokens if end_token is None else tokens == end_token, axis=-1)
        return jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]

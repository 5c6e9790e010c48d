"""CLIP's text tower."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.layers import ResidualAttentionBlock
from vprompt_jax.clip.variants import CLIPConfig


class TextTransformer(nn.Module):
    """Causal transformer whose feature is taken at the end-of-text token."""

    config: CLIPConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        c = self.config
        self.token_embedding = nn.Embed(
            c.vocab_size,
            c.text_width,
            embedding_init=nn.initializers.normal(0.02),
            dtype=self.dtype,
        )
        self.positional_embedding = self.param(
            "positional_embedding", nn.initializers.normal(0.01), (c.context_length, c.text_width)
        )
        self.resblocks = [
            ResidualAttentionBlock(
                c.text_heads,
                c.activation,
                c.text_mlp_width,
                c.layer_norm_eps,
                causal=True,
                dtype=self.dtype,
            )
            for _ in range(c.text_layers)
        ]
        self.ln_final = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=self.dtype)
        self.text_projection = self.param(
            "text_projection",
            nn.initializers.normal(c.text_width**-0.5),
            (c.text_width, c.embed_dim),
        )

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Token ids int32 [B, T], T <= context_length -> features [B, E]."""
        length = tokens.shape[1]
        x = self.token_embedding(tokens)
        x = x + self.positional_embedding[None, :length].astype(x.dtype)
        for block in self.resblocks:
            x = block(x)
        # End-of-text has the highest id of the vocabulary, so argmax finds its first place.
        end = jnp.argmax(tokens, axis=-1)
        x = jnp.take_along_axis(self.ln_final(x), end[:, None, None], axis=1)[:, 0]
        return x @ self.text_projection.astype(self.dtype)

"""Pooling of a vision transformer's tokens by attention with a learned query (SigLIP, CoCa)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.layers import MLP, attend


class ProbePooling(nn.Module):
    """Pools tokens [B, N, D] to [B, D] by attention whose only query is a learned vector, the
    probe.

    What the attention finds passes a residual perceptron: y + mlp(ln_2(y)). Set Transformer's
    pooling (arXiv 1810.00825) with one seed, as in the "MAP head" of arXiv 2106.04560.

    Attributes:
      heads: number of heads; divides the width.
      activation: of the perceptron.
      mlp_width: hidden channels of the perceptron; None for four times the width.
      eps: epsilon of the LayerNorm.
      dtype: dtype of the computation.
    """

    heads: int
    activation: str
    mlp_width: int | None
    eps: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, _, width = x.shape

        def heads(name: str, y: jax.Array) -> jax.Array:
            y = nn.Dense(width, dtype=self.dtype, name=name)(y)
            return y.reshape(batch, y.shape[1], self.heads, -1)

        probe = self.param("probe", nn.initializers.normal(width**-0.5), (width,))
        # One row for each image, so that the query is a site like any other.
        query = jnp.broadcast_to(probe.astype(x.dtype), (batch, 1, width))
        y = attend(heads("q_proj", query), heads("k_proj", x), heads("v_proj", x), is_causal=False)
        y = nn.Dense(width, dtype=self.dtype, name="out_proj")(y.reshape(batch, width))
        z = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, name="ln_2")(y)
        return y + MLP(self.activation, self.mlp_width, self.dtype, name="mlp")(z)


# OpenCLIP leaves torch's default to these norms, whatever epsilon the tower's others have.
_QUERY_EPS = 1e-5


class QueryPooling(nn.Module):
    """Pools tokens [B, N, D] to [B, E] by attention with a learned query, between norms.

    The query, of E channels, and the tokens each pass a LayerNorm first. CoCa's pooling (arXiv
    2205.01917, section 3.2) as in OpenCLIP's `AttentionalPooler`, of whose queries the first alone
    gives the image's features.

    Attributes:
      heads: number of heads; divides E.
      features: E.
      dtype: dtype of the computation.
    """

    heads: int
    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, channels = x.shape[0], self.features

        def norm(name: str, y: jax.Array) -> jax.Array:
            return nn.LayerNorm(epsilon=_QUERY_EPS, dtype=self.dtype, name=name)(y)

        def heads(name: str, y: jax.Array) -> jax.Array:
            y = nn.Dense(channels, dtype=self.dtype, name=name)(y)
            return y.reshape(batch, y.shape[1], self.heads, -1)

        probe = self.param("probe", nn.initializers.normal(1.0), (channels,))
        # One row for each image, so that the query is a site like any other.
        query = jnp.broadcast_to(probe.astype(x.dtype), (batch, 1, channels))
        query, x = norm("ln_q", query), norm("ln_k", x)
        y = attend(heads("q_proj", query), heads("k_proj", x), heads("v_proj", x), is_causal=False)
        return nn.Dense(channels, dtype=self.dtype, name="out_proj")(y.reshape(batch, channels))

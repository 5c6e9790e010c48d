"""Pooling of a vision transformer's tokens by attention with a learned query (SigLIP)."""

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

"""Parts shared by CLIP's towers: attention, MLP, the pre-norm block, and the walk over blocks."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

# A tap sees every block input (by its position 0..L-1) and the final features (position L), and
# returns what the tower goes on with.
Tap = Callable[[int, jax.Array], jax.Array]

LAYER_NORM_EPS = 1e-5  # torch's default, which CLIP was trained with; flax's is 1e-6


def no_tap(position: int, x: jax.Array) -> jax.Array:
    """The tap that leaves the tower as it is."""
    del position
    return x


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x): the approximation OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


ACTIVATION_FUNCTIONS = {"quick_gelu": quick_gelu, "gelu": exact_gelu}


class Attention(nn.Module):
    """Multi-head self-attention with one fused query-key-value projection.

    Attributes:
      heads: number of heads; divides the width.
      causal: whether a token sees only itself and those before it.
      dtype: of the computation.
    """

    heads: int
    causal: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens [B, N, D] to [B, N, D]."""
        batch, length, width = x.shape
        qkv = nn.Dense(3 * width, dtype=self.dtype, name="in_proj")(x)
        q, k, v = jnp.split(qkv.reshape(batch, length, 3 * self.heads, -1), 3, axis=2)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=self.causal)
        return nn.Dense(width, dtype=self.dtype, name="out_proj")(y.reshape(x.shape))


class MLP(nn.Module):
    """The block's two-layer perceptron, four times as wide inside."""

    activation: str
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        y = nn.Dense(4 * width, dtype=self.dtype, name="c_fc")(x)
        y = ACTIVATION_FUNCTIONS[self.activation](y)
        return nn.Dense(width, dtype=self.dtype, name="c_proj")(y)


class ResidualAttentionBlock(nn.Module):
    """Pre-norm transformer block: x + attn(ln_1(x)), then x + mlp(ln_2(x))."""

    heads: int
    activation: str
    causal: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.ln_1 = nn.LayerNorm(epsilon=LAYER_NORM_EPS, dtype=self.dtype)
        self.attn = Attention(self.heads, self.causal, self.dtype)
        self.ln_2 = nn.LayerNorm(epsilon=LAYER_NORM_EPS, dtype=self.dtype)
        self.mlp = MLP(self.activation, self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


def run_tower(
    x: jax.Array,
    *,
    stem: Callable[[jax.Array], jax.Array],
    blocks: list[Callable[[jax.Array], jax.Array]],
    pool: Callable[[jax.Array], jax.Array],
    start: int | None,
    stop: int | None,
    tap: Tap,
) -> jax.Array:
    """Runs a vision tower, or the part of it between two positions.

    Position i < L is the input of block i, position L the final feature vector [B, E]. What stops
    at a position and what starts there meet exactly: the tap at it belongs to the part above.

    Args:
      x: normalised pixels [B, R, R, 3] if `start` is None, else the activation at `start`.
      stem: pixels -> the input of block 0.
      blocks: the L blocks, in order.
      pool: the last block's output -> features [B, E].
      start: position that `x` is the activation of; None for pixels.
      stop: position to return the activation of; None for the features, tapped.
      tap: see `Tap`.

    Raises:
      ValueError: if a position does not exist or `stop` lies below `start`.
    """
    depth = len(blocks)
    for position in (start, stop):
        if position is not None and not 0 <= position <= depth:
            raise ValueError(f"position {position} does not exist: this tower has 0..{depth}")
    if start is not None and stop is not None and stop < start:
        raise ValueError(f"stop={stop} lies below start={start}")
    if start is None:
        x = stem(x)
        start = 0
    for position in range(start, depth):
        if position == stop:
            return x
        x = blocks[position](tap(position, x))
    if start < depth:
        x = pool(x)
    return x if stop == depth else tap(depth, x)

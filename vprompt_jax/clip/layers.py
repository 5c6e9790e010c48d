"""Modules shared by CLIP's towers: attention, MLP, block, and the loop over blocks."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vprompt_jax.clip.rotary import Rotation
from vprompt_jax.process import devices

BLOCK_INPUT = "block_input"

# A tap is called with every block's input (position 0..L-1), with an image tower's final features
# (position L), and with a text tower's token embeddings ("embeddings"). The tower continues with
# what the tap returns.
Tap = Callable[[int | str, jax.Array], jax.Array]


def no_tap(position: int | str, x: jax.Array) -> jax.Array:
    """The tap that changes nothing."""
    del position
    return x


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x): the approximation OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def tanh_gelu(x: jax.Array) -> jax.Array:
    """The tanh approximation, jax.nn.gelu's default, which the original ViT was trained with."""
    return jax.nn.gelu(x, approximate=True)


ACTIVATION_FUNCTIONS = {
    "quick_gelu": quick_gelu,
    "gelu": exact_gelu,
    "gelu_tanh": tanh_gelu,
    "silu": jax.nn.silu,
}


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    is_causal: bool,
    seen: jax.Array | None = None,
) -> jax.Array:
    """softmax(q k' / sqrt(d)) v for queries [B, M, heads, d], keys and values [B, N, heads, d].

    `seen`, bool [B, N], is False at keys that no query sees; without it all are seen.

    Where it can, this runs cuDNN's kernel, which never stores the N x N weights. That kernel needs
    16-bit inputs and, for its gradient, an even N. An odd N (577 in ViT-L/14@336) is padded by one
    token, which the sequence lengths then leave out of the sums.
    """
    batch, length, _, channels = k.shape
    fits = k.dtype in (jnp.bfloat16, jnp.float16) and channels % 8 == 0 and channels <= 128
    fits = fits and q.shape[1] == length
    if seen is not None or devices.is_exported(batch) or not (fits and devices.has_tensor_cores()):
        mask = None if seen is None else seen[:, None, None]
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=is_causal)
    lengths = None
    if length % 2:
        q, k, v = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q, k, v))
        lengths = jnp.full(batch, length, jnp.int32)
    y = jax.nn.dot_product_attention(
        q,
        k,
        v,
        is_causal=is_causal,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
    return y[:, :length]


class KeylessBias(nn.Module):
    """A dense layer to queries, keys and values [B, N, 3D] whose bias [2D] leaves the keys out.

    Attributes:
      dtype: dtype of the computation.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        kernel = self.param("kernel", nn.linear.default_kernel_init, (width, 3 * width))
        bias = self.param("bias", nn.initializers.zeros, (2 * width,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        of_queries, of_values = jnp.split(bias, 2)
        bias = jnp.concatenate([of_queries, jnp.zeros_like(of_values), of_values])
        return x @ kernel + jax.lax.expand_dims(bias, range(x.ndim - 1))


class Attention(nn.Module):
    """Multi-head self-attention with one fused query-key-value projection.

    Attributes:
      heads: number of heads; divides the width.
      causal: whether a token attends only to itself and to those before it.
      dtype: dtype of the computation.
      outputs: number of leading tokens to compute outputs for; None for all.
      bias: which biases the projection has: "all", "no_key" or "none".
      rotation: turns queries and keys by their place; None for no turn.
      inner_eps: epsilon of a LayerNorm before the last projection; None: there is none.
    """

    heads: int
    causal: bool = False
    dtype: jnp.dtype = jnp.float32
    outputs: int | None = None
    bias: str = "all"
    rotation: Rotation | None = None
    inner_eps: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        """Maps tokens [B, N, D] to [B, outputs or N, D]; `seen` as in `attend`."""
        batch, _, width = x.shape
        if self.bias == "no_key":
            qkv = KeylessBias(self.dtype, name="in_proj")(x)
        else:
            use_bias = self.bias == "all"
            qkv = nn.Dense(3 * width, use_bias, dtype=self.dtype, name="in_proj")(x)
        q, kv = jnp.split(qkv, (width,), axis=-1)
        by_head = (batch, -1, self.heads, width // self.heads)
        q = q.reshape(by_head)
        k, v = (y.reshape(by_head) for y in jnp.split(self.keys_and_values(kv), 2, axis=-1))
        if self.rotation is not None:
            q, k = self.rotation(q), self.rotation(k)
        y = attend(q[:, : self.outputs], k, v, is_causal=self.causal, seen=seen)
        y = y.reshape(batch, -1, width)
        if self.inner_eps is not None:
            y = nn.LayerNorm(epsilon=self.inner_eps, dtype=self.dtype, name="ln_inner")(y)
        return nn.Dense(width, dtype=self.dtype, name="out_proj")(y)

    def keys_and_values(self, kv: jax.Array) -> jax.Array:
        """The tokens' keys and, beside them, values [B, N, 2D]; a site, at which N may grow."""
        return kv


class MLP(nn.Module):
    """The block's perceptron: c_proj(act(c_fc(x))); with a gate, c_proj(act(c_gate(x)) * c_fc(x)).

    Attributes:
      activation: one of `towers.ACTIVATIONS`; with "silu" a gated one is SwiGLU (arXiv 2002.05202).
      width: hidden channels; None for four times as many as come in.
      dtype: dtype of the computation.
      gated: whether it has a gate.
      inner_eps: epsilon of a LayerNorm before c_proj; None: there is none.
    """

    activation: str
    width: int | None = None
    dtype: jnp.dtype = jnp.float32
    gated: bool = False
    inner_eps: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        hidden, act = self.width or 4 * channels, ACTIVATION_FUNCTIONS[self.activation]
        y = nn.Dense(hidden, dtype=self.dtype, name="c_fc")(x)
        gate = nn.Dense(hidden, dtype=self.dtype, name="c_gate")(x) if self.gated else None
        y = act(y) if gate is None else act(gate) * y
        if self.inner_eps is not None:
            y = nn.LayerNorm(epsilon=self.inner_eps, dtype=self.dtype, name="ln_inner")(y)
        return nn.Dense(channels, dtype=self.dtype, name="c_proj")(y)


class LayerScale(nn.Module):
    """A learned factor per channel (CaiT, arXiv 2103.17239), initially `value`."""

    value: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gamma = self.param("gamma", nn.initializers.constant(self.value), x.shape[-1:])
        return x * jax.lax.expand_dims(gamma.astype(x.dtype), range(x.ndim - 1))


class ResidualAttentionBlock(nn.Module):
    """Transformer block: x + attn(ln_1(x)), then x + mlp(ln_2(x)).

    Attributes:
      outputs: number of leading tokens to output; None for all. If only the class token is used
        after a ViT's last block, three quarters of that block need not be computed.
      layer_scale: initial value of a factor on each residual branch; None for no factor.
      gated_mlp: whether the perceptron has a gate.
      qkv_bias: as `Attention.bias`.
      rotation: as in `Attention`.
      inner_norms: whether attention and perceptron have a norm before their last layer (the sub-LN
        of EVA-02, arXiv 2303.11331).
      post_norm: whether the block is x + ln_1(attn(x)), then x + ln_2(mlp(x)) (Swin V2's order,
        arXiv 2111.09883).
    """

    heads: int
    activation: str
    mlp_width: int | None
    eps: float
    causal: bool = False
    dtype: jnp.dtype = jnp.float32
    outputs: int | None = None
    layer_scale: float | None = None
    gated_mlp: bool = False
    qkv_bias: str = "all"
    rotation: Rotation | None = None
    inner_norms: bool = False
    post_norm: bool = False

    def setup(self) -> None:
        self.ln_1 = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype)
        inner = self.eps if self.inner_norms else None
        self.attn = Attention(
            self.heads, self.causal, self.dtype, self.outputs, self.qkv_bias, self.rotation, inner
        )
        self.ln_2 = nn.LayerNorm(epsilon=self.eps, dtype=self.dtype)
        self.mlp = MLP(self.activation, self.mlp_width, self.dtype, self.gated_mlp, inner)
        if self.layer_scale is not None:
            self.ls_1, self.ls_2 = LayerScale(self.layer_scale), LayerScale(self.layer_scale)

    def __call__(self, x: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        """Maps tokens [B, N, D] to [B, outputs or N, D]; `seen` as in `attend`."""
        # The residual comes first: gradients are summed in the reverse order of use, to the bit.
        x = x[:, : self.outputs] + self._attention_branch(x, seen)
        return x + self.mlp_branch(x)

    def _attention_branch(self, x: jax.Array, seen: jax.Array | None) -> jax.Array:
        """The first residual branch."""
        y = self.ln_1(self.attn(x, seen)) if self.post_norm else self.attn(self.ln_1(x), seen)
        return y if self.layer_scale is None else self.ls_1(y)

    def mlp_branch(self, x: jax.Array) -> jax.Array:
        """The second residual branch, of the tokens [B, N, D] after attention; a site by itself."""
        y = self.ln_2(self.mlp(x)) if self.post_norm else self.mlp(self.ln_2(x))
        return y if self.layer_scale is None else self.ls_2(y)


def run_tower(
    x: jax.Array,
    *,
    stem: Callable[[jax.Array], jax.Array],
    blocks: Sequence[Callable[[jax.Array], jax.Array]],
    pool: Callable[[jax.Array], jax.Array],
    start: int | None,
    stop: int | None,
    tap: Tap,
) -> jax.Array:
    """Runs a vision tower, or the part of it between two positions.

    Position i < L is the input of block i, position L the final feature vector [B, E]. A run that
    stops at a position and a run that starts there add up to a whole run: only the second calls the
    tap at that position.

    Args:
      x: normalised pixels [B, R, R, 3] if `start` is None, else the activation at `start`.
      stem: pixels -> the input of block 0.
      blocks: the L blocks, in order.
      pool: the last block's output -> features [B, E].
      start: position of the activation `x`; None for pixels.
      stop: position whose activation is returned, untapped; None for the features, tapped.
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
        # The name lets a rematerialisation policy keep the blocks' inputs and nothing else.
        x = blocks[position](checkpoint_name(tap(position, x), BLOCK_INPUT))
    if start < depth:
        x = pool(x)
    return x if stop == depth else tap(depth, x)

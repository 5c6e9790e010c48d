"""Fuses the mask generator's two convolutions into one GPU kernel.

The first convolution gives 64 channels for every pixel. XLA writes them to memory and reads them
back, which takes longer than a whole step of VP in bfloat16. This kernel computes a tile of them,
uses it and drops it, in the forward pass and again for the gradient, so they never leave the chip.

Each region is laid out as one row of numbers. A region of side r, with a margin of one pixel and
two more pixels on the right, becomes r + 2 lines of r + 4 pixels. A pixel has four channels; the
fourth is 1, and its weight at the centre of a neighbourhood is the bias. The 3x3 neighbourhood of a
pixel is then three windows of 16 adjacent numbers, that is, four pixels of four channels, and the
fourth pixel has weights 0. Sixteen numbers are what tensor cores multiply at once.
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from vprompt_jax.process import devices

_Ref = Any  # a reference to a kernel's memory, for which Pallas has no public type
_Residuals = tuple[jax.Array, jax.Array, jax.Array]  # rows, windows, policy
_Sums = tuple[tuple[jax.Array, ...], jax.Array, jax.Array]  # of the windows, of policy off and on

_WINDOW = 16  # four pixels of four channels
_EXTRA_PIXELS = 2  # at the end of a line, so that the last window ends within the line
# The fastest sizes of those tried on an H100, at width 64 and regions of 32 pixels.
_REGIONS, _PIXEL_GROUPS = 64, 8  # forward: regions per tile; parts of the sum over pixels
_PIXELS, _REGION_GROUPS = 32, 32  # gradient: pixels per tile; parts of the sum over regions
_NARROWEST = 16  # channels that tensor cores multiply at once; Triton takes powers of 2
_WIDEST = 64  # channels whose sums still fit into a tile's registers


def suits(width: int) -> bool:
    """Whether the kernel can run on this device for `width` channels.

    JAX has announced that Pallas will drop Triton one day. Without it, XLA computes the same.
    """
    has_triton = importlib.util.find_spec("jax.experimental.pallas.triton") is not None
    return has_triton and width <= _WIDEST and devices.has_tensor_cores()


def logits(
    regions: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    policy: jax.Array,
    dtype: jnp.dtype,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Computes relu(regions * kernel + bias) . policy, with gradients for all but the regions.

    Args:
      regions: float32 [n, r + 2, r + 2, 3], each with a margin of one pixel.
      kernel: float32 [3, 3, 3, width]; see `suits`.
      bias: float32 [width].
      policy: float32 [r, r, width, 2].
      dtype: dtype of the first convolution's factors (float32 is rounded to TF32); sums and the
        second convolution are float32.
      interpret: run on any backend, slowly, for tests.

    Returns:
      float32 [n, 2].
    """
    side, width = policy.shape[0], policy.shape[2]
    added = max(_NARROWEST, pl.next_power_of_2(width)) - width
    ones = jnp.ones((*regions.shape[:-1], 1), regions.dtype)
    rows = jnp.concatenate([regions, ones], -1).astype(dtype)
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, _EXTRA_PIXELS), (0, 0)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 1), (0, 1), (0, added)))
    bias = jnp.pad(bias[None, None, None], ((1, 1), (1, 2), (3, 0), (0, added)))
    windows = (kernel + bias).reshape(3, _WINDOW, -1)
    policy = jnp.pad(policy, ((0, 0), (0, 0), (0, added), (0, 0)))
    policy = jnp.moveaxis(policy.reshape(side**2, -1, 2), 2, 0)
    return _logits(rows.reshape(len(regions), -1), windows, policy, side, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _logits(
    rows: jax.Array, windows: jax.Array, policy: jax.Array, side: int, interpret: bool
) -> jax.Array:
    """Rows [n, l], windows float32 [3, 16, width], policy float32 [2, side^2, width] -> [n, 2]."""
    n, length = rows.shape
    tiles, groups = pl.cdiv(n, _REGIONS), _PIXEL_GROUPS
    rows = jnp.pad(rows, ((0, tiles * _REGIONS - n), (0, 0)))
    parts = _call(
        functools.partial(_forward, side),
        (tiles, groups),
        interpret,
        in_specs=[
            pl.BlockSpec((_REGIONS, length), lambda i, j: (i, 0)),
            pl.BlockSpec(windows.shape, lambda i, j: (0, 0, 0)),
            pl.BlockSpec(policy.shape, lambda i, j: (0, 0, 0)),
        ],
        out_specs=pl.BlockSpec((None, _REGIONS, 2), lambda i, j: (j, i, 0)),
        out_shape=jax.ShapeDtypeStruct((groups, len(rows), 2), jnp.float32),
    )(rows, windows.astype(rows.dtype), policy)
    return parts.sum(0)[:n]


def _logits_and_residuals(
    rows: jax.Array, windows: jax.Array, policy: jax.Array, side: int, interpret: bool
) -> tuple[jax.Array, _Residuals]:
    return _logits(rows, windows, policy, side, interpret), (rows, windows, policy)


def _gradients(
    side: int, interpret: bool, residuals: _Residuals, upstream: jax.Array
) -> tuple[None, jax.Array, jax.Array]:
    rows, windows, policy = residuals
    (n, length), (_, pixels, width) = rows.shape, policy.shape
    tiles, groups = pl.cdiv(pixels, _PIXELS), _REGION_GROUPS
    policy = jnp.pad(policy, ((0, 0), (0, tiles * _PIXELS - pixels), (0, 0)))
    of_windows, of_policy = _call(
        functools.partial(_backward, side, n),
        (tiles, groups),
        interpret,
        in_specs=[
            pl.BlockSpec((n, length), lambda i, j: (0, 0)),
            pl.BlockSpec(windows.shape, lambda i, j: (0, 0, 0)),
            pl.BlockSpec((2, _PIXELS, width), lambda i, j: (0, i, 0)),
            pl.BlockSpec((n, 2), lambda i, j: (0, 0)),
        ],
        out_specs=[
            pl.BlockSpec((None, None, *windows.shape), lambda i, j: (i, j, 0, 0, 0)),
            pl.BlockSpec((None, 2, _PIXELS, width), lambda i, j: (j, 0, i, 0)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((tiles, groups, *windows.shape), jnp.float32),
            jax.ShapeDtypeStruct((groups, *policy.shape), jnp.float32),
        ],
    )(rows, windows.astype(rows.dtype), policy, upstream)
    return None, of_windows.sum((0, 1)), of_policy.sum(0)[:, :pixels]


_logits.defvjp(_logits_and_residuals, _gradients)


def _call(
    kernel: Callable[..., None], grid: tuple[int, int], interpret: bool, **specs: Any
) -> Callable[..., Any]:
    params = None
    if not interpret:
        from jax.experimental.pallas import triton  # see `suits`

        params = triton.CompilerParams(num_warps=2, num_stages=2)
    return pl.pallas_call(kernel, grid=grid, interpret=interpret, compiler_params=params, **specs)


def _line(side: int) -> int:
    """Length of one line of a region, in numbers."""
    return (side + 2 + _EXTRA_PIXELS) * 4


def _channels(x: Sequence[jax.Array], windows: Sequence[jax.Array]) -> jax.Array:
    """Windows [n, 16] of three adjacent lines -> relu of the convolution, [n, width]."""
    return jnp.maximum(sum(map(_product, x, windows)), 0.0)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    # HIGH lets tensor cores multiply float32 as TF32. In exact float32, without them, the gradient
    # would take seven times as long as XLA's.
    precision = jax.lax.Precision.HIGH if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def _forward(side: int, rows: _Ref, windows: _Ref, policy: _Ref, out: _Ref) -> None:
    """Sums over a part of the pixels, one at a time, for a tile of regions."""
    weights = [windows[i] for i in range(3)]
    each = pl.cdiv(side * side, _PIXEL_GROUPS)
    first = pl.program_id(1) * each

    def add(pixel: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start = pixel // side * _line(side) + pixel % side * 4
        x = [rows[:, pl.ds(start + i * _line(side), _WINDOW)] for i in range(3)]
        channels = _channels(x, weights)
        return sums[0] + channels * policy[0, pixel][None], sums[1] + channels * policy[1, pixel][
            None
        ]

    zero = jnp.zeros((_REGIONS, policy.shape[2]), jnp.float32)
    last = jnp.minimum(first + each, side * side)
    off, on = jax.lax.fori_loop(first, last, add, (zero, zero))
    out[:, 0] = jnp.sum(off, 1)
    out[:, 1] = jnp.sum(on, 1)


def _backward(
    side: int,
    n: int,
    rows: _Ref,
    windows: _Ref,
    policy: _Ref,
    upstream: _Ref,
    of_windows: _Ref,
    of_policy: _Ref,
) -> None:
    """Sums gradients over a part of the regions, one at a time, for a tile of pixels."""
    weights = [windows[i] for i in range(3)]
    off, on = policy[0], policy[1]
    each = pl.cdiv(n, _REGION_GROUPS)
    first = pl.program_id(1) * each
    # A tile may reach beyond the last pixel. The policy is 0 there, and `_gradients` cuts off the
    # sums, so the tile may read the last pixel again.
    pixel = jnp.minimum(pl.program_id(0) * _PIXELS + jnp.arange(_PIXELS), side * side - 1)
    start = (pixel // side * _line(side) + pixel % side * 4)[:, None] + jnp.arange(_WINDOW)[None]

    def add(region: jax.Array, sums: _Sums) -> _Sums:
        weight_sums, off_sum, on_sum = sums
        x = [rows[region, start + i * _line(side)] for i in range(3)]
        channels = _channels(x, weights)
        for_off, for_on = upstream[region, 0], upstream[region, 1]
        gradient = jnp.where(channels > 0, for_off * off + for_on * on, 0.0).astype(rows.dtype)
        products = [_product(a.T, gradient) for a in x]
        weight_sums = tuple(s + p for s, p in zip(weight_sums, products, strict=True))
        return weight_sums, off_sum + for_off * channels, on_sum + for_on * channels

    zeros = [jnp.zeros(like.shape, jnp.float32) for like in (*weights, off, on)]
    last = jnp.minimum(first + each, n)
    start_sums = tuple(zeros[:3]), zeros[3], zeros[4]
    sums = jax.lax.fori_loop(first, last, add, start_sums)
    for i in range(3):
        of_windows[i] = sums[0][i]
    of_policy[0], of_policy[1] = sums[1:]

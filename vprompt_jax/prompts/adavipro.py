"""AdaViPro (arXiv 2403.13282): per region of an image, decide whether the prompt is added.

Edges -> mask generator -> two logits per region -> a hard 0/1 mark by Gumbel-Softmax ->
the marks dilated to pixels. The generator's layers are our reading of the paper's parameter
counts (0.13M at width 64 and region 32), which a 3x3 and a region-sized convolution meet.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.prompts.edges import EDGES


def default_region(resolution: int) -> int:
    """The divisor of the resolution nearest to a seventh of it: 32 at 224, the paper's."""
    divisors = [r for r in range(2, resolution + 1) if resolution % r == 0]
    return min(divisors, key=lambda r: abs(r - resolution / 7))


def check_region(region: int, resolution: int) -> None:
    """Raises ValueError, naming the nearest sizes that do, if the region does not divide R."""
    if region < 1 or resolution % region:
        divisors = [r for r in range(1, resolution + 1) if resolution % r == 0]
        near = [max((r for r in divisors if r < region), default=None),
                min((r for r in divisors if r > region), default=None)]  # fmt: skip
        raise ValueError(
            f"mask.region={region} does not divide the resolution {resolution}; "
            f"nearest that do: {', '.join(str(r) for r in near if r)}"
        )


def temperature_at(epoch: jax.Array, initial: float, decay: float, minimum: float) -> jax.Array:
    """Gumbel temperature initial * decay^epoch, never below `minimum`.

    The paper has no minimum. Over 1000 epochs its temperature falls to 8e-9: the marks' gradient
    vanishes, except where a near tie meets 1/tau of 1e8.
    """
    return jnp.maximum(initial * decay ** epoch.astype(jnp.float32), minimum)


def _torch_conv_bias(fan_in: int):
    bound = fan_in**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


# torch's Conv2d draws weights and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
_torch_conv_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class MaskGenerator(nn.Module):
    """Two logits per region from the edges of an image.

    Attributes:
      region: side of a region in pixels; divides the resolution.
      width: channels between the convergence and the policy convolution.
      edge: a name of `edges.EDGES`.
    """

    region: int
    width: int = 64
    edge: str = "laplacian"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalised pixels [B, R, R, 3] -> logits [B, R/region, R/region, 2] (off, on)."""
        batch, side, _, channels = images.shape
        x = EDGES[self.edge](images.astype(jnp.float32))
        x = nn.Conv(
            self.width, (3, 3), padding=1, name="convergence",
            kernel_init=_torch_conv_kernel, bias_init=_torch_conv_bias(9 * channels),
        )(x)  # fmt: skip
        x = nn.relu(x)
        # A convolution whose kernel and stride are the region is a product per region.
        grid, r = side // self.region, self.region
        kernel = self.param(
            "policy_kernel", _torch_conv_kernel, (r, r, self.width, 2), jnp.float32
        )
        bias = self.param("policy_bias", _torch_conv_bias(r * r * self.width), (2,), jnp.float32)
        x = x.reshape(batch, grid, r, grid, r, self.width)
        return jnp.einsum("bgrhsc,rsco->bgho", x, kernel) + bias


def sampled_marks(logits: jax.Array, noise: jax.Array, temperature: jax.Array) -> jax.Array:
    """Straight-through Gumbel-Softmax: hard marks forward, the relaxation's gradient backward.

    Args:
      logits: [..., 2], (off, on).
      noise: Gumbel noise of the same shape, used for the mark and for the gradient.
      temperature: scalar tau of the relaxation.

    Returns:
      float32 [...], exactly 0 or 1.
    """
    scores = jax.nn.log_softmax(logits) + noise
    hard = (scores[..., 1] > scores[..., 0]).astype(jnp.float32)
    soft = jax.nn.softmax(scores / temperature)[..., 1]
    # soft - stop_gradient(soft) is exactly 0, so the sum is exactly hard.
    return hard + (soft - jax.lax.stop_gradient(soft))


def best_marks(logits: jax.Array) -> jax.Array:
    """The marks at inference: argmax without noise. [..., 2] -> float32 [...]."""
    return (logits[..., 1] > logits[..., 0]).astype(jnp.float32)


def dilate(marks: jax.Array, region: int) -> jax.Array:
    """Nearest enlargement of marks [B, g, g] to pixels [B, g * region, g * region, 1]."""
    return jnp.repeat(jnp.repeat(marks, region, axis=1), region, axis=2)[..., None]


def regions_with(support: jax.Array, region: int) -> jax.Array:
    """Which regions hold any parameter of a template: bool [n, R, R] -> bool [n, g, g].

    Marks elsewhere change nothing; shares and pictures leave them out.
    """
    n, side, _ = support.shape
    grid = side // region
    return support.reshape(n, grid, region, grid, region).any(axis=(2, 4))

"""AdaViPro's mask generator (arXiv 2403.13282, section 3): two logits per region, from edges.

The layers are our reading of the paper's parameter count (0.13M at width 64 and region 32), which a
3x3 convolution followed by one of a region's size has.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.process import devices
from vprompt_jax.prompts import fused_policy
from vprompt_jax.prompts.edges import EDGES

# By how much the logit of "on" exceeds that of "off" in a generator that starts at "on": it marks
# 95 % of the regions then.
LEAN = 3.0


class MaskGenerator(nn.Module):
    """Computes two logits per region from the edges of an image.

    The images are data, so no gradient is computed for them.

    Attributes:
      region: side of a region in pixels; divides the resolution.
      width: channels between the convergence and the policy convolution.
      edge: a name in `edges.EDGES`.
      dtype: dtype of the first convolution's factors, and on a CPU of its bias; everything else is
        float32.
      at_once: largest number of regions to compute at a time; None for what suits the device. It
        changes only speed and memory.
      starts_on: whether the biases favour "on" at the start.
    """

    region: int
    width: int = 64
    edge: str = "laplacian"
    dtype: jnp.dtype = jnp.float32
    at_once: int | None = None
    starts_on: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, wanted: np.ndarray | None = None) -> jax.Array:
        """Normalised pixels [B, R, R, 3] -> logits [B, R/region, R/region, 2] (off, on).

        Args:
          images: the pixels.
          wanted: bool [n, R/region, R/region], the regions whose logits are computed, wherever one
            of the n is true; those of the others are 0. None for all.
        """
        batch, side, _, channels = images.shape
        r, width, grid = self.region, self.width, side // self.region
        kernel, bias = self._convolution("convergence", (3, 3, channels, width))
        lean = LEAN * jnp.array([-0.5, 0.5]) if self.starts_on else None
        policy_kernel, policy_bias = self._convolution("policy", (r, r, width, 2), lean)
        edges = jax.lax.stop_gradient(EDGES[self.edge](images.astype(jnp.float32)))
        regions = _regions(edges, r)
        places = np.arange(grid**2) if wanted is None else np.flatnonzero(wanted.any(0))
        if is_partial := len(places) < grid**2:
            regions = regions.reshape(batch, grid**2, *regions.shape[1:])[:, places]
            regions = regions.reshape(-1, *regions.shape[2:])

        def placed(x: jax.Array) -> jax.Array:
            if is_partial:
                x = x.reshape(batch, len(places), 2)
                x = jnp.zeros((batch, grid**2, 2)).at[:, places].set(x, unique_indices=True)
            return x.reshape(batch, grid, grid, 2)

        exported = devices.is_exported(batch)
        if not exported and self.at_once is None and self._suits_tensor_cores():
            x = fused_policy.logits(regions, kernel, bias, policy_kernel, self.dtype)
            return placed(x + policy_bias[None])
        # The bias is the weight of a column of ones: products add it and sum its gradient.
        kernel = jnp.concatenate([kernel.reshape(-1, width), bias[None]]).astype(self.dtype)
        off, on = policy_kernel.reshape(-1, 2).T

        def logits(regions: jax.Array) -> jax.Array:
            # Both convolutions are written as matrix products. Their weight gradients are then
            # products, too, which CPUs compute several times faster than gradients of convolutions.
            # The policy's two columns are multiplied one by one: XLA's CPU backend takes twice as
            # long for a matrix of two columns.
            n = regions.shape[0]
            x = _neighbourhoods(regions).reshape(n * r * r, -1).astype(self.dtype)
            x = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
            x = nn.relu(x).reshape(n, -1)
            return jnp.stack([x @ off, x @ on], axis=-1) + policy_bias[None]

        if exported:
            return placed(logits(regions))
        # The channels between the convolutions take far more memory than the image. Computed for a
        # few regions at a time, and computed again for the gradient, they never leave the cache.
        count = batch * len(places)
        most = self.at_once or max(1, _working_set() // (4 * r * r * width))
        at_once = max(n for n in range(1, min(most, count) + 1) if count % n == 0)
        groups = regions.reshape(-1, at_once, *regions.shape[1:])
        return placed(jax.lax.map(jax.checkpoint(logits, prevent_cse=False), groups))

    def _suits_tensor_cores(self) -> bool:
        rounds = jax.config.values["jax_default_matmul_precision"] != "highest"  # float32 to TF32
        return fused_policy.suits(self.width) and (rounds or self.dtype != jnp.float32)

    def _convolution(
        self, name: str, shape: tuple[int, ...], lean: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Kernel [h, w, in, out] and bias [out], initialised as torch initialises Conv2d.

        That is U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for both. `lean` is added to the bias.
        """
        uniform = uniform_within((shape[0] * shape[1] * shape[2]) ** -0.5)
        kernel = self.param(f"{name}_kernel", uniform, shape)

        def bias(*args: Any) -> jax.Array:
            drawn = uniform(*args)
            return drawn if lean is None else drawn + lean

        return kernel, self.param(f"{name}_bias", bias, shape[-1:])


def _working_set() -> int:
    """Bytes of channels to compute at a time: what caches hold, or enough to keep a GPU busy."""
    return 2**22 if jax.default_backend() == "cpu" else 2**28


def _regions(x: jax.Array, region: int) -> jax.Array:
    """Cuts images into regions with a margin of one pixel, which is zero beyond the border.

    [B, R, R, C] -> [B * (R/region)^2, region + 2, region + 2, C].
    """
    *_, side, channels = x.shape
    starts, length = range(0, side, region), region + 2
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = jnp.stack([x[:, top : top + length] for top in starts], axis=1)
    x = jnp.stack([x[:, :, :, left : left + length] for left in starts], axis=2)
    return x.reshape(-1, length, length, channels)


def _neighbourhoods(x: jax.Array) -> jax.Array:
    """The 3x3 neighbourhood of each inner pixel, and a one: [n, h + 2, w + 2, C] -> [n, h, w, D].

    D is 9 C + 1. Columns are shifted before rows, so that the second shift copies 3 C numbers that
    lie side by side.
    """
    height, width = x.shape[1] - 2, x.shape[2] - 2
    x = jnp.concatenate([x[:, :, j : j + width] for j in range(3)], axis=-1)
    ones = jnp.ones((*x.shape[:1], height, width, 1), x.dtype)
    return jnp.concatenate([*(x[:, i : i + height] for i in range(3)), ones], axis=-1)

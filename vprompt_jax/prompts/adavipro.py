"""AdaViPro (arXiv 2403.13282): decides for each region of an image whether the prompt is added.

Edges -> mask generator -> two logits per region -> a hard 0/1 mark by Gumbel-Softmax -> the marks
dilated to pixels. The generator's layers are our reading of the paper's parameter count (0.13M at
width 64 and region 32), which a 3x3 convolution followed by one of a region's size has.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.parts import Canvas, Context, Part, Progress, Schedule, Surroundings
from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.process import devices
from vprompt_jax.prompts import fused_policy
from vprompt_jax.prompts.edges import EDGES
from vprompt_jax.prompts.marks import (
    best_marks,
    dilate,
    regions_with,
    sampled_marks,
    temperature_at,
)
from vprompt_jax.schema import (
    LARGE,
    Optimizer,
    Section,
    TrainedSection,
    key,
    learning_rate,
    optimizer,
)


def default_region(resolution: int) -> int:
    """The divisor of the resolution nearest to a seventh of it; at 224, the paper's 32."""
    divisors = [r for r in range(2, resolution + 1) if resolution % r == 0]
    return min(divisors, key=lambda r: abs(r - resolution / 7))


def check_region(region: int, resolution: int) -> None:
    """Raises ValueError if the region does not divide R, and names the nearest sizes that do."""
    if region < 1 or resolution % region:
        divisors = [r for r in range(1, resolution + 1) if resolution % r == 0]
        near = [max((r for r in divisors if r < region), default=None),
                min((r for r in divisors if r > region), default=None)]  # fmt: skip
        raise ValueError(
            f"mask.region={region} does not divide the resolution {resolution}; "
            f"nearest that do: {', '.join(str(r) for r in near if r)}"
        )


class MaskGenerator(nn.Module):
    """Computes two logits per region from the edges of an image.

    The images are data, so no gradient is computed for them.

    Attributes:
      region: side of a region in pixels; divides the resolution.
      width: channels between the convergence and the policy convolution.
      edge: a name in `edges.EDGES`.
      dtype: dtype of the first convolution's factors; everything else is float32.
      at_once: largest number of regions to compute at a time; None for what suits the device. It
        changes only speed and memory.
    """

    region: int
    width: int = 64
    edge: str = "laplacian"
    dtype: jnp.dtype = jnp.float32
    at_once: int | None = None

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalised pixels [B, R, R, 3] -> logits [B, R/region, R/region, 2] (off, on)."""
        batch, side, _, channels = images.shape
        r, width, grid = self.region, self.width, side // self.region
        kernel, bias = self._convolution("convergence", (3, 3, channels, width))
        policy_kernel, policy_bias = self._convolution("policy", (r, r, width, 2))
        edges = jax.lax.stop_gradient(EDGES[self.edge](images.astype(jnp.float32)))
        regions = _regions(edges, r)
        exported = devices.is_exported(batch)
        if not exported and self.at_once is None and self._suits_tensor_cores():
            x = fused_policy.logits(regions, kernel, bias, policy_kernel, self.dtype)
            return (x + policy_bias[None]).reshape(batch, grid, grid, 2)
        kernel = kernel.reshape(-1, width).astype(self.dtype)
        off, on = policy_kernel.reshape(-1, 2).T

        def logits(regions: jax.Array) -> jax.Array:
            # Both convolutions are written as matrix products. Their weight gradients are then
            # products, too, which CPUs compute several times faster than gradients of convolutions.
            # The policy's two columns are multiplied one by one: XLA's CPU backend takes twice as
            # long for a matrix of two columns.
            n = regions.shape[0]
            x = _neighbourhoods(regions).reshape(n * r * r, -1).astype(self.dtype)
            x = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
            x = nn.relu(x + bias[None]).reshape(n, -1)
            return jnp.stack([x @ off, x @ on], axis=-1) + policy_bias[None]

        if exported:
            return logits(regions).reshape(batch, grid, grid, 2)
        # The channels between the convolutions take far more memory than the image. Computed for a
        # few regions at a time, and computed again for the gradient, they never leave the cache.
        count = batch * grid * grid
        most = self.at_once or max(1, _working_set() // (4 * r * r * width))
        at_once = max(n for n in range(1, min(most, count) + 1) if count % n == 0)
        groups = regions.reshape(-1, at_once, *regions.shape[1:])
        x = jax.lax.map(jax.checkpoint(logits, prevent_cse=False), groups)
        return x.reshape(batch, grid, grid, 2)

    def prompted(self, canvas: Canvas, context: Context) -> Canvas:
        """Keeps what the canvas adds in the marked regions alone: x' = x + P * m (section 3)."""
        # `MaskPart.check` has made sure of a prompt.
        assert canvas.added is not None
        assert canvas.support is not None
        logits = self(canvas.image)
        if context.is_training:
            draw = functools.partial(jax.random.gumbel, shape=logits.shape[1:])
            noise = jax.vmap(draw)(context.example_keys("noise"))
            marks = sampled_marks(logits, noise, context.values["temperature"])
        else:
            marks = best_marks(logits)
        active = regions_with(canvas.support, self.region)
        counted = jnp.broadcast_to(active, marks.shape).astype(jnp.float32)
        on = jnp.sum(marks * counted, (1, 2)) / jnp.maximum(jnp.sum(counted, (1, 2)), 1.0)
        edges = jnp.abs(EDGES[self.edge](canvas.image)).mean(-1)
        return canvas.replace(
            added=canvas.added * dilate(marks, self.region),
            metrics={**canvas.metrics, "regions_on": jax.lax.stop_gradient(on)},
            shown={**canvas.shown, "marks": marks, "active": active, "edges": edges},
        )

    def _suits_tensor_cores(self) -> bool:
        rounds = jax.config.values["jax_default_matmul_precision"] != "highest"  # float32 to TF32
        return fused_policy.suits(self.width) and (rounds or self.dtype != jnp.float32)

    def _convolution(self, name: str, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Kernel [h, w, in, out] and bias [out], initialised as torch initialises Conv2d.

        That is U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for both.
        """
        uniform = uniform_within((shape[0] * shape[1] * shape[2]) ** -0.5)
        kernel = self.param(f"{name}_kernel", uniform, shape)
        return kernel, self.param(f"{name}_bias", uniform, shape[-1:])


def _working_set() -> int:
    """Bytes of channels to compute at a time: a CPU core's cache, or enough to keep a GPU busy."""
    return 2**20 if jax.default_backend() == "cpu" else 2**28


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
    """The 3x3 neighbourhood of each inner pixel: [n, h + 2, w + 2, C] -> [n, h, w, 9 C]."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    shifts = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifts, axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskSection(TrainedSection):
    """Where the prompt is added."""

    kind: Literal["none", "adavipro"] = key("none", "what decides where the prompt is added")
    edge: Literal["laplacian", "sobel", "none"] = key(
        "laplacian",
        "what the generator sees; none: the image itself",
        source="AdaViPro, section 4.1",
        label="edges",
    )
    region: int | None = key(
        None,
        "side of a region (pixels), divides the resolution; none: the divisor nearest to a seventh",
        low=1,
        high=2**16,
        source="AdaViPro, section 4.1: 32 at 224",
        label="region (px)",
        axis="side of a region (pixels)",
        fact="region",
    )
    width: int = key(
        64,
        "channels of the generator",
        low=1,
        high=2**16,
        source="AdaViPro, section 4.1",
        label="generator width",
        axis="generator width (channels)",
    )
    temperature: float = key(
        5.0,
        "of the relaxation in the first epoch",
        low=1e-30,
        high=LARGE,
        source="AdaViPro, section 4.1",
        label="first temperature",
        axis="temperature at the first epoch",
    )
    temperature_decay: float = key(
        0.98,
        "factor on the temperature per epoch",
        low=1e-6,
        high=1,
        source="AdaViPro, section 4.1",
        label="temperature decay per epoch",
        axis="factor on the temperature per epoch",
    )
    temperature_min: float = key(
        0.0,
        "the temperature never falls below it; 0: no limit, as published",
        low=0,
        high=LARGE,
        source="ours",
        label="least temperature",
    )
    learning_rate: float = learning_rate(1.0, "AdaViPro, section 4.1")
    optimizer: Optimizer = optimizer("sgd", "AdaViPro, section 4.1")


class MaskPart(Part[MaskSection]):
    """AdaViPro's mask over the visual prompt."""

    name = "mask"
    section = MaskSection
    switch = "kind"
    kind = "adavipro"
    side = "pixels"
    order = 30

    def check(self, section: MaskSection, sections: Mapping[str, Section]) -> None:
        if "prompt" not in sections:
            raise ValueError(
                f"config.mask.kind={section.kind} needs a prompt to place: set "
                "config.prompt.template=padding"
            )

    def build(self, section: MaskSection, around: Surroundings) -> MaskGenerator:
        side = around.resolution
        region = default_region(side) if section.region is None else section.region
        check_region(region, side)
        return MaskGenerator(region, section.width, section.edge, around.dtype)

    def schedules(self, section: MaskSection) -> Mapping[str, Schedule]:
        def temperature(progress: Progress) -> jax.Array:
            return temperature_at(
                progress.epoch,
                section.temperature,
                section.temperature_decay,
                section.temperature_min,
            )

        return {"temperature": temperature}

    def facts(
        self, section: MaskSection, built: MaskGenerator, around: Surroundings
    ) -> dict[str, Any]:
        return {"region": built.region}

    def warning(self, metrics: Mapping[str, float]) -> str | None:
        """Warns if the masks of a whole split are all on or all off."""
        on = metrics["regions_on"]
        if 0.001 < on < 0.999:
            return None
        if on < 0.5:
            return (
                "the mask has collapsed: (nearly) every region is off, so the prompt is not used "
                "(lower config.mask.learning_rate, or raise config.prompt.learning_rate)"
            )
        return "the mask has collapsed: (nearly) every region is on, as in VP"

    def remedies(self) -> Iterable[str]:
        return ("raise config.mask.temperature_min",)


PART = MaskPart()

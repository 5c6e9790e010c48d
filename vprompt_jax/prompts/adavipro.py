"""AdaViPro (arXiv 2403.13282): decides for each region of an image whether the prompt is added.

Edges -> mask generator -> two logits per region -> a hard 0/1 mark by Gumbel-Softmax -> the marks
dilated to pixels.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.parts import Canvas, Context, Part, Progress, Schedule, Surroundings
from vprompt_jax.prompts.edges import EDGES
from vprompt_jax.prompts.generator import MaskGenerator
from vprompt_jax.prompts.lean import Lean
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


class RegionalMask(MaskGenerator):
    """The generator's decisions, applied to a prompt."""

    def prompted(self, canvas: Canvas, context: Context) -> Canvas:
        """Keeps what the canvas adds in the marked regions alone: x' = x + P * m (section 3)."""
        # `MaskPart.check` has made sure of a prompt.
        assert canvas.added is not None
        assert canvas.support is not None
        active = regions_with(canvas.support, self.region)
        # Marks elsewhere change nothing: a template at the border leaves half of the work.
        logits = self(canvas.image, active if isinstance(active, np.ndarray) else None)
        if "lean" in canvas.assigned:
            logits = logits.at[..., 1].add(canvas.assigned["lean"])
        if context.is_training:
            draw = functools.partial(jax.random.gumbel, shape=logits.shape[1:])
            noise = jax.vmap(draw)(context.example_keys("noise"))
            if "noise" in context.values:
                noise = noise * context.values["noise"]
            marks = sampled_marks(logits, noise, context.values["temperature"])
            if "held" in context.values:
                marks = jnp.where(context.values["held"] > 0, jnp.ones_like(marks), marks)
        else:
            marks = best_marks(logits)
            if "exchanged" in context.values:
                marks = marks[_next_example(context.index)]
            if "tried" in context.values:
                marks = jnp.broadcast_to(context.values["tried"], marks.shape)
        counted = jnp.broadcast_to(active, marks.shape).astype(jnp.float32)
        on = jnp.sum(marks * counted, (1, 2)) / jnp.maximum(jnp.sum(counted, (1, 2)), 1.0)
        edges = jnp.abs(EDGES[self.edge](canvas.image)).mean(-1)
        return canvas.replace(
            added=canvas.added * dilate(marks, self.region),
            metrics={**canvas.metrics, "regions_on": jax.lax.stop_gradient(on)},
            shown={**canvas.shown, "marks": marks, "active": active, "edges": edges},
        )


def _next_example(index: jax.Array) -> jax.Array:
    """Positions in a batch of the example after each, and of the first after the last.

    Args:
      index: int32 [B], -1 for padding, which comes last.
    """
    count = jnp.maximum(jnp.sum(index >= 0), 1)
    return (jnp.arange(len(index)) + 1) % count


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
    sampled: float = key(
        1.0,
        "share of the run, at first, in which marks are drawn with Gumbel noise; after it the "
        "likelier mark is taken, as at inference",
        low=0,
        high=1,
        source="ours",
        label="share of the run with noise",
        axis="share of the run with noise",
    )
    start: Literal["random", "on", "better"] = key(
        "random",
        "of the generator: torch's initialisation, as published; on: one that marks nearly every "
        "region, so that the run starts as VP; better: one that, after mask.hold, marks nearly "
        "every region if the prompt helps on the validation images by then, by more than one "
        "standard error, and nearly none if not",
        source="ours",
        label="masks at the start",
    )
    hold: float = key(
        0.0,
        "share of the run, at first, in which every region is marked and the prompt trains as VP's",
        low=0,
        high=0.99,
        source="ours",
        label="masks held back for",
        axis="share of the run before masks act",
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
        if section.start == "better" and not section.hold:
            raise ValueError(
                "config.mask.start=better compares a prompt that has trained alone with none: set "
                "config.mask.hold, to 0.5 say, or another config.mask.start"
            )

    def build(self, section: MaskSection, around: Surroundings) -> RegionalMask:
        side = around.resolution
        region = default_region(side) if section.region is None else section.region
        check_region(region, side)
        return RegionalMask(
            region, section.width, section.edge, around.dtype, starts_on=section.start == "on"
        )

    def schedules(self, section: MaskSection) -> Mapping[str, Schedule]:
        def temperature(progress: Progress) -> jax.Array:
            return temperature_at(
                progress.epoch,
                section.temperature,
                section.temperature_decay,
                section.temperature_min,
            )

        def held(progress: Progress) -> jax.Array:
            return (progress.share < section.hold).astype(jnp.float32)

        def noise(progress: Progress) -> jax.Array:
            return (progress.share < section.sampled).astype(jnp.float32)

        schedules = {"temperature": temperature}
        if section.hold:
            schedules["held"] = held
        if section.sampled < 1:
            schedules["noise"] = noise
        return schedules

    def assignment(self, section: MaskSection, around: Surroundings) -> Lean | None:
        del around
        return Lean(section.hold) if section.start == "better" else None

    def controls(self, section: MaskSection) -> Mapping[str, Mapping[str, float]]:
        """The accuracy when every image gets another's mask.

        If it is as high as with the image's own, what masks depend on does not matter.
        """
        del section
        return {"masks_exchanged": {"exchanged": 1.0}}

    def facts(
        self, section: MaskSection, built: RegionalMask, around: Surroundings
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

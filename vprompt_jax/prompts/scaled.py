"""AutoVP (Tsao et al., arXiv 2310.08381): pixels around an image whose size is learned, too.

The formulas and defaults are those of the authors' code (IBM/AutoVP, `auto_vp/programs.py` and
`training_process.py`) for CLIP.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vprompt_jax.clip.preprocess import resize_matrix
from vprompt_jax.parts import Canvas, Context, Part, Surroundings
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer

_BASE = 128 / 224  # of the frame's side: the side of an image of scale 1
_LIMITS = (0.1, 5.0)  # of the scale


def enlarging_matrix(scale: jax.Array, source: int, side: int) -> jax.Array:
    """Interpolates `source` pixels, times `scale`, into the middle of `side` pixels.

    Args:
      scale: float32 scalar; the gradient for it is that of linear interpolation.
      source: number of pixels; zeros stand on both sides of them.
      side: number of pixels of the result.

    Returns:
      float32 [side, source].
    """
    middle = (side - 1) / 2
    places = middle + (jnp.arange(side, dtype=jnp.float32) - middle) / scale
    pixels = (side - source + 1) // 2 + jnp.arange(source, dtype=jnp.float32)
    return jnp.maximum(0.0, 1.0 - jnp.abs(places[:, None] - pixels[None]))


class ScaledPrompt(nn.Module):
    """Gives the image a learned size, and puts learned pixels around it.

    An image of scale 1 has a side of 128/224 of the frame's. As in AutoVP's code, it is shrunk to
    that size first (here bicubically) and from there scaled by linear interpolation, about its
    centre. Around it are zeros, after normalisation, and the learned values are added to them.
    Values where the image is are left out, and have no gradient then.

    Attributes:
      resolution: side R of the frame.
      scale: at the start.
    """

    resolution: int
    scale: float = 1.5

    @property
    def source(self) -> int:
        """Side of an image of scale 1, in pixels."""
        return max(round(_BASE * self.resolution), 1)

    @nn.compact
    def prompted(self, canvas: Canvas, context: Context) -> Canvas:
        """Replaces the canvas's images by scaled ones on zeros, and adds the frame to them."""
        del context
        side = self.resolution
        values = self.param("values", nn.initializers.zeros, (side, side, 3), jnp.float32)
        start = nn.initializers.constant(self.scale)
        scale = self.param("scale", start, (), jnp.float32)
        smaller = jnp.asarray(resize_matrix(side, self.source))
        resize = enlarging_matrix(scale, self.source, side) @ smaller
        image = jnp.einsum("bhwc,ih,jw->bijc", canvas.image, resize, resize)
        inner = jnp.minimum(jnp.floor(self.source * scale), side).astype(jnp.int32)
        places = jnp.arange(side)
        covered = (places >= (side - inner) // 2) & (places < (side + inner) // 2)
        support = ~(covered[:, None] & covered[None])[None]
        pixels = jnp.where(support[..., None], values[None], 0.0)
        return canvas.replace(
            image=image,
            added=pixels,
            support=support,
            metrics={**canvas.metrics, "image_scale": jnp.broadcast_to(scale, image.shape[:1])},
            shown={**canvas.shown, "prompt": pixels},
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaledSection(TrainedSection):
    """Pixels around an image of a learned size."""

    template: str = key("none", "shape of the prompt", label="template")
    scale: float = key(
        1.5,
        "of an around_scaled prompt: the image's side at the start, as a multiple of 128/224 of "
        "the frame's",
        low=_LIMITS[0],
        high=_LIMITS[1],
        source="AutoVP's code",
        label="image scale",
        axis="scale of the image at the start",
    )
    scale_gradient: float = key(
        1e-3,
        "of an around_scaled prompt: limit of the scale's gradient",
        low=0,
        high=1e6,
        source="AutoVP's code",
    )
    learning_rate: float = learning_rate(40.0, "AutoVP's README, for CLIP")
    optimizer: Optimizer = optimizer("sgd", "AutoVP's code, for CLIP")


class ScaledPart(Part[ScaledSection]):
    """The visual prompt around an image of a learned size."""

    name = "prompt"
    section = ScaledSection
    switch = "template"
    kind = "around_scaled"
    side = "pixels"
    order = 20

    def build(self, section: ScaledSection, around: Surroundings) -> ScaledPrompt:
        return ScaledPrompt(around.resolution, section.scale)

    def transform(self, section: ScaledSection, optimizer: Any) -> Any:
        """Limits the scale's gradient before the optimiser, and the scale itself after it."""
        limit = section.scale_gradient

        def clipped(gradient: Any, params: Any) -> Any:
            del params
            return _at_scale(lambda g: jnp.clip(g, -limit, limit), gradient)

        def within(updates: Any, params: Any) -> Any:
            return _at_scale(lambda u, p: jnp.clip(p + u, *_LIMITS) - p, updates, params)

        return optax.chain(optax.stateless(clipped), optimizer, optax.stateless(within))

    def facts(
        self, section: ScaledSection, built: ScaledPrompt, around: Surroundings
    ) -> dict[str, Any]:
        side = around.resolution
        size = max(side - int(built.source * section.scale), 0) // 2
        return {"prompt_init": "zeros", "prompt_size": size, "prompt_covers_image": False}


def _at_scale(change: Callable[..., jax.Array], tree: Any, *others: Any) -> Any:
    """A tree whose leaf named "scale" is changed; `others` are trees of the same structure."""

    def at(path: tuple[Any, ...], leaf: Any, *rest: Any) -> Any:
        return change(leaf, *rest) if path[-1].key == "scale" else leaf

    return jax.tree.map_with_path(at, tree, *others)


PART = ScaledPart()

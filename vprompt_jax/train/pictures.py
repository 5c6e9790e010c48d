"""What TensorBoard shows of the pixel side during training."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.adaptation import Adaptation, AdaptedCLIP
from vprompt_jax.clip.preprocess import on_screen
from vprompt_jax.data.dataset import Split
from vprompt_jax.parts import Canvas, Context

_SHOWN = 4  # images


def of_pixels(
    adaptation: Adaptation, variables: Mapping[str, Any], split: Split, root: jax.Array
) -> dict[str, np.ndarray]:
    """Pictures in 0..1 by name: the prompt [1, R, R, 3], prompted images and masks [n, R, R, c].

    Args:
      adaptation: the model.
      variables: all of its variables.
      split: whose first images are shown.
      root: the run's root key.

    Returns:
      {} without a part on the pixel side, and with several processes, where no one process has all
      weights.
    """
    model = adaptation.model
    if not model.has("pixels") or jax.process_count() > 1:
        return {}
    indices = np.arange(min(_SHOWN, len(split)), dtype=np.int32)
    context = Context(root, jnp.asarray(indices))
    canvas = _prompted(model, variables, split.fetch(indices), context)
    c = model.clip.config
    pictures = {"prompted": on_screen(canvas.result, c.mean, c.std)}
    if "prompt" in canvas.shown:
        pictures["prompt"] = on_screen(canvas.shown["prompt"][:1], c.mean, c.std)
    if "marks" in canvas.shown:
        marks = np.asarray(canvas.shown["marks"])
        region = model.resolution // marks.shape[-1]
        pictures["mask"] = marks.repeat(region, 1).repeat(region, 2)[..., None]
    return pictures


@functools.partial(jax.jit, static_argnums=0)
def _prompted(model: AdaptedCLIP, variables: Any, images: Any, context: Context) -> Canvas:
    canvas: Any = model.apply(variables, images, context, method="canvas")
    return canvas

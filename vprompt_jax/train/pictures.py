"""What TensorBoard shows of the pixel side during training."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from vprompt_jax.adaptation import Adaptation, AdaptedCLIP
from vprompt_jax.clip.preprocess import on_screen
from vprompt_jax.data.dataset import Split
from vprompt_jax.parts import Canvas, Context
from vprompt_jax.process.printable import printable

_SHOWN = 4  # images
_SIDE = 128  # pixels of a small tower's images, enlarged
_TEXT = 16  # height of a line of text, in pixels
_MARGIN = 64  # for what stands left of a row


def of_pixels(
    adaptation: Adaptation, variables: Mapping[str, Any], split: Split, root: jax.Array
) -> dict[str, np.ndarray]:
    """Pictures of values in 0..1 by name: the prompt, and a panel of images.

    The panel shows the first images of a split with their classes' names: as they are, their masks
    if there are any, and prompted.

    Args:
      adaptation: the model.
      variables: all of its variables.
      split: whose first images are shown.
      root: the run's root key.

    Returns:
      Arrays [1, h, w, 3]; {} without a part on the pixel side, and with several processes, where no
      one process has all weights.
    """
    model = adaptation.model
    if not model.has("pixels") or jax.process_count() > 1:
        return {}
    indices = np.arange(min(_SHOWN, len(split)), dtype=np.int32)
    context = Context(root, jnp.asarray(indices))
    canvas = _prompted(model, variables, split.fetch(indices), context)
    c = model.clip.config
    rows = {"image": on_screen(canvas.image, c.mean, c.std)}
    if "marks" in canvas.shown:
        rows["mask"] = np.asarray(canvas.shown["marks"])[..., None]
    rows["prompted"] = on_screen(canvas.result, c.mean, c.std)
    names = [adaptation.class_names[label] for label in split.labels[indices]]
    side = max(_SIDE, model.resolution)
    pictures = {"examples": _panel(rows, names, side)[None]}
    if "prompt" in canvas.shown:
        prompt = on_screen(canvas.shown["prompt"][:1], c.mean, c.std)
        pictures["prompt"] = np.asarray(_enlarged(prompt[0], side))[None] / 255
    return pictures


def as_bytes(pictures: np.ndarray) -> np.ndarray:
    """Values in 0..1 [..., 1 or 3], clipped to that -> uint8 [..., 3]."""
    pixels = np.round(255 * np.clip(pictures, 0, 1)).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


def _enlarged(picture: np.ndarray, side: int) -> Image.Image:
    """[h, h, 1 or 3] of values in 0..1, each pixel a square."""
    return Image.fromarray(as_bytes(picture)).resize((side, side), Image.Resampling.NEAREST)


def _panel(rows: Mapping[str, np.ndarray], names: Sequence[str], side: int) -> np.ndarray:
    """Rows of pictures [n, h, h, c], with the rows' names beside and the images' names above."""
    size = _MARGIN + len(names) * (side + 2), _TEXT + len(rows) * (side + 2)
    panel = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(panel)
    for column, name in enumerate(names):
        pen.text((_MARGIN + column * (side + 2), 2), printable(name)[: side // 6], "black")
    for row, (title, pictures) in enumerate(rows.items()):
        top = _TEXT + row * (side + 2)
        pen.text((4, top + side // 2), title, "black")
        for column, picture in enumerate(pictures):
            panel.paste(_enlarged(picture, side), (_MARGIN + column * (side + 2), top))
    return np.asarray(panel) / 255


@functools.partial(jax.jit, static_argnums=0)
def _prompted(model: AdaptedCLIP, variables: Any, images: Any, context: Context) -> Canvas:
    canvas: Any = model.apply(variables, images, context, method="canvas")
    return canvas

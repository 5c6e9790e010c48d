"""A picture of what a prompt does to an image."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from vprompt_jax.process import files
from vprompt_jax.process.errors import UserError

_TILE = 224  # least side of a tile of an overlay, in pixels


def overlay(shown: dict[str, np.ndarray], index: int) -> Image.Image:
    """Draws an image, its edges, the mask over it, and the prompted image side by side.

    Args:
      shown: arrays from `Adapted.inspect`.
      index: index of the image in them.
    """
    image = shown["image"][index]
    tiles = [image]
    if "marks" in shown:
        tiles.append(np.repeat(shown["edges"][index][..., None], 3, -1))
        marks = shown["marks"][index]
        factor = len(image) // len(marks)
        marks = marks.repeat(factor, 0).repeat(factor, 1)[..., None]
        # Yellow: the prompt is added. Blue: the mask is off. Grey: the template has no pixels.
        colours = np.where(marks == 1, (1.0, 0.92, 0.27), (0.0, 0.14, 0.31))
        colours = np.where(np.isnan(marks), 0.87, colours)
        tiles.append(0.6 * colours + 0.4 * image)
    tiles.append(shown["prompted"][index])
    enlarged = -(-_TILE // len(image))
    pixels = np.concatenate([t.repeat(enlarged, 0).repeat(enlarged, 1) for t in tiles], axis=1)
    return Image.fromarray(np.round(pixels * 255).astype(np.uint8))


def overlay_path(out: Path, path: Path, taken: set[Path]) -> Path:
    """out/STEM.png, or out/STEM-2.png and so on where another image, or any file, has the name."""
    picture = files.unused(out / f"{path.stem}.png", taken)
    taken.add(picture)
    return picture


def refuse_inputs(out: Path, paths: Iterable[Path]) -> None:
    """Refuses a folder in which a picture would have the name of a photograph that is read.

    Raises:
      UserError: naming it.
    """
    read = {path.resolve() for path in paths}
    for path in sorted(read):
        picture = (out / f"{path.stem}.png").resolve()
        if picture in read:
            raise UserError(
                f"--overlay {out}: the picture of {path.name} would have the name of {picture}, "
                "which is one of the images to label: choose another folder"
            )

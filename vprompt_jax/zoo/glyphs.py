"""Renders digits and letters in matplotlib's fonts, from which the mini CLIP learns."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from vprompt_jax.data import scenes

# Without O, I, S and Z, which many fonts draw like a digit or like each other.
CLASSES = tuple("0123456789ABCDEFGHJKLMNPQRTUVWXY")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Words that are true of several glyphs.
KINDS = {
    **dict.fromkeys(("digit", "number", "figure", "numeral"), CLASSES[:10]),
    **dict.fromkeys(("letter", "capital", "capital letter"), CLASSES[10:]),
    "character": CLASSES,
}
_FONTS = (
    *(f"DejaVuSans{s}" for s in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{s}" for s in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{s}" for s in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{s}" for s in ("", "Bol", "Italic", "BolIta")),
    "cmb10", "cmmi10", "cmr10", "cmss10", "cmti10", "cmtt10",
)  # fmt: skip
# Never trained on: "unseen renderings" use these fonts alone.
HELD_OUT_FONTS = ("DejaVuSansMono-Oblique", "DejaVuSerif", "STIXGeneralBol", "cmss10")
TRAIN_FONTS = tuple(f for f in _FONTS if f not in HELD_OUT_FONTS)
_CANVAS = 56  # pixels; glyphs are drawn large, bent, then shrunk


def names(glyph: str) -> list[str]:
    """What a glyph is called in captions."""
    if not glyph.isdigit():
        return [glyph, f"letter {glyph}", f"capital {glyph}", f"capital letter {glyph}"]
    word = _DIGITS[int(glyph)]
    return [f"{kind}{name}" for kind in ("", "digit ", "number ") for name in (glyph, word)]


@functools.cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(
        Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", 34
    )


def _bend(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotates, slants, stretches and elastically deforms a drawing."""
    angle, slant = np.deg2rad(rng.normal(0, 9)), rng.normal(0, 0.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1.0, 0.0], [slant, 1.0]])
    centre = (_CANVAS - 1) / 2
    at = np.mgrid[:_CANVAS, :_CANVAS].reshape(2, -1) - centre
    smooth = rng.uniform(4, 8)
    shift = ndimage.gaussian_filter(rng.normal(0, 1, (2, _CANVAS, _CANVAS)), (0, smooth, smooth))
    shift *= rng.uniform(0, 2.0) / (shift.std() + 1e-6)
    at = matrix @ at + centre + shift.reshape(2, -1)
    return ndimage.map_coordinates(image, at, order=1).reshape(_CANVAS, _CANVAS)


def render(glyph: str, fonts: tuple[str, ...], rng: np.random.Generator) -> np.ndarray:
    """Renders a glyph in a scene; font, stroke, bend, resolution, size, place, colours are random.

    Returns:
      uint8 [32, 32, 3].
    """
    while True:
        image = Image.new("L", (_CANVAS, _CANVAS))
        ImageDraw.Draw(image).text(
            (_CANVAS / 2, _CANVAS / 2), glyph, 255, _font(fonts[rng.integers(len(fonts))]),
            anchor="mm", stroke_width=int(rng.choice([0, 0, 1, 1, 2, 3])),
        )  # fmt: skip
        shape = _bend(np.asarray(image, np.float32) / 255.0, rng)
        rows, columns = np.nonzero(shape.max(1) > 0.3)[0], np.nonzero(shape.max(0) > 0.3)[0]
        if len(rows) > 6 and len(columns) > 2:  # thin strokes can be bent out of sight
            break
    shape = shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height = int(rng.integers(12, 29))
    aspect = shape.shape[1] / shape.shape[0] * rng.uniform(0.7, 1.3)
    width = int(np.clip(round(height * aspect), 3, scenes.SIDE - 2))
    if rng.random() < 0.5:  # coarse, as from a scanner of low resolution
        cells = int(rng.integers(7, 13))
        coarse = Image.fromarray((shape * 255).astype(np.uint8))
        size = (max(2, round(cells * width / height)), cells)
        shape = np.asarray(coarse.resize(size, Image.Resampling.BOX), np.float32) / 255.0
        shape = np.clip(shape * rng.uniform(1.0, 1.6), 0, 1)
    return scenes.paint(shape, (width, height), rng)


def render_set(count: int, fonts: tuple[str, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Renders `count` scenes, class by class in turn: uint8 [count, 32, 32, 3], int32 [count]."""
    labels = np.arange(count, dtype=np.int32) % len(CLASSES)
    rng = np.random.default_rng(seed)
    images = np.stack([render(CLASSES[label], fonts, rng) for label in labels])
    return images, labels

"""The embedded datasets by name: the digits, the same digits seen otherwise, and printed letters.

The digits alone are a dataset to report on. The others are what a run on the digits can be measured
on where nothing can be downloaded: shifts of the domain, and other classes.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vprompt_jax.data import digits, scenes
from vprompt_jax.data.dataset import Dataset, Split, split_of_arrays
from vprompt_jax.process.errors import UserError

# Without O, I, S and Z, which many fonts draw like a digit or like each other.
LETTERS = tuple("ABCDEFGHJKLMNPQRTUVWXY")
_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "cmr10", "cmss10")
_PER_CLASS = {"train": 60, "test": 40}
_SEED = 20_221_004  # fixed: the dataset is the same in every run


def _grey(images: np.ndarray) -> np.ndarray:
    levels = images @ np.array([0.299, 0.587, 0.114])
    return np.repeat(levels[..., None], 3, axis=-1)


def _faint(images: np.ndarray) -> np.ndarray:
    means = images.mean((1, 2), keepdims=True)
    return means + 0.4 * (images - means)


def _outline(images: np.ndarray) -> np.ndarray:
    """How far grey differs from the pixel to the left and from the one above, white on black."""
    grey = _grey(images)
    across, down = (np.abs(np.diff(grey, axis=a, prepend=grey.take([0], a))) for a in (1, 2))
    return np.minimum(2 * (across + down), 255)


# By name: uint8 images [n, 32, 32, 3] -> what stands in their place, 0..255.
_SHIFTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "digits_grey": _grey,
    "digits_faint": _faint,
    "digits_outline": _outline,
}
NAMES = ("digits", *_SHIFTS, "letters")


def load(name: str) -> Dataset:
    """An embedded dataset.

    Args:
      name: one of `NAMES`; "" for the digits.

    Raises:
      UserError: if there is none of the name.
    """
    if name in ("", "digits"):
        return digits.load()
    if name == "letters":
        return _letters()
    if name not in _SHIFTS:
        raise UserError(
            f"config.data.name={name!r} is no embedded dataset: those are {', '.join(NAMES)}; for "
            "others set config.data.source"
        )
    whole = digits.load()
    shifted = {part: _shifted(split, _SHIFTS[name]) for part, split in whole.splits()}
    return dataclasses.replace(whole.with_splits(shifted), name=name)


def _shifted(split: Split, shift: Callable[[np.ndarray], np.ndarray]) -> Split:
    def fetch(indices: np.ndarray) -> np.ndarray:
        return np.round(shift(split.fetch(indices).astype(np.float64))).astype(np.uint8)

    return dataclasses.replace(split, fetch=fetch)


@functools.cache
def _letters() -> Dataset:
    """Capital letters of several fonts in the digits' scenes; val is left to be cut from train."""
    splits = []
    for number, count in enumerate(_PER_CLASS.values()):
        keys = [(number, label, i) for label in range(len(LETTERS)) for i in range(count)]
        images = np.stack([_letter(key) for key in keys])
        splits.append(split_of_arrays(images, np.array([label for _, label, _ in keys])))
    train, test = splits
    return Dataset("letters", LETTERS, train, None, test)


def _letter(key: tuple[int, int, int]) -> np.ndarray:
    """One scene, uint8 [32, 32, 3], of the letter `key[1]`; it depends on the key alone."""
    rng = np.random.default_rng((_SEED, *key))
    canvas = Image.new("L", (56, 56))
    font = _font(_FONTS[rng.integers(len(_FONTS))])
    ImageDraw.Draw(canvas).text((28, 28), LETTERS[key[1]], 255, font, anchor="mm")
    shape = np.asarray(canvas.crop(canvas.getbbox()), np.float32) / 255.0
    height = int(rng.integers(12, 29))
    width = round(height * shape.shape[1] / shape.shape[0] * rng.uniform(0.8, 1.2))
    return scenes.paint(shape, (min(max(3, width), scenes.SIDE), height), rng)


@functools.cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(folder / f"{name}.ttf", 34)

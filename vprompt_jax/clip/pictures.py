"""Reads pictures in one way for training, evaluation, prediction and the commands.

A picture is turned as its EXIF says, its values become 8-bit grey or RGB, transparency is dropped,
and the first of several frames is taken. docs/data.md has these rules as a table.
"""

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile

from vprompt_jax.process.errors import UserError

# A file, its encoded bytes, an array uint8 [h, w] or [h, w, 1 or 3 or 4], or any PIL image.
Stored = Path | str | bytes | np.ndarray | Image.Image

# How to undo each EXIF orientation except 1 (upright), as in ImageOps.exif_transpose.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose mode I is 16-bit grey: white is 65535
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF's tags


class _WholeFiles:
    """Has Pillow refuse files that end early while any thread is inside this context.

    Pillow has one switch per process, `LOAD_TRUNCATED_IMAGES`, and the process may have set it to
    get grey pixels for what is missing. Here such pixels would be trained on as if they were the
    image. The switch is set back when the last thread has left.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._before = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    ImageFile.LOAD_TRUNCATED_IMAGES = self._before


_whole_files = _WholeFiles()


def decode(stored: Stored) -> Image.Image:
    """Reads a picture.

    Returns:
      A loaded PIL image of mode "L" or "RGB", upright. Decoding it again changes nothing.

    Raises:
      UserError: if an array has another type or shape, or if it is unknown which value is white.
      Exception: whatever Pillow raises at files it cannot read (OSError, ValueError, ...).
    """
    if isinstance(stored, np.ndarray):
        return Image.fromarray(_checked(stored))
    if isinstance(stored, Image.Image):
        return _upright(stored)
    with _whole_files(), _file(stored) as file, Image.open(file) as image:
        return _upright(image)


def decoded_size(stored: Stored, exact_below: int) -> tuple[int, int]:
    """Height and width of what `decode` will return, read from the header.

    A PNG may state its orientation only after the pixels. To avoid reading them, large pictures,
    which are resized anyway, may be reported with height and width exchanged.

    Args:
      stored: as for `decode`.
      exact_below: the answer is exact if neither side is larger, in pixels.

    Raises:
      Exception: whatever Pillow raises at files it cannot read.
    """
    if isinstance(stored, np.ndarray):
        return _checked(stored).shape[:2]
    if isinstance(stored, Image.Image):
        return _upright_size(stored, exact_below)
    with _whole_files(), _file(stored) as file, Image.open(file) as image:
        return _upright_size(image, exact_below)


def _file(stored: Path | str | bytes) -> BinaryIO:
    # Given a path, Pillow 13.0 memory-maps some TIFFs, and reads orientations 5 to 8 wrongly then.
    return io.BytesIO(stored) if isinstance(stored, bytes) else open(stored, "rb")


def _checked(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in (
        (), (1,), (3,), (4,)
    ):  # fmt: skip
        raise UserError(
            f"an image is {array.dtype} {list(array.shape)}: give uint8 [h, w, 3] (or [h, w], "
            "grey), levels 0..255"
        )
    return array[..., 0] if array.shape[2:] == (1,) else array


def _upright_size(image: Image.Image, exact_below: int) -> tuple[int, int]:
    width, height = image.size
    # Pillow itself reports a TIFF's upright size, and turns the picture while loading it.
    if width == height or max(width, height) > exact_below or image.format == "TIFF":
        return height, width
    return (width, height) if _orientation(image) >= 5 else (height, width)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the pixels may be good although the EXIF is damaged
        return 1


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    eight_bits = _eight_bits(image)
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return eight_bits
    turned = eight_bits.transpose(turn)
    turned.info = {}  # it would say that the picture still has to be turned
    return turned


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in mode "L" or "RGB"."""
    mode = image.mode
    if mode in ("L", "RGB"):
        return image
    if mode == "1":
        return image.convert("L")
    if mode == "F" or mode.startswith("I"):
        return Image.fromarray(_levels(image))
    if mode == "La":
        image = image.convert("LA")
    if mode in ("RGBa", "PA") or (mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
    return image.convert("RGB")


def _levels(image: Image.Image) -> np.ndarray:
    """Grey levels uint8 [h, w] of an image of mode F or I (32 bits) or I;16.

    Raises:
      UserError: if it is unclear which value is white.
    """
    tags: Any = getattr(image, "tag_v2", {})
    values = np.asarray(image, np.float64)
    low, high = values.min(), values.max()
    if image.mode.startswith("I;16"):
        bits = tags.get(_BITS, 16)
        white = 2.0 ** (bits[0] if isinstance(bits, tuple) else bits) - 1
    elif image.mode == "I":
        white = 65535.0 if image.format in _SIXTEEN_BITS or high > 255 else 255.0
    else:
        white = 1.0 if high <= 1 else 255.0
    # A float maximum just above 1: fractions that overshoot, or levels 0..255 of a black picture?
    unclear = image.mode == "F" and 1 < high < 2
    if not 0 <= low <= high <= white or unclear:  # a NaN fails this comparison, too
        raise UserError(
            f"its grey values of {'32-bit floats' if image.mode == 'F' else '32 bits'}, {low:g} to "
            f"{high:g}, do not say which is white: save it with 8 or 16 bits"
        )
    levels = np.round(values * (255 / white)).astype(np.uint8)
    return 255 - levels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else levels

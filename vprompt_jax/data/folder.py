"""A folder of images: `train/`, `test/` and, where it exists, `val/`, a sub-folder per class."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from vprompt_jax.clip.preprocess import resize_and_crop
from vprompt_jax.data.dataset import Dataset, Split
from vprompt_jax.errors import UserError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
# A cut-off image must be an error, not grey pixels with the right label.
ImageFile.LOAD_TRUNCATED_IMAGES = False


def _image_size(path: Path) -> tuple[int, int] | str:
    """Width and height from the header, or what is wrong with the file."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # Pillow's decoders raise many kinds
        return f"{path}: {type(error).__name__}: {error}"


def decode(path: Path, resolution: int | None) -> np.ndarray:
    """Reads one image: uint8 [R, R, 3], or at its stored size if `resolution` is None.

    Raises:
      UserError: if it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if resolution is not None:
                return resize_and_crop(image, resolution)
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UserError(f"cannot decode {path} ({error}): repair or remove the image") from error


def images_in(root: Path) -> list[Path]:
    """All image files below a folder, by their suffix, in order of their paths."""
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES)


def _files(root: Path, split: str, classes: list[str]) -> tuple[list[Path], list[int]]:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = images_in(root / split / name)
        files += inside
        labels += [label] * len(inside)
    return files, labels


def load(root: Path, resolution: int, workers: int) -> Dataset:
    """Reads the folder's structure and every image's header.

    Small images of one size keep it (they are resized on the device); others are resized and
    cropped to the tower's resolution while they are decoded.

    Args:
      root: the folder.
      resolution: of the tower.
      workers: threads that read.

    Raises:
      UserError: if a split is missing or empty, its classes differ from train's, or a file is not
        an image; all offenders are listed.
    """
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise UserError(
                f"no folder {root / split}: a dataset folder has train/CLASS/IMAGE and "
                "test/CLASS/IMAGE (val/ is optional)"
            )
    names = [s for s in ("train", "val", "test") if (root / s).is_dir()]
    classes = sorted(p.name for p in (root / "train").iterdir() if p.is_dir())
    if not classes:
        raise UserError(f"{root / 'train'} holds no class folders")
    found = {}
    for name in names:
        extra = sorted(
            p.name for p in (root / name).iterdir() if p.is_dir() and p.name not in classes
        )
        if extra:
            raise UserError(f"{root / name} has classes that train lacks: {', '.join(extra)}")
        files, labels = _files(root, name, classes)
        empty = [c for i, c in enumerate(classes) if i not in set(labels)]
        if empty:
            raise UserError(f"{root / name}: no images of {', '.join(empty)}")
        found[name] = (files, labels)
    with ThreadPoolExecutor(workers) as pool:
        sizes = list(pool.map(_image_size, [f for files, _ in found.values() for f in files]))
    broken = [s for s in sizes if isinstance(s, str)]
    if broken:
        listed = "\n  ".join(broken[:20])
        raise UserError(f"{len(broken)} files are not readable images:\n  {listed}")
    same = len(set(sizes)) == 1 and max(sizes[0]) <= resolution
    splits = {
        name: _split(root, *found[name], None if same else resolution, workers) for name in names
    }
    return Dataset(root.name, tuple(classes), splits["train"], splits.get("val"), splits["test"])


def _split(root: Path, files, labels, resolution: int | None, workers: int) -> Split:
    pool = ThreadPoolExecutor(workers)

    def fetch(indices: np.ndarray) -> np.ndarray:
        return np.stack(list(pool.map(lambda i: decode(files[i], resolution), indices)))

    keys = [f.relative_to(root).as_posix() for f in files]
    return Split(np.asarray(labels, np.int32), fetch, keys)

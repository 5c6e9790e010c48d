"""What decides the stored images of a dataset, beside their names, labels and splits."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vprompt_jax.data.dataset import Dataset
from vprompt_jax.process.errors import UserError

_CHUNK = 1024  # images in memory at a time


def of_files(dataset: Dataset, workers: int) -> str:
    """What changes when images are replaced under their old names.

    Files are read once, as a whole: about a second per GB where they are in the page cache, and as
    long as the disk takes where they are not. Training reads them, too.

    Args:
      dataset: as it is trained on.
      workers: number of threads that read.

    Returns:
      SHA-256 over the names and contents of the files that the keys name; "" where they name none,
      because they are hashes of the images already. (TFDS's source says it itself: the name of the
      prepared version.)

    Raises:
      UserError: if a file cannot be read.
    """
    folder = dataset.folder
    if folder is None:
        return ""

    def digest(key: str) -> bytes:
        with (folder / key).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    keys = sorted({key for _, split in dataset.splits() for key in split.keys})
    whole = hashlib.sha256()
    try:
        with ThreadPoolExecutor(workers) as pool:
            for key, part in zip(keys, pool.map(digest, keys), strict=True):
                whole.update(key.encode("utf-8", "surrogateescape") + b"\0" + part)
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    return whole.hexdigest()


def of_pixels(dataset: Dataset) -> str:
    """SHA-256 over class names, texts, labels and all pixels, for images given in Python.

    About a second per GB of pixels; where a split decodes its images when asked, it decodes them
    once more for this.
    """
    digest = hashlib.sha256()
    names = (dataset.class_names, (dataset.template,), dataset.ensemble)
    digest.update("\0\0".join("\0".join(part) for part in names).encode())
    for name, split in dataset.splits():
        digest.update(f"\0{name} {len(split)}".encode())
        digest.update(np.asarray(split.labels, np.int32).tobytes())
        for start in range(0, len(split), _CHUNK):
            images = split.fetch(np.arange(start, min(start + _CHUNK, len(split))))
            digest.update(f"{images.dtype} {images.shape}".encode())
            digest.update(np.ascontiguousarray(images).tobytes())
    return digest.hexdigest()

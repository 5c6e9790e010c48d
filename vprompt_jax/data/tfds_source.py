"""TensorFlow Datasets by random access (`tfds.data_source`), without tensorflow in the loop."""

import numpy as np

from vprompt_jax.clip.preprocess import resize_and_crop
from vprompt_jax.data.dataset import Dataset, Split
from vprompt_jax.errors import UserError


def load(name: str, data_dir: str, resolution: int) -> Dataset:
    """Loads, and if need be downloads and prepares, a TFDS classification dataset.

    Args:
      name: of the dataset, as TFDS spells it ("cifar10", "dtd:3.*.*").
      data_dir: TFDS's folder; "" for its default.
      resolution: of the tower; images that are larger or of several sizes are resized on the host.

    Raises:
      UserError: if TFDS does not know the dataset, cannot fetch it, or has it prepared in a
        format without random access; if it has no test split or no image and label.
    """
    import tensorflow_datasets as tfds

    where = {"data_dir": data_dir or None}
    try:
        builder = tfds.builder(name, **where, file_format="array_record")
    except (tfds.core.registered.DatasetNotFoundError, AssertionError, ValueError) as error:
        if "File format is already set" in str(error):
            raise UserError(
                f"{name} is prepared in {tfds.builder(name, **where).data_dir} in a format without "
                "random access: prepare it again with file_format='array_record', or choose "
                "another config.data.dir"
            ) from error
        raise UserError(f"TFDS has no dataset {name!r}: {str(error).splitlines()[0]}") from error
    features = builder.info.features or {}
    if "image" not in features or "label" not in features:
        raise UserError(f"{name} has no image and label; it is not a classification dataset")
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS passes on whatever its downloaders raise
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{name} is not prepared in {builder.data_dir} and could not be fetched "
            f"({type(error).__name__}: {reason})"
        ) from error
    sources = builder.as_data_source()
    for split in ("train", "test"):
        if split not in sources:
            raise UserError(f"{name} has no {split} split, only {', '.join(sources)}")
    shape = features["image"].shape
    stored = None not in shape and max(shape[:2]) <= resolution
    made = {
        split: _split(sources[split], split, None if stored else resolution)
        for split in ("train", "validation", "test")
        if split in sources
    }
    return Dataset(
        name, tuple(features["label"].names), made["train"], made.get("validation"), made["test"]
    )


def _split(source, name: str, resolution: int | None) -> Split:
    labels = np.array([source[i]["label"] for i in range(len(source))], np.int32)

    def image(index: int) -> np.ndarray:
        pixels = source[int(index)]["image"]
        if resolution is not None:
            return resize_and_crop(pixels if pixels.shape[-1] == 3 else pixels[..., 0], resolution)
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))

    def fetch(indices: np.ndarray) -> np.ndarray:
        return np.stack([image(i) for i in indices])

    return Split(labels, fetch, [f"{name}/{i}" for i in range(len(source))])

"""Prepares CIFAR-10 and CIFAR-100 for TFDS without TensorFlow.

TFDS's own builders download, unpack and encode with TensorFlow. These take their features,
addresses and checksums from them and leave what they would: the same examples under the same keys,
in the same folder.
"""

import io
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vprompt_jax.process import download
from vprompt_jax.process.environment import is_set
from vprompt_jax.process.paths import cache_folder

NAMES = ("cifar10", "cifar100")
_SIDE = 32  # pixels

Example = dict[str, Any]


def builder(name: str, data_dir: str | None) -> Any:
    """A TFDS builder of "cifar10" or "cifar100" that prepares without TensorFlow.

    Args:
      name: of the dataset, without version or config.
      data_dir: TFDS's folder; None for its default.
    """
    import tensorflow_datasets as tfds

    theirs: Any = tfds.builder_cls(name)
    dataset = name

    class Builder(theirs, skip_registration=True):  # type: ignore[call-arg]
        name = dataset
        url_infos = theirs.url_infos  # TFDS looks for checksums beside the class's own file

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Example]]]:
            del dl_manager  # it unpacks with TensorFlow
            files = self._cifar_info
            archive = _fetched(files.url, self.url_infos)
            needed = [*files.label_files, *files.train_files, *files.test_files]
            members = _members(archive, [files.prefix + file for file in needed])
            for key, file in zip(files.label_keys, files.label_files, strict=True):
                text = members[files.prefix + file].decode()
                self.info.features[key].names = [n for n in text.split("\n") if n]

            def examples(split: str, names: list[str]) -> Iterator[tuple[int, Example]]:
                parts = [members[files.prefix + n] for n in names]
                return _examples(b"".join(parts), split, files.label_keys)

            return {
                tfds.Split.TRAIN: examples("train_", files.train_files),
                tfds.Split.TEST: examples("test_", files.test_files),
            }

    return Builder(data_dir=data_dir, file_format="array_record")


def prepares(builder: Any) -> bool:
    """Whether a TFDS builder is one of these."""
    return builder.name in NAMES


def _fetched(url: str, infos: Any) -> Path:
    """The archive in this package's cache, downloaded and checked unless it is there."""
    target = cache_folder() / "datasets" / url.rpartition("/")[2]
    download.fetch(url, target, sha256=infos[url].checksum, offline=is_set("VPROMPT_OFFLINE"))
    return target


def _members(archive: Path, names: Collection[str]) -> dict[str, bytes]:
    """Files of the archive, whose checksum is known, unpacked in one pass in its own order."""
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name in names else None
            if file is not None:
                found[member.name] = file.read()
    return found


def _examples(data: bytes, split: str, label_keys: list[str]) -> Iterator[tuple[int, Example]]:
    """Examples under TFDS's keys: a record is the labels, then the planes of the image."""
    labels = len(label_keys)
    records = np.frombuffer(data, np.uint8).reshape(-1, labels + 3 * _SIDE**2)
    for index, record in enumerate(records):
        pixels = record[labels:].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        png.seek(0)
        yield (
            index,
            {
                **{key: int(value) for key, value in zip(label_keys, record, strict=False)},
                "id": f"{split}{index:05d}",
                "image": png,
            },
        )

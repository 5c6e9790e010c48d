"""One small set of pictures as CoOp's, TFDS's and the Hub's files hold public datasets.

Six of ImageNet's classes, each in a colour of its own. The classes have another order in each form:
CoOp's split file numbers them as `CLASSES`, the Hub's copy by the alphabet, and TFDS's test set by
their place among ImageNet's thousand.
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vprompt_jax.data.info import texts

tfds = pytest.importorskip("tensorflow_datasets")

NAMES, IDS = texts()["classes"]["imagenet"], texts()["ids"]["imagenet"].split()
CLASSES = ("hen", "tench", "ostrich", "goldfish", "rooster", "great white shark")
COUNTS = {"train": 20, "val": 6, "test": 5}  # images per class
PART = ("hen", "ostrich", "tench")  # classes of the test set
USUAL = {"train": "train", "val": "validation", "test": "test"}


def pixels(split: str, name: str, i: int) -> np.ndarray:
    """uint8 [8, 8, 3]: the class's colour, and noise that makes every picture another."""
    label = CLASSES.index(name)
    rng = np.random.default_rng([list(COUNTS).index(split), label, i])
    colour = np.array([40 * label, 250 * (label % 2), 100 * (label % 3)])
    return np.clip(colour + rng.integers(-30, 31, (8, 8, 3)), 0, 255).astype(np.uint8)


def png(split: str, name: str, i: int) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels(split, name, i)).save(encoded, "PNG")
    return encoded.getvalue()


def examples(split: str) -> list[tuple[str, int]]:
    """Class and number of each of a split's pictures."""
    return [(name, i) for name in CLASSES for i in range(COUNTS[split])]


def file_name(split: str, name: str, i: int) -> str:
    return f"{IDS[NAMES.index(name)]}/{split}{i}.png"


def as_coop(root: Path) -> dict[str, str]:
    """A folder of images in no splits, and the split file beside it; values of `config.data`."""
    rows = {}
    for split in COUNTS:
        for name, i in examples(split):
            path = root / "images" / file_name(split, name, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(split, name, i))
        rows[split] = [
            [file_name(split, name, i), CLASSES.index(name), name] for name, i in examples(split)
        ]
    file = root / "split_zhou_StandIn.json"
    file.write_text(json.dumps(rows))
    return {"source": "folder", "dir": str(root / "images"), "split_file": str(file)}


def as_hub(root: Path) -> dict[str, str]:
    """Parquet files of three splits, classes by the alphabet; values of `config.data`."""
    root.mkdir()
    names = sorted(CLASSES)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    about = json.dumps({"info": {"features": features}})
    for split in COUNTS:
        cells = [{"bytes": png(split, name, i), "path": None} for name, i in examples(split)]
        labels = [names.index(name) for name, _ in examples(split)]
        table = pa.table({"image": cells, "label": labels})
        path = root / f"{USUAL[split]}-00000-of-00001.parquet"
        pq.write_table(table.replace_schema_metadata({"huggingface": about}), path)
    return {"source": "huggingface", "dir": str(root)}


class StandIn(tfds.core.GeneratorBasedBuilder):
    """The pictures in three splits, with file names."""

    VERSION = tfds.core.Version("1.0.0")
    NAMES = CLASSES
    SPLITS = USUAL

    def _info(self):
        label = tfds.features.ClassLabel(names=list(self.NAMES))
        image, name = tfds.features.Image(shape=(8, 8, 3)), tfds.features.Text()
        features = tfds.features.FeaturesDict({"image": image, "label": label, "file_name": name})
        return self.dataset_info_from_configs(features=features, supervised_keys=None)

    def _split_generators(self, dl_manager):
        return {theirs: self._examples(ours) for ours, theirs in self.SPLITS.items()}

    def _generate_examples(self):
        raise NotImplementedError

    def _label(self, name):
        return CLASSES.index(name)

    def _chosen(self, split):
        return examples(split)

    def _examples(self, split):
        for name, i in self._chosen(split):
            file = file_name(split, name, i)
            image = io.BytesIO(png(split, name, i))
            yield file, {"image": image, "label": self._label(name), "file_name": file}


class StandInPart(StandIn):
    """The test pictures of `PART`, with labels among ImageNet's thousand, as ImageNet-R's."""

    VERSION = tfds.core.Version("1.0.0")
    NAMES = IDS
    SPLITS = {"test": "test"}  # noqa: RUF012

    def _label(self, name):
        return NAMES.index(name)

    def _chosen(self, split):
        return [(name, i) for name, i in examples(split) if name in PART]


def as_tfds(root: Path, kind: type[StandIn] = StandIn) -> dict[str, str]:
    """A set that TFDS has prepared; values of `config.data`."""
    kind(data_dir=root, file_format="array_record").download_and_prepare()
    return {"source": "tfds", "name": kind.name, "dir": str(root)}

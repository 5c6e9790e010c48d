"""Reads TensorFlow Datasets by random access (`tfds.data_source`), without TensorFlow.

TFDS needs TensorFlow to prepare a dataset for the first time; `data.cifar` does without.
"""

import difflib
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vprompt_jax.clip.config import Resize
from vprompt_jax.clip.pictures import Stored, decode
from vprompt_jax.data import cifar, derived
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.data.images import Records, lazy_split
from vprompt_jax.data.info import DatasetInfo
from vprompt_jax.process.environment import is_set
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable

Builder = Any  # tfds.core.DatasetBuilder; TFDS is imported late and has no types
Source = Sequence[Mapping[str, Any]]  # examples by index, read from disk
_INSTALL = 'pip install "vprompt_jax[tfds]" (1.3 GB)'
_NAMES = {"train": "train", "val": "validation", "test": "test"}


def builder(name: str, data_dir: str) -> Builder:
    """Returns TFDS's builder of a dataset, which writes and reads records with random access.

    Raises:
      UserError: if TFDS does not know the dataset, or has prepared it in another format.
    """
    import tensorflow_datasets as tfds

    where = {"data_dir": data_dir or None}
    try:
        if name in cifar.NAMES:
            return cifar.builder(name, data_dir or None)
        return tfds.builder(name, **where, file_format="array_record")
    except (tfds.core.registered.DatasetNotFoundError, AssertionError, ValueError) as error:
        if "File format is already set" in str(error):
            raise UserError(
                f"{name} is prepared in {tfds.builder(name, **where).data_dir} in a format without "
                "random access: prepare it again with file_format='array_record', or choose "
                "another config.data.dir"
            ) from error
        known = tfds.list_builders(with_community_datasets=False)  # they would need TensorFlow
        near = difflib.get_close_matches(name, known, 3)
        advice = f"did you mean {', '.join(near)}?" if near else str(error).splitlines()[0]
        raise UserError(f"TFDS has no dataset {name!r}: {advice}") from error
    except ModuleNotFoundError as error:  # a feature of its, such as a video
        if find_spec("tensorflow"):
            raise
        raise UserError(f"TFDS reads {name} with TensorFlow: {_INSTALL}") from error


def is_prepared(builder: Builder) -> bool:
    """Whether a builder's dataset is on this disk."""
    return (Path(builder.data_dir) / "dataset_info.json").is_file()


def version(made: Any) -> str:
    """Name and version of what a builder reads; what TFDS has prepared is not edited by hand."""
    return str(made.info.full_name)


def load(
    name: str,
    data_dir: str,
    resolution: int,
    workers: int = 4,
    *,
    resize: Resize = "shortest",
    row: DatasetInfo | None = None,
    label: str = "",
    vtab: bool = False,
) -> Dataset:
    """Loads a TFDS classification dataset; downloads and prepares it first if necessary.

    Args:
      name: name of the dataset in TFDS ("cifar10", "dtd:3.*.*"), or of its row if it has one.
      data_dir: TFDS's folder; "" for its default.
      resolution: side of the tower's input, in pixels; images that are larger or of several sizes
        are resized on the host.
      workers: number of threads that read.
      resize: how an image becomes square; the tower's `config.resize`.
      row: the dataset's row of the table; None if it has none.
      label: the field that holds the label; "" for the row's, or `label`.
      vtab: whether to take the row's splits of VTAB-1k.

    Returns:
      A dataset with TFDS's class names; `train` or `test` is empty if the row, or TFDS, has none.

    Raises:
      UserError: if TFDS does not know the dataset, cannot fetch it, has prepared it only in part,
        or in a format without random access; if there is no image, no label or no test split.
    """
    source_builder = builder((row and row.tfds) or name, data_dir)
    features = source_builder.info.features or {}
    fields = row or DatasetInfo(name, 0, name, {}, None)
    label_field = label or fields.label
    derive = derived.LABELS.get(label_field)
    if fields.image not in features or (derive is None and label_field not in features):
        raise UserError(
            f"{name} has no {fields.image} and {label_field}: it is not a classification dataset, "
            f"or config.data.label has to name the field: {', '.join(features)}"
        )
    slices = None if row is None else row.vtab if vtab else row.splits
    if vtab and not slices:
        raise UserError(f"{name} is not part of VTAB-1k: config.data.split=official")
    sources = _sources(name, source_builder, slices, fields.fetch)
    if derive is None and not hasattr(features[label_field], "names"):
        raise UserError(f"{name}: {label_field} is not a class label; set config.data.label")
    shape = features[fields.image].shape
    keep_size = None not in shape and max(shape[:2]) <= resolution
    by_split = {
        split: _records(
            f"{name}, {split}", source, fields, derive or (lambda e: e[label_field]), workers
        )
        for split, source in sources.items()
    }
    splits = {
        split: lazy_split(records, None if keep_size else resolution, workers, resize)
        for split, (records, _) in by_split.items()
    }
    classes = row.classes if row and derive else features[label_field].num_classes
    names = list(map(str, range(classes))) if derive else features[label_field].names
    texts = {label: text for _, by_label in by_split.values() for label, text in by_label.items()}
    if texts:
        names = [texts.get(i, str(i)) for i in range(classes)]
    empty = next(iter(splits.values())).take(np.array([], int))
    train, test = (splits.get(split, empty) for split in ("train", "test"))
    val = splits.get("val")
    return Dataset(name, tuple(names), train, val, test, contents=version(source_builder))


def _sources(
    name: str, builder: Builder, slices: Mapping[str, str] | None, fetch: str
) -> dict[str, Source]:
    """Opens every split for random access, by our split names; images stay encoded."""
    import tensorflow_datasets as tfds

    if is_set("VPROMPT_OFFLINE") and not is_prepared(builder):
        raise UserError(
            f"{name} is not prepared in {builder.data_dir}, and VPROMPT_OFFLINE forbids to fetch "
            "it: prepare it where there is a network and copy that folder, or set config.data.dir "
            "to the data_dir that has it" + (f"; by hand: {fetch}" if fetch else "")
        )
    if not (is_prepared(builder) or cifar.prepares(builder) or find_spec("tensorflow")):
        raise UserError(
            f"{name} is not prepared in {builder.data_dir}, and TFDS prepares it with TensorFlow: "
            f"{_INSTALL}, or set config.data.dir to the data_dir that has it"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS passes on whatever its downloaders raise
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{name} is not prepared in {builder.data_dir} and could not be fetched "
            f"({type(error).__name__}: {reason})" + (f"; by hand: {fetch}" if fetch else "")
        ) from error
    if slices is None:
        slices = {ours: theirs for ours, theirs in _NAMES.items() if theirs in builder.info.splits}
        if "test" not in slices:
            raise UserError(f"{name} has no test split, only {', '.join(builder.info.splits)}")

    class Undecoded(tfds.decode.SkipDecoding):
        # TFDS does not define this for videos.
        def decode_batch_example_np(self, frames: Any) -> Any:
            return frames

    visual = (tfds.features.Image, tfds.features.Video)
    skip = {
        field: Undecoded()
        for field, feature in builder.info.features.items()
        if isinstance(feature, visual)
    }
    try:
        sources = {
            ours: builder.as_data_source(theirs, decoders=skip) for ours, theirs in slices.items()
        }
        for source in sources.values():
            source[len(source) - 1]  # an unfinished preparation lacks the last record
    except Exception as error:  # array_record raises many kinds
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{name} in {builder.data_dir} is not complete ({type(error).__name__}: {reason}): "
            "remove that folder and prepare it again"
        ) from error
    return sources


def _records(
    name: str,
    source: Source,
    row: DatasetInfo,
    label_of: Callable[[Mapping[str, Any]], int],
    workers: int,
) -> tuple[Records, dict[int, str]]:
    """Reads every example's label and key in one pass over the records; decodes nothing.

    Returns:
      The records, and class names by label if the row names a field for them.
    """

    def stored(example: Mapping[str, Any]) -> bytes:
        image = example[row.image]
        return image if isinstance(image, bytes) else image[len(image) // 2]

    def index(i: int) -> tuple[int, str, str | None]:
        example = source[i]
        if row.key is None:
            key = hashlib.sha256(stored(example)).hexdigest()
        else:
            key = example[row.key].decode()
        text = example[row.name_field].decode() if row.name_field else None
        return int(label_of(example)), key, text

    def read(i: int) -> Stored:
        image = stored(source[i])
        if row.scale == 1:
            return image
        return np.asarray(decode(image)) * np.uint8(row.scale)

    if len(source) > 200_000:
        print(f"reading the labels of {name}: {len(source):,} records", file=sys.stderr)
    with ThreadPoolExecutor(workers) as pool:
        rows = list(pool.map(index, range(len(source))))
    keys = [key for _, key, _ in rows]
    records = Records(
        [label for label, _, _ in rows],
        keys,
        read,
        lambda i: printable(f"{name} record {i} ({rows[i][1]})"),
        keys if row.key is None else None,
    )
    return records, {label: text for label, _, text in rows if text is not None}

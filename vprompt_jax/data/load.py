"""Loads the dataset that a config names, from any source."""

import dataclasses
import shlex
import sys
from pathlib import Path

import numpy as np

from vprompt_jax.clip.config import Resize
from vprompt_jax.data import (
    arrays,
    catalogue,
    contents,
    copies,
    embedded,
    folder,
    halves,
    huggingface,
    images,
    manifest,
    splits,
    tfds_source,
)
from vprompt_jax.data.dataset import Dataset, check, check_names
from vprompt_jax.data.info import DatasetInfo, class_names, ensemble, readable
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import some_of
from vprompt_jax.schema.sections import DataSection, Protocol

# Sources whose splits are the same for everybody, so that published figures include their copies
# and class names as they are.
_PUBLIC = ("digits", "tfds")


def load(
    section: DataSection,
    protocol: Protocol,
    resolution: int,
    *,
    resize: Resize = "shortest",
    decoded: bool = True,
) -> Dataset:
    """Loads the dataset that a config names.

    Args:
      section: `config.data`.
      protocol: `config.protocol`.
      resolution: of the tower, for images that have to be resized on the host.
      resize: how they become square; the tower's `config.resize`.
      decoded: whether splits that fit in memory are decoded now.

    Returns:
      A dataset that lists what was skipped. Under `protocol=val`, its `val` is the source's or is
      cut from train. Under `protocol=paper`, `val` is None and all of train is trained on; the
      source's own val split is not used, except for VTAB-1k's, whose 800 + 200 images are one
      training set.

    Raises:
      UserError: if the data is missing, empty, damaged or does not fit its classes.
    """
    c = section
    row = _row(c)
    if row is not None and row.for_evaluation:
        raise _without_train(c, c.name)
    dataset, fraction = _described(c, resolution, resize)
    if not len(dataset.train) and not dataset.skipped:
        raise _without_train(c, dataset.name)
    dataset = prepare(dataset, section, protocol, fraction, decoded=decoded)
    stored = dataset.contents or contents.of_files(dataset, c.workers)
    return dataclasses.replace(dataset, contents=stored)


def labelled(
    section: DataSection,
    split: str,
    resolution: int,
    *,
    resize: Resize = "shortest",
    cut: bool = False,
    decoded: bool = True,
) -> Dataset:
    """Loads images to evaluate on, none of which are trained on.

    Args:
      section: as of `load`.
      split: "train", "val" or "test".
      resolution, resize: as of `load`.
      cut: whether a test split that the source lacks is the one that `load` cuts from train.
      decoded: whether they are decoded and checked now, and notes printed.

    Returns:
      A dataset whose `test` holds the split, or, where the source has no test split and that is
      asked for, all its images (unless `cut`).

    Raises:
      UserError: as `load`; or if there is no such split.
    """
    dataset, fraction = _described(section, resolution, resize)
    dataset = halves.kept(dataset, section.classes)
    if cut:
        dataset = splits.with_test(dataset, _test_fraction(section, fraction), section.split_seed)
    parts = {name: part for name, part in dataset.splits() if len(part)}
    chosen = parts.get(split)
    if chosen is None and split == "test":
        chosen = dataset.train if dataset.val is None else dataset.train.joined(dataset.val)
    if chosen is None:
        raise UserError(f"{dataset.name} has no {split} split; it has {', '.join(parts)}")
    chosen, left_out = images.decoded(chosen, section.on_bad_image) if decoded else (chosen, ())
    dataset = dataclasses.replace(
        dataset,
        train=chosen.take(np.array([], int)),
        val=None,
        test=chosen,
        skipped=(*dataset.skipped, *left_out),
    )
    check_names(dataset)
    if not decoded:
        return dataset
    stored = dataset.contents or contents.of_files(dataset, section.workers)
    dataset = dataclasses.replace(dataset, contents=stored)
    for line in (*dataset.notes, *_left_out(dataset)):
        print(f"note: {line}", file=sys.stderr)
    return dataset


def prepare(
    dataset: Dataset,
    section: DataSection,
    protocol: Protocol,
    test_fraction: float | None = None,
    *,
    decoded: bool = True,
) -> Dataset:
    """Cuts missing splits, checks the dataset, and decodes splits that fit in memory.

    `load` does this to the dataset of every source.

    Args:
      dataset: the dataset as its source gives it.
      section: `config.data`.
      protocol: `config.protocol`.
      test_fraction: of train, where there is no test split; None for the config's, else 0.2.
      decoded: as of `load`.

    Raises:
      UserError: if a split is empty, damaged or does not fit the classes; or, unless the source is
        TFDS, if an image is in two splits or two classes have one name.
    """
    c = section
    if c.source not in _PUBLIC:
        check_names(dataset)
        dataset = copies.kept_apart(dataset, c.on_bad_image)
    dataset = halves.kept(dataset, c.classes)
    dataset = splits.with_test(dataset, _test_fraction(c, test_fraction), c.split_seed)
    if protocol == "val" or c.few_shot is not None:
        dataset = splits.with_validation(dataset, c.val_fraction, c.split_seed)
    if c.few_shot is not None:
        seed = c.split_seed if c.shot_seed is None else c.shot_seed
        dataset = splits.few_shot(dataset, c.few_shot, c.val_shots, seed)
    if protocol == "paper":
        if c.split == "vtab" and dataset.val is not None:
            dataset = dataclasses.replace(dataset, train=dataset.train.joined(dataset.val))
        dataset = dataclasses.replace(dataset, val=None)
    check(dataset)
    if decoded:
        dataset = _decoded(dataset, c.on_bad_image)
        check(dataset)
    dataset = dataclasses.replace(dataset, notes=(*dataset.notes, *_not_tested(dataset)))
    for line in (*dataset.notes, *_left_out(dataset)) if decoded else ():
        print(f"note: {line}", file=sys.stderr)
    return dataset


def _test_fraction(section: DataSection, of_row: float | None) -> float:
    """The share of train to cut for test: the config's, else the row's, else a fifth."""
    return section.test_fraction or of_row or 0.2


def _left_out(dataset: Dataset) -> list[str]:
    """A note on what was left out, if anything was."""
    if not dataset.skipped:
        return []
    return [f"{dataset.name}: left out\n  {some_of(dataset.skipped)}"]


def _not_tested(dataset: Dataset) -> list[str]:
    """A note on classes without test images, if there are any."""
    counts = np.bincount(dataset.test.labels, minlength=len(dataset.class_names))
    absent = [n for n, c in zip(dataset.class_names, counts, strict=True) if c == 0]
    if not absent:
        return []
    return [
        f"{dataset.name}: the test split has no image of {some_of(absent, separator=', ')}, so its "
        "accuracy says nothing about them"
    ]


def text_templates(section: DataSection, dataset: Dataset) -> tuple[str, ...]:
    """The prompt templates that a config asks for."""
    if section.template is not None:
        return (section.template,)
    return dataset.ensemble if section.templates == "ensemble" else (dataset.template,)


def _row(c: DataSection) -> DatasetInfo | None:
    """The row of the dataset, unless its label is another field of TFDS's."""
    return None if c.label and c.source == "tfds" else catalogue.find(c.name)


def _described(c: DataSection, resolution: int, resize: Resize) -> tuple[Dataset, float | None]:
    """The dataset of the source with the names and texts of its row, and the row's test share."""
    row = _row(c)
    dataset = _named(_source(c, row, resolution, resize), row, c.name)
    if row is not None:
        dataset = dataclasses.replace(dataset, template=row.template)
    dataset = dataclasses.replace(dataset, ensemble=ensemble(row))
    return dataset, row.test_fraction if row else None


def _named(dataset: Dataset, row: DatasetInfo | None, name: str) -> Dataset:
    """The source's dataset under its row's name and class names, or those of its split file."""
    if row is None:
        return dataset
    dataset = dataclasses.replace(dataset, name=name)
    if dataset.split_file is not None:
        return dataclasses.replace(dataset, class_names=tuple(map(readable, dataset.class_names)))
    if row.is_part and len(dataset.class_names) > row.classes:
        dataset = halves.occurring(dataset)
    return dataclasses.replace(dataset, class_names=class_names(row, dataset.class_names))


def _without_train(c: DataSection, name: str) -> UserError:
    """What to tell who would train on images that are for evaluation."""
    given = {"source": c.source, "name": c.name, "dir": c.dir}
    options = " ".join(f"--{key}={shlex.quote(value)}" for key, value in given.items() if value)
    return UserError(
        f"{name} has no training images: train on other data, and measure the run on it by vprompt "
        f"evaluate --workdir RUN {options}"
    )


def _source(c: DataSection, row: DatasetInfo | None, resolution: int, resize: Resize) -> Dataset:
    """The dataset as the source gives it, with its own splits and class names."""
    path = Path(c.dir).expanduser()
    reading = (resolution, c.workers, c.on_bad_image, resize)
    if c.split_file and c.source not in ("folder", "tfds"):
        raise UserError("config.data.split_file works with config.data.source=folder or tfds")
    listed = splits.read_coop_file(Path(c.split_file).expanduser()) if c.split_file else None
    if c.label and c.source in ("digits", "folder", "arrays"):
        raise UserError(f"config.data.source={c.source} has one label: leave config.data.label")
    if c.source != "tfds" and c.split == "vtab":
        raise UserError("config.data.split=vtab works with config.data.source=tfds alone")
    if c.source == "digits":
        return embedded.load(c.name)
    if c.source == "given":
        raise UserError(
            f"the images of {c.name} were given in Python and are in no file: give them again "
            "(vprompt_jax.fit), or store them as a folder"
        )
    if c.source == "arrays":
        return arrays.load(path)
    if c.source == "manifest":
        return manifest.load(path, c.label, *reading)
    if c.source == "huggingface":
        return huggingface.load(path, c.label, *reading)
    if c.source == "folder":
        if listed is not None:
            return manifest.of_split_file(path, listed, *reading)
        return folder.load(path, *reading)
    if row is not None and row.tfds is None:
        raise UserError(f"{c.name} is not in TFDS: {row.fetch} ({row.url})")
    dataset = tfds_source.load(
        c.name,
        c.dir,
        resolution,
        c.workers,
        resize=resize,
        row=row,
        label=c.label,
        vtab=c.split == "vtab",
    )
    return dataset if listed is None else splits.arranged(dataset, listed)


def _decoded(dataset: Dataset, on_bad: str) -> Dataset:
    """Decodes the splits that fit in memory, and reports the bad images of all splits together."""
    skipped = list(dataset.skipped)
    offenders: list[str] = []
    in_memory = {}
    for name, split in dataset.splits():
        try:
            in_memory[name], left_out = images.decoded(split, on_bad)
            skipped += left_out
        except images.BadImages as error:
            offenders += error.listed
    if offenders:
        raise images.BadImages(offenders)
    return dataclasses.replace(dataset.with_splits(in_memory), skipped=tuple(skipped))

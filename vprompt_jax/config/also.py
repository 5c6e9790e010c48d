"""What a finished run is measured on beside its own test split: `eval.also`, and new classes."""

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path

from vprompt_jax.process.errors import UserError
from vprompt_jax.schema.sections import DataSection, Half

_NAMED = ("tfds", "digits")  # sources whose datasets have names; others have paths
OWN_NEW = "new"  # folder of the new classes of the run's own dataset


@dataclasses.dataclass(frozen=True)
class Target:
    """One dataset to measure on.

    Attributes:
      folder: name of its folder in `elsewhere/` of the workdir.
      section: `config.data` that names it.
      own: whether it is the run's own dataset, of which the classes are others.
    """

    folder: str
    section: DataSection
    own: bool

    @property
    def place(self) -> tuple[str, str, str]:
        """What tells its images from others."""
        return _place(self.section)


def targets(data: DataSection, also: Sequence[str]) -> list[Target]:
    """What a run is measured on when it has finished.

    Args:
      data: the run's. If its classes are the base ones, the new ones are measured on first.
      also: of the config: "NAME", "NAME:base" or "NAME:new", where the name of a dataset that has
        none is its path; ":new" is of the run's own dataset.

    Raises:
      UserError: if an entry is no such text, names what the run is tested on anyway, or two would
        share a folder.
    """
    entries = list(also)
    if data.classes == "base" and ":new" not in entries:
        entries.insert(0, ":new")
    found: dict[str, Target] = {}
    for entry in entries:
        if not isinstance(entry, str):
            raise UserError(f"config.eval.also holds {entry!r}: it holds names of datasets")
        target = _target(data, entry)
        if target.place == _place(data):
            raise UserError(f"config.eval.also: {entry!r} is what the run is tested on: omit it")
        if target.folder in found:
            raise UserError(f"config.eval.also: two entries are called {target.folder!r}")
        found[target.folder] = target
    if data.source == "given" and also:
        raise UserError("config.eval.also needs images that a config can name, not given ones")
    return list(found.values())


def _place(data: DataSection) -> tuple[str, str, str]:
    """What tells images apart; without a name, the source has one set of them alone."""
    return data.name or data.source, data.dir, data.classes


def _target(data: DataSection, entry: str) -> Target:
    name, _, half = entry.rpartition(":")
    if half not in typing.get_args(Half):
        name, half = entry, "all"
    classes = typing.cast(Half, half)
    if not entry:
        raise UserError("config.eval.also holds an empty name")
    if not name:
        return Target(half, dataclasses.replace(data, classes=classes), True)
    is_named = data.source in _NAMED
    # How the run's own images are labelled, listed and chosen says nothing of others.
    other = dataclasses.replace(
        data,
        name=name if is_named else data.name,
        dir=data.dir if is_named else name,
        classes=classes,
        label="",
        split_file="",
        few_shot=None,
        shot_seed=None,
        val_shots=None,
    )
    folder = name if is_named else Path(name).name
    return Target(folder if classes == "all" else f"{folder}-{classes}", other, False)

"""Which files of a folder are pictures, and which folders are splits: one rule for every source."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import features

from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif"}
SUFFIXES |= {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".mpo"}
if features.check("avif"):  # Pillow may be built without it
    SUFFIXES.add(".avif")
# Pictures that Pillow does not read: named where they are met, never passed over in silence.
_UNREADABLE = {".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".svg"} - SUFFIXES
_PICTURES = SUFFIXES | _UNREADABLE

# What systems, programs and archives leave in a user's folders, apart from names with a dot.
_HIDDEN = {
    "@eadir", "@recycle", "@recently-snapshot", "@__thumb", "#recycle", "#snapshot",
    "__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
    "$recycle.bin", "system volume information", "lost+found", "__pycache__",
}  # fmt: skip

_USUAL = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {name: split for split, names in _USUAL.items() for name in names}
USUAL_NAMES = ", ".join(_SPLIT_OF)


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's pictures."""
    return name.startswith(".") or name.lower() in _HIDDEN


def split_of(name: str) -> str | None:
    """The split ("train", "val", "test") that a name usually means, in any case; else None."""
    return _SPLIT_OF.get(name.strip().lower())


def splits_of(names: Iterable[str], where: str | Path) -> tuple[dict[str, str], list[str]]:
    """Which of the names mean which split.

    Returns:
      The names by split, in the order train, val, test; and those that mean none.

    Raises:
      UserError: if two names mean the same split.
    """
    by_split: dict[str, list[str]] = {split: [] for split in _USUAL}
    others: list[str] = []
    for name in names:
        split = split_of(name)
        (others if split is None else by_split[split]).append(name)
    for split, found in by_split.items():
        if len(found) > 1:
            raise UserError(
                f"{printable(where)} has {' and '.join(map(repr, sorted(found)))}, which mean one, "
                f"{split}: join them, or move all but one away"
            )
    return {split: found[0] for split, found in by_split.items() if found}, others


@dataclasses.dataclass(frozen=True)
class Entries:
    """What is in a folder, by name, without what is hidden; links are followed.

    Attributes:
      folders, files: what can be read as such.
      strange: (path, why it is neither).
    """

    folders: list[Path]
    files: list[Path]
    strange: list[tuple[Path, str]]

    @classmethod
    def of(cls, folder: Path) -> "Entries":
        """Lists a folder.

        Raises:
          OSError: if it cannot be read.
        """
        made = cls([], [], [])
        with os.scandir(folder) as inside:
            for entry in sorted(inside, key=lambda e: e.name):
                if hidden(entry.name):
                    continue
                path = folder / entry.name
                try:
                    kind = made.folders if entry.is_dir() else made.files
                    if kind is made.folders or entry.is_file():
                        kind.append(path)
                        continue
                except OSError:  # a link that leads to itself
                    pass
                why = "a link to nothing" if entry.is_symlink() else "no regular file"
                made.strange.append((path, why))
        return made


def in_no_class(found: Entries) -> list[str]:
    """Lines on what may be meant as data where only folders are expected."""
    pictures = [(path, "in no class's folder") for path in found.files if is_picture(path)]
    return [f"{printable(path)} ({why})" for path, why in [*pictures, *found.strange]]


def is_picture(path: Path) -> bool:
    """Whether the name is one of a picture, be it one that can be read here or not."""
    return path.suffix.lower() in _PICTURES


def pictures_below(folder: Path) -> tuple[list[Path], list[str]]:
    """Pictures at all depths, in order of their paths, and what else is there.

    Links to folders are followed. Hidden files and folders do not count.

    Returns:
      Files that should be pictures by their names; and a line on every other entry, with the
      reason.

    Raises:
      OSError: if a folder cannot be read.
    """
    pictures: list[Path] = []
    others: list[str] = []
    for path, reason in _walk(folder, ()):
        if reason is None:
            pictures.append(path)
        else:
            others.append(f"{printable(path)} ({reason})")
    return sorted(pictures), others


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[Path, str | None]]:
    """Files, and the reason for which each is none that can be read (None: it should be)."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        yield folder, "a link to a folder that it is in"
        return
    found = Entries.of(folder)
    for path in found.files:
        yield path, None if path.suffix.lower() in SUFFIXES else _why_not(path)
    yield from found.strange
    for inner in found.folders:
        yield from _walk(inner, (*above, here))


def _why_not(path: Path) -> str:
    if path.suffix.lower() in _UNREADABLE:
        return f"{path.suffix.lower()} cannot be read here: convert it to JPEG or PNG"
    return f"its name ends in none of {' '.join(sorted(SUFFIXES))}"

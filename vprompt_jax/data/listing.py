"""Decides, for every source alike, which files are pictures and which folders are splits."""

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
# Pictures that Pillow does not read. They are reported, never passed over in silence.
_UNREADABLE = {".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".svg"} - SUFFIXES
_PICTURES = SUFFIXES | _UNREADABLE

# What systems, programs and archives leave in a user's folders, besides names with a leading dot.
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
    """Whether a file or folder of this name is not the user's own data."""
    return name.startswith(".") or name.lower() in _HIDDEN


def split_of(name: str) -> str | None:
    """The split ("train", "val" or "test") that a name usually means; None if it means none."""
    return _SPLIT_OF.get(name.strip().lower())


def splits_of(names: Iterable[str], where: str | Path) -> tuple[dict[str, str], list[str]]:
    """Sorts names by the split that they mean.

    Returns:
      The name of each split, in the order train, val, test; and the names that mean no split.

    Raises:
      UserError: if two names mean the same split.
    """
    by_split: dict[str, list[str]] = {split: [] for split in _USUAL}
    others: list[str] = []
    for name in names:
        split = split_of(name)
        (others if split is None else by_split[split]).append(name)
    for split, same in by_split.items():
        if len(same) > 1:
            raise UserError(
                f"{printable(where)} has {' and '.join(map(repr, sorted(same)))}, which mean one, "
                f"{split}: join them, or move all but one away"
            )
    return {split: same[0] for split, same in by_split.items() if same}, others


@dataclasses.dataclass(frozen=True)
class Entries:
    """The content of a folder in order of names, without hidden names; links are followed.

    Attributes:
      folders: paths of folders.
      files: paths of regular files.
      strange: paths of anything else, each with the reason why it is neither.
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
        entries = cls([], [], [])
        with os.scandir(folder) as inside:
            for entry in sorted(inside, key=lambda e: e.name):
                if hidden(entry.name):
                    continue
                path = folder / entry.name
                try:
                    if entry.is_dir():
                        entries.folders.append(path)
                        continue
                    if entry.is_file():
                        entries.files.append(path)
                        continue
                except OSError:  # a link that leads to itself
                    pass
                why = "a link to nothing" if entry.is_symlink() else "no regular file"
                entries.strange.append((path, why))
        return entries


def unreadable(error: OSError) -> UserError:
    """What to tell the user of a folder that cannot be read."""
    return UserError(f"cannot read the folder {printable(str(error.filename))}: {error.strerror}")


def in_no_class(entries: Entries) -> list[str]:
    """One line for everything that may be data, in a folder that should hold only folders."""
    pictures = [(path, "in no class's folder") for path in entries.files if is_picture(path)]
    return [f"{printable(path)} ({why})" for path, why in [*pictures, *entries.strange]]


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name, even one that cannot be read here."""
    return path.suffix.lower() in _PICTURES


def pictures_below(folder: Path) -> tuple[list[Path], list[str]]:
    """Lists the pictures in a folder at all depths, in order of their paths.

    Links to folders are followed. Hidden files and folders do not count.

    Returns:
      Files that should be readable pictures by their names; and one line for every other entry,
      with the reason.

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
    """Yields files, each with the reason why it cannot be read; None if it should be readable."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        yield folder, "a link to a folder that it is in"
        return
    entries = Entries.of(folder)
    for path in entries.files:
        yield path, None if path.suffix.lower() in SUFFIXES else _why_not(path)
    yield from entries.strange
    for inner in entries.folders:
        yield from _walk(inner, (*above, here))


def _why_not(path: Path) -> str:
    if path.suffix.lower() in _UNREADABLE:
        return f"{path.suffix.lower()} cannot be read here: convert it to JPEG or PNG"
    return f"its name ends in none of {' '.join(sorted(SUFFIXES))}"

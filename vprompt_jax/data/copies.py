"""Finds images that are stored more than once, and keeps copies out of different splits."""

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vprompt_jax.data.dataset import Dataset, Split
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import some_of

_SAMPLE = 4096  # bytes read of a file whose size another one has


def file_contents(files: Sequence[Path], workers: int) -> list[str]:
    """Names each file's content: equal names for equal files and for no others.

    To read little, it compares sizes first, then 4 KiB from the middle of files of equal size, and
    reads in full only those files that agree in these, too. A million photographs cost at most a
    million small reads, as many as looking at their headers.

    Returns:
      N names; a file that cannot be read has a name of its own.
    """

    def sample(path: Path, size: int) -> bytes:
        with path.open("rb") as file:
            file.seek(max(0, (size - _SAMPLE) // 2))
            return file.read(_SAMPLE)

    def attempt(look: Callable[[int], str], i: int) -> str:
        try:
            return look(i)
        except OSError:  # reported with the images that cannot be read
            return f"unreadable {i}"

    def of_size(i: int) -> str:
        return str(os.stat(files[i]).st_size)

    def of_sample(i: int) -> str:
        return f"{names[i]} {hashlib.sha256(sample(files[i], int(names[i]))).hexdigest()}"

    def of_whole(i: int) -> str:
        with files[i].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(workers) as pool:
        names = list(pool.map(lambda i: attempt(of_size, i), range(len(files))))
        for look in (of_sample, of_whole):
            count = Counter(names)
            undecided = [i for i, name in enumerate(names) if count[name] > 1]
            finer = pool.map(lambda i, look=look: attempt(look, i), undecided)
            # A list, as `of_sample` still reads the old names in other threads.
            for i, name in zip(undecided, list(finer), strict=True):
                names[i] = name
    return names


def kept_apart(dataset: Dataset, on_bad: str) -> Dataset:
    """Makes sure that no image is in two of the splits that a source gives.

    Args:
      dataset: the dataset; splits without `content_keys` are not examined.
      on_bad: "stop", or "skip" to leave an image out of train if val or test has it, and out of
        val if test has it.

    Raises:
      UserError: under "stop", listing such images.
    """
    seen: dict[str, tuple[Split, int, str]] = {}
    pairs, changed = [], {}
    for name in ("test", "val", "train"):
        split: Split | None = getattr(dataset, name)
        if split is None or split.content_keys is None:
            continue
        copies = [i for i, content in enumerate(split.content_keys) if content in seen]
        for i in copies:
            other, j, where = seen[split.content_keys[i]]
            pairs.append(f"{split.called(i, name)} is {other.called(j, where)}")
        if copies:
            changed[name] = split.take(np.setdiff1d(np.arange(len(split)), copies))
        for i, content in enumerate(split.content_keys):
            seen.setdefault(content, (split, i, name))
    if not pairs:
        return dataset
    if on_bad == "stop":
        raise UserError(
            f"{dataset.name}: {len(pairs)} images are in two splits, so that what is trained on "
            "would be tested: remove one of each two, or leave the first one out with "
            f"config.data.on_bad_image=skip\n  {some_of(pairs)}"
        )
    skipped = (*dataset.skipped, *(f"{pair}, in another split" for pair in pairs))
    return dataclasses.replace(dataset.with_splits(changed), skipped=skipped)

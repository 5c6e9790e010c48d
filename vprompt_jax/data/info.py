"""The fields of a row of the dataset table, and class names made fit for a text prompt."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import some_of

VP_TEMPLATE = "This is a photo of a {}"  # VP, without a full stop
# For datasets without templates of their own: the seven that CLIP's authors selected greedily for
# ImageNet (their notebook on prompts).
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
      about: a few words on what the images show.
      classes: number of classes.
      tfds: name, config and version in TFDS; None if TFDS does not have the dataset.
      splits: our split names -> TFDS's splits or slices. If "test" is missing, it is cut from
        train; then "val" likewise.
      sizes: number of examples in train, val and test of `splits`; None if not known for sure.
      label: the field that holds the label, or the name of a function in `derived`.
      key: the field that names an example; None to name it by the SHA-256 of its stored image.
      image: the field that holds the image, or a video, whose middle frame is taken.
      names: "" to keep TFDS's class names, "CamelCase" to split them into words, or the name of a
        list in texts.json that names the classes in the order of their labels.
      name_field: the field that holds an example's class name if TFDS's label has no names.
      texts: name of the list of prompt templates in texts.json.
      template: the prompt template to use alone.
      side: stored height and width in pixels; None if they vary.
      scale: factor that brings stored values to 0..255.
      test_fraction: share of each class to cut for test if there is no test split.
      vtab: splits of VTAB-1k, like `splits`; None if the dataset is not part of it.
      licence, url: the licence and the web page, as the source states them.
      fetch: what the user has to do by hand because TFDS does not do it.
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

    @property
    def for_evaluation(self) -> bool:
        """Whether the dataset has test images alone."""
        return bool(self.splits) and "train" not in self.splits

    @property
    def is_part(self) -> bool:
        """Whether its classes are some of those that its list of names has."""
        return len(texts()["classes"].get(self.names, ())) > self.classes


@functools.cache
def texts() -> dict[str, dict[str, Any]]:
    """The lists of texts.json: "classes" names classes, "ids" are their WordNet ids in the same
    order, "rename" renames TFDS's classes, "templates"."""
    return json.loads(resources.files("vprompt_jax.data").joinpath("texts.json").read_text())


def ensemble(row: DatasetInfo | None) -> tuple[str, ...]:
    """CLIP's prompt templates for a dataset, or the general ones if it has no row."""
    return GENERAL_TEMPLATES if row is None else tuple(texts()["templates"][row.texts])


def readable(name: str) -> str:
    """Turns a class name into words: drops a folder, number or WordNet id in front, and `_`."""
    if path := re.fullmatch(r"/?[a-z]/(.+)", name):  # SUN397: /a/apse/indoor
        name = path[1].replace("/", " ")
    name = re.sub(r"^(n\d{8}-|\d{3}\.)", "", name)  # Stanford Dogs, CUB
    return " ".join(name.replace("_", " ").split())


def _split_words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def class_names(row: DatasetInfo | None, raw: Sequence[str]) -> tuple[str, ...]:
    """Makes the class names of a source, in the order of labels, fit for a prompt.

    If they are numbers or WordNet ids, the row's list replaces them: a number counts from 0, and an
    id is looked up, whatever the order. Other names are tidied, and renamed where CLIP's authors
    found better words.

    Raises:
      UserError: if the number of classes is not the row's, or a number or id is none of its.
    """
    if row is None:
        return tuple(raw)
    if len(raw) != row.classes:
        raise UserError(
            f"{row.about}: {len(raw)} classes found, but there are {row.classes}: for other data, "
            "leave config.data.name"
        )
    if (listed := texts()["classes"].get(row.names)) is not None:
        if all(re.fullmatch(r"\d+", name) for name in raw):
            if sorted(map(int, raw)) != list(range(len(listed))):
                raise UserError(
                    f"{row.about}: the classes' numbers have to be 0 to {len(listed) - 1}, not "
                    f"{min(map(int, raw))} to {max(map(int, raw))}"
                )
            return tuple(listed[int(name)] for name in raw)
        ids = texts()["ids"].get(row.names, "").split()
        if ids and all(map(is_wordnet_id, raw)):
            label_of = {wnid: label for label, wnid in enumerate(ids)}
            if strange := [wnid for wnid in raw if wnid not in label_of]:
                raise UserError(
                    f"{row.about}: no class has the id {some_of(strange, separator=', ')}"
                )
            return tuple(listed[label_of[wnid]] for wnid in raw)
    renamed = texts()["rename"].get(row.texts, {})
    split = _split_words if row.names == "CamelCase" else str
    return tuple(renamed.get(name, readable(split(name))) for name in raw)


def is_wordnet_id(name: str) -> bool:
    """Whether a class is named by its synset, as ImageNet's folders are."""
    return re.fullmatch(r"n\d{8}", name) is not None

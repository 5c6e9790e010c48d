"""What a family of checkpoints is: how its names, layouts and shapes map to ours."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vprompt_jax.clip.checkpoints.formats import Tensor, Tensors
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import some_of

Path = tuple[str, ...]
Renames = Sequence[tuple[str, str]]

# What torch calls a normalisation's statistics, and torchvision's ResNets (OpenAI's, too) a block.
STATISTICS: Renames = ((r"\.mean$", r".running_mean"), (r"\.var$", r".running_var"))
RESNET_BLOCKS: Renames = (
    (r"layer(\d+)_(\d+)\.downsample_conv\.", r"layer\1.\2.downsample.0."),
    (r"layer(\d+)_(\d+)\.downsample_bn\.", r"layer\1.\2.downsample.1."),
    (r"layer(\d+)_(\d+)\.", r"layer\1.\2."),
)


@dataclasses.dataclass(frozen=True)
class Beside:
    """The JSON files beside the weights, by their usual names; {} where there is none.

    Attributes:
      hugging_face: `config.json`; timm's has the same name.
      open_clip: `open_clip_config.json`.
      preprocessor: the image processor's, of `processor_config.json` or else
        `preprocessor_config.json`.
      preprocessor_file: which of the two.
      name: of the weights' file and its folder, which may say what they are.
      folder: where they lie, for files that only some layouts read.
    """

    hugging_face: dict[str, Any]
    open_clip: dict[str, Any]
    preprocessor: dict[str, Any]
    preprocessor_file: str
    name: str
    folder: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Family:
    """One layout of checkpoints.

    Attributes:
      title: for the reader.
      markers: patterns that each match a name which only this layout has.
      renames: our dotted name -> the file's: patterns and replacements, applied in order.
      text_renames: those of the text tower, where others hold for it.
      configure: (tensors, files beside) -> the dotted fields of `CLIPConfig` that they
        tell, "vision.kind" among them; and, as "notice", what the user should know.
      to_ours: (our path, the file's array) -> the array as we lay it out.
      split: the file's words for query, key and value where it keeps them apart, in place of
        "{}" in the renamed path; () where they are one array.
      prefix: pattern of what some files put before every name.
      ignored: pattern of names that are no weights of the model.
      prepare: changes names, or leaves weights out, according to which there are.
    """

    title: str
    markers: tuple[str, ...]
    renames: Renames
    configure: Callable[[Tensors, Beside], Fields]
    to_ours: Callable[[Path, np.ndarray], np.ndarray]
    split: tuple[str, ...] = ()
    text_renames: Renames = ()
    prefix: str = r"^$"
    ignored: str = r"num_batches_tracked$"
    prepare: Callable[[Tensors], Tensors] = lambda tensors: tensors

    def matches(self, tensors: Tensors) -> bool:
        """Whether the names are of this layout."""
        return all(any(re.search(m, name) for name in tensors) for m in self.markers)

    def names(self, path: Path) -> list[str]:
        """The file's names for one of our variables (its path without the collection)."""
        of_texts = path[0] == "text" and self.text_renames
        name = rename(path, self.text_renames if of_texts else self.renames)
        return [name.format(word) for word in self.split] if "{}" in name else [name]

    def bare(self, tensors: Tensors) -> Tensors:
        """The tensors without the prefix, and without what is no weight of the model."""
        bare = {
            re.sub(self.prefix, "", name): tensor
            for name, tensor in tensors.items()
            if not re.search(self.ignored, name)
        }
        return self.prepare(bare)


def rename(path: Path, renames: Renames) -> str:
    """Our path as a dotted name in a file's words."""
    name = ".".join(path)
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def from_torch(path: Path, array: np.ndarray) -> np.ndarray:
    """Kernels are [in, out] (1x1 convolutions, too) and [h, w, in, out] here, and [out, in] and
    [out, in, h, w] in torch; everything else is the same."""
    if path[-1] != "kernel":
        return array
    if array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)


def without_leading_ones(path: Path, array: np.ndarray) -> np.ndarray:
    """The class token [1, 1, D], and registers and positions [1, N, D], of most ViTs without their
    ones."""
    if path[-1] == "class_embedding":
        return array[0, 0]
    return array[0] if path[-1] in ("register_embedding", "positional_embedding") else array


def plain_vit_from_torch(path: Path, array: np.ndarray) -> np.ndarray:
    """Both of the above: `to_ours` of a ViT whose token and positions have leading ones."""
    return from_torch(path, without_leading_ones(path, array))


def rows_apart(tensors: Tensors, packed: str, names: Sequence[str]) -> Tensors:
    """With the layers that hold several layers of one size, one after another, as one each.

    Args:
      tensors: by names.
      packed: pattern in the names of several layers in one.
      names: what takes the pattern's place in the name of each, in the order of their rows.
    """

    def part(tensor: Tensor, which: int) -> Tensor:
        rows = tensor.shape[0] // len(names)
        own = slice(which * rows, (which + 1) * rows)
        return Tensor((rows, *tensor.shape[1:]), tensor.dtype, lambda: tensor.read()[own])

    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if re.search(packed, name) and tensor.shape and tensor.shape[0] % len(names) == 0:
            for which, own_name in enumerate(names):
                result[re.sub(packed, own_name, name)] = part(tensor, which)
        else:
            result[name] = tensor
    return result


def without_key_bias(tensors: Tensors, query: str, key: str) -> Tensors:
    """With a key's bias of no numbers beside each query's that has none, so that the bias of all
    three is one array without the keys' part (`layers.KeylessBias`).

    Args:
      tensors: by names.
      query: pattern in the names of the queries' biases.
      key: what takes its place in the keys'.
    """
    empty = np.zeros(0, np.float32)
    missing = [re.sub(query, key, name) for name in tensors if re.search(query, name)]
    nothing = Tensor(empty.shape, empty.dtype, lambda: empty)
    return {name: nothing for name in missing} | dict(tensors)


def to_variables(
    tensors: Tensors,
    expected: dict[Path, tuple[int, ...]],
    family: Family,
    cast: Callable[[np.ndarray], np.ndarray],
) -> dict[Path, np.ndarray]:
    """Reads every expected array, one after the other.

    Args:
      tensors: the file's, bare.
      expected: our path, collection first ("params", "visual", ...) -> shape.
      family: the layout.
      cast: gives each array the type it will have, before the next one is read.

    Raises:
      UserError: if names are missing or left over, or a shape differs; all are listed.
    """
    left = set(tensors)
    result, problems = {}, []
    for path, shape in expected.items():
        names = family.names(path[1:])
        if missing := [name for name in names if name not in tensors]:
            problems += [f"- {name} is missing" for name in missing]
            continue
        left.difference_update(names)
        try:
            parts = [family.to_ours(path[1:], _finite(name, tensors[name])) for name in names]
            array = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        except (ValueError, IndexError):  # the layout cannot even be changed
            array = np.empty(0)
        if array.shape != shape:
            stored = " + ".join(str(tensors[name].shape) for name in names)
            wanted = "" if array.ndim == len(shape) == 1 else " after conversion"
            problems.append(
                f"! {', '.join(names)} has shape {stored}, the model needs {shape}{wanted}"
            )
        result[path] = cast(array)
    problems += [f"+ {name} is not part of the model" for name in sorted(left)]
    if problems:
        raise UserError(
            f"the checkpoint, read as {family.title}, does not fit the model:\n  "
            + some_of(problems)
        )
    return result


# The bits of the exponents, which are all set in NaN and infinity and in no other number.
_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80}


def _all_finite(array: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; about 0.2 s for the 151 million numbers
    of a ViT-B/32.

    NumPy converts numbers of 16 bits one by one, so their bits are looked at instead.
    """
    exponent = _EXPONENTS.get(array.dtype.name)
    if exponent is None or not array.size:
        return bool(np.isfinite(array).all())
    return int((array.view(np.uint16) & exponent).max()) != exponent


def _finite(name: str, tensor: Tensor) -> np.ndarray:
    """A tensor's values, of which none is NaN or infinite."""
    array = tensor.read()
    if not _all_finite(array):
        count = int(array.size - np.isfinite(array).sum())
        raise UserError(
            f"{name} holds {count} of {array.size} values that are NaN or infinite: the weights "
            "are damaged, or come from a training that diverged; use an earlier checkpoint"
        )
    return array

"""`load`: a checkpoint's file, folder or public name -> a model and its weights."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import traverse_util

from vprompt_jax.clip.checkpoints import (
    big_vision,
    dino,
    dinov3,
    formats,
    huggingface,
    locate,
    open_clip_coca,
    open_clip_timm,
    openai,
    positions,
    recognise,
    siglip,
    supervised,
    timm,
    timm_siglip,
    vocabularies,
)
from vprompt_jax.clip.checkpoints.configure import check_size, configure
from vprompt_jax.clip.checkpoints.family import Family, to_variables
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.config import ACTIVATIONS, CLIPConfig
from vprompt_jax.clip.model import CLIP
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable

T = TypeVar("T")

FAMILIES: tuple[Family, ...] = (
    open_clip_coca.FAMILY,
    openai.FAMILY,
    *open_clip_timm.FAMILIES,
    huggingface.CLIP_FAMILY,
    siglip.FAMILY,
    dino.DINOV2_FAMILY,
    huggingface.VIT_FAMILY,
    dinov3.FAMILY,
    huggingface.RESNET_FAMILY,
    supervised.NPZ_FAMILY,
    big_vision.FAMILY,
    timm_siglip.FAMILY,
    dinov3.META_FAMILY,
    dino.META_FAMILY,
    dinov3.TIMM_FAMILY,
    timm.FC_NORM_FAMILY,
    timm.FAMILY,
    supervised.TORCHVISION_FAMILY,
)
# What training, data parallelism and torch.compile put before every name.
_WRAPPERS = ("state_dict.", "model.", "module.", "_orig_mod.")


@dataclasses.dataclass(frozen=True)
class Opened:
    """A checkpoint whose weights have not been read yet.

    Attributes:
      path: of the weights, or of the index of their shards.
      family: its layout.
      tensors: by the file's names.
      config: the architecture they are for.
      notice: what was assumed, for the user to read; "" if nothing was.
    """

    path: Path
    family: Family
    tensors: Tensors
    config: CLIPConfig
    notice: str


def variable_shapes(config: CLIPConfig) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shape of every variable of the model, by path; nothing is computed.

    Tracing a large model takes seconds, so each kind of block is traced once (in a ResNet's stage
    twice, for the first differs from the rest), and its shapes stand for those of its equals.
    """
    vision = config.vision.shortened()
    text = None if config.text is None else config.text.shortened()
    few = dataclasses.replace(config, vision=vision, text=text)
    side = config.image_resolution
    inputs = [jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)]
    equals = [("visual", vision.block_counts, config.vision.block_counts)]
    if config.text is not None and text is not None:
        inputs.append(jax.ShapeDtypeStruct((1, config.text.context_length), jnp.int32))
        equals.append(("text", text.block_counts, config.text.block_counts))
    tree = jax.eval_shape(CLIP(few).init, jax.random.key(0), *inputs)
    for collection in tree.values():
        for tower, traced, wanted in equals:
            blocks = collection.get(tower, {})
            for kind, have in traced.items():
                for i in range(have, wanted[kind] if f"{kind}_0" in blocks else 0):
                    blocks[f"{kind}_{i}"] = blocks[f"{kind}_{have - 1}"]
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}


def open_checkpoint(
    path_or_name: str | Path,
    *,
    activation: str | None = None,
    fields: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    offline: bool | None = None,
) -> Opened:
    """Finds a checkpoint (downloads it if need be) and reads its architecture, not its weights.

    Arguments and errors are those of `load`.
    """
    if activation is not None and activation not in ACTIVATIONS:
        raise UserError(f"activation={activation!r}: choose one of {', '.join(ACTIVATIONS)}")
    given = dict(fields or {}) | ({"activation": activation} if activation else {})
    path, told_by_name = locate.locate(path_or_name, cache_dir=cache_dir, offline=offline)
    tensors, wrapped = _unwrapped(formats.read_tensors(path))
    titles = "; ".join(dict.fromkeys(f.title for f in FAMILIES))
    if tower := recognise.tower_of(tensors):
        raise UserError(f"{path} holds {tower}, which is not supported (supported: {titles})")
    family = next((family for family in FAMILIES if family.matches(tensors)), None)
    if family is None:
        some = ", ".join(sorted(tensors)[:4]) or "no tensors"
        raise UserError(
            f"{path} holds {some}, which is in no layout known here ({titles}): it is no CLIP, ViT "
            "or ResNet, or one in the words of another library"
        )
    tensors = family.bare(tensors)
    open_clip = wrapped or path.name.startswith("open_clip")
    config, notice = _fitting(
        path, configure, path, family, tensors, open_clip, told_by_name, given
    )
    _fitting(path, check_size, config, tensors)
    return Opened(path, family, tensors, config, notice)


def _unwrapped(tensors: Tensors) -> tuple[Tensors, bool]:
    """Without what training, data parallelism and `torch.compile` put before every name; whether
    that was there."""
    wrapped = False
    while tensors:
        first = next(iter(tensors)).partition(".")[0] + "."
        if first not in _WRAPPERS or not all(name.startswith(first) for name in tensors):
            break
        tensors = {name.removeprefix(first): tensor for name, tensor in tensors.items()}
        wrapped = True
    return tensors, wrapped


def _fitting(path: Path, convert: Callable[..., T], *args: Any) -> T:
    """Tensors of any names and shapes can come in: those that do not fit are the user's matter."""
    try:
        return convert(*args)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # of NumPy's, Flax's and Python's, according to what is wrong
        reason = (str(error) or repr(error)).splitlines()[0]
        raise UserError(f"the tensors in {path} do not make up a CLIP: {reason}") from error


def load(
    path_or_name: str | Path,
    *,
    activation: str | None = None,
    dtype: jnp.dtype | None = jnp.float32,
    image_resolution: int | None = None,
    fields: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    offline: bool | None = None,
) -> tuple[CLIP, dict[str, Any]]:
    """Loads a CLIP, or a supervised image tower.

    Args:
      path_or_name: a file or folder in one of the known layouts (docs/checkpoints.md); an embedded
        model ("mini-clip-rn"); OpenAI's name ("ViT-B/32"); or a Hugging Face repository
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", with or without "hf-hub:"). The variant is read
        off the tensor shapes; JSON files beside the weights say what shapes do not.
      activation: "quick_gelu", "gelu" or "gelu_tanh", over what the checkpoint says.
      dtype: of the computation and of the weights; vectors (norms, biases) stay float32. None: as
        stored.
      image_resolution: side of the input; the positions are interpolated. None: the checkpoint's.
      fields: other fields of `CLIPConfig`, over what the checkpoint says.
      cache_dir: folder of downloads; else $VPROMPT_CACHE, else ~/.cache/vprompt_jax.
      offline: use what was downloaded before and nothing else; else whether $VPROMPT_OFFLINE is 1.

    Returns:
      The module and its variables (NumPy arrays, nested as Flax does).

    Raises:
      UserError: if the checkpoint cannot be found, downloaded or read, does not fit, or leaves
        open something that must be passed.
    """
    opened = open_checkpoint(
        path_or_name, activation=activation, fields=fields, cache_dir=cache_dir, offline=offline
    )
    if opened.notice:
        logging.warning("%s", printable(opened.notice))
    config = opened.config
    if image_resolution is not None:
        positions.check_resolution(config, image_resolution)
    if dtype is None:
        dtype = stored_dtype(opened.tensors)
    flat = _fitting(
        opened.path,
        to_variables,
        opened.tensors,
        _fitting(opened.path, variable_shapes, config),
        opened.family,
        # Vectors are tiny, and normalisation wants full precision.
        lambda array: np.asarray(array, np.float32 if array.ndim < 2 else dtype),
    )
    if image_resolution is not None and image_resolution != config.image_resolution:
        old, side = config.vision.grid, image_resolution // config.downscale
        for name, array in flat.items():
            if name[1] == "visual" and name[-1] == "positional_embedding":
                flat[name] = positions.interpolate(array, old, side)
        config = config.with_fields({"image_resolution": image_resolution})
    vocabulary = vocabularies.file_beside(opened.path, config.text)
    return CLIP(config, dtype, vocabulary=vocabulary), traverse_util.unflatten_dict(flat)


def stored_dtype(tensors: Tensors) -> np.dtype:
    """The floating type of most of the numbers in a checkpoint; float32 for doubles."""
    sizes: dict[np.dtype, int] = {}
    for tensor in tensors.values():
        if jnp.issubdtype(tensor.dtype, jnp.floating):
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + int(np.prod(tensor.shape))
    most = max(sizes, key=lambda kind: sizes[kind], default=np.dtype(np.float32))
    return np.dtype(np.float32) if most == np.float64 else most

"""OpenAI's names and layouts, which OpenCLIP and our own export share."""

import re

import numpy as np

from vprompt_jax.clip.checkpoints import open_clip
from vprompt_jax.clip.checkpoints.family import (
    RESNET_BLOCKS,
    STATISTICS,
    Beside,
    Family,
    Path,
    from_torch,
    rename,
)
from vprompt_jax.clip.checkpoints.formats import Tensor, Tensors
from vprompt_jax.clip.checkpoints.tower_fields import (
    count,
    grid,
    shape_of,
    text_tower,
    vit_heads,
    vit_tower,
)
from vprompt_jax.clip.config import CLIP_MEAN, CLIP_STD, Fields
from vprompt_jax.process.errors import UserError

_RENAMES = (
    (r"^text\.class_embedding$", r"cls_emb"),
    (r"^text\.resblocks_(\d+)", r"transformer.resblocks.\1"),
    (r"^text\.", r""),
    (r"^visual\.resblocks_(\d+)", r"visual.transformer.resblocks.\1"),
    *RESNET_BLOCKS,
    (r"\.in_proj\.kernel$", r".in_proj_weight"),
    (r"\.in_proj\.bias$", r".in_proj_bias"),
    *STATISTICS,
    (r"\.(kernel|scale|embedding)$", r".weight"),
)


def text_fields(tensors: Tensors) -> Fields:
    """The fields of a text tower under these names that shapes tell, and of what both share."""
    context_length, width = shape_of(tensors, "positional_embedding", 2)
    mlp = shape_of(tensors, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
    vocab_size = shape_of(tensors, "token_embedding.weight", 2)[0]
    layers = count(tensors, r"transformer\.resblocks\.(\d+)\.")
    own = "cls_emb" in tensors
    fields = text_tower(width, layers, mlp, context_length - own, vocab_size)
    if own:
        fields["text.pooling"] = "class"
    if "text_projection" in tensors:
        fields["embed_dim"] = shape_of(tensors, "text_projection", 2)[1]
    else:
        fields |= {"embed_dim": width, "text.projection": False}
    if "text_projection_bias" in tensors:
        fields["text.projection_bias"] = True
    if "transformer.resblocks.0.ls_1.gamma" in tensors:
        fields["text.layer_scale"] = 1.0
    if "logit_bias" in tensors:
        fields["logit_bias"] = True
    return fields


def shape_fields(tensors: Tensors) -> Fields:
    """The fields of both towers that names and shapes tell."""
    fields = text_fields(tensors) | {"mean": CLIP_MEAN, "std": CLIP_STD}
    if "visual.proj" in tensors:
        width, _, _, patch = shape_of(tensors, "visual.conv1.weight", 4)
        name = "visual.positional_embedding"
        layers = count(tensors, r"visual\.transformer\.resblocks\.(\d+)\.")
        mlp = shape_of(tensors, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
        fields |= vit_tower(width, layers, patch, shape_of(tensors, name, 2)[0], name, mlp)
        fields |= vit_heads(width, layers, patch)
        fields["vision.pre_norm"] = "visual.ln_pre.weight" in tensors
        if "visual.transformer.resblocks.0.ls_1.gamma" in tensors:
            fields["vision.layer_scale"] = 1.0
    else:
        stages = count(tensors, r"visual\.layer(\d+)\.") - 1
        name = "visual.attnpool.positional_embedding"
        fields |= {
            "vision.kind": "resnet",
            "vision.blocks": tuple(
                count(tensors, rf"visual\.layer{stage}\.(\d+)\.") for stage in range(1, stages + 1)
            ),
            "vision.width": shape_of(tensors, "visual.conv3.weight", 4)[0],
            "vision.image_resolution": grid(shape_of(tensors, name, 2)[0], name)
            * 2 ** (stages + 1),
            "vision.heads": shape_of(tensors, "visual.attnpool.q_proj.weight", 2)[0] // 64,
        }
    return fields


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    """Reads the architecture off the tensor shapes, and the rest off OpenCLIP's config.

    The activation stays open where there is no config: nothing in the weights tells it.
    """
    fields = shape_fields(tensors)
    if not beside.open_clip:
        shape_of(tensors, "text_projection", 2)  # only a config can say that there is none
    else:
        fields |= open_clip.fields_of(beside.open_clip, fields, beside.folder)
    return fields


def plain_text_names(tensors: Tensors) -> Tensors:
    """OpenCLIP's other ways to write a text tower in OpenAI's words, in this one.

    Its `custom_text` puts "text." before the names, and a projection with a bias is a linear layer.

    Raises:
      UserError: if there are two text towers.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("text.")
        if name == "text_projection.weight":
            name, tensor = "text_projection", _transposed(tensor)
        name = name.replace("text_projection.bias", "text_projection_bias")
        if name in result:
            raise UserError(f"it holds {name} and text.{name}: two text towers, not one")
        result[name] = tensor
    return result


def _transposed(tensor: Tensor) -> Tensor:
    return Tensor(tensor.shape[::-1], tensor.dtype, lambda: tensor.read().T)


FAMILY = Family(
    title="OpenAI's or OpenCLIP's layout",
    markers=(r"^visual\.conv1\.weight$",),
    renames=_RENAMES,
    configure=_configure,
    to_ours=from_torch,
    ignored=r"num_batches_tracked$|^(input_resolution|context_length|vocab_size)$|attn_mask$",
    prepare=plain_text_names,
)

# Public names that tell the activation where no config does: OpenCLIP puts "quickgelu" into the
# names of files trained with it, and trained the rest of these sets with the exact GELU.
_QUICK = re.compile(r"quickgelu", re.IGNORECASE)
_EXACT = re.compile(r"laion|datacomp|commonpool", re.IGNORECASE)


def activation_of(file_name: str) -> str | None:
    """The activation that a public file name implies, or None."""
    if _QUICK.search(file_name):
        return "quick_gelu"
    return "gelu" if _EXACT.search(file_name) else None


def _to_torch(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel":
        return array
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T[:, :, None, None] if "conv" in path[-2] else array.T


def to_state_dict(variables: dict[Path, np.ndarray]) -> dict[str, np.ndarray]:
    """Our flat variables -> OpenAI's names and layouts, from which `load` reads them back."""
    return {rename(p[1:], _RENAMES): _to_torch(p, np.asarray(a)) for p, a in variables.items()}

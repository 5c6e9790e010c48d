"""Supervised towers in the layouts of the original ViT (.npz) and of torchvision."""

import re

import numpy as np

from vprompt_jax.clip.checkpoints import timm
from vprompt_jax.clip.checkpoints.family import (
    RESNET_BLOCKS,
    STATISTICS,
    Beside,
    Family,
    Path,
    from_torch,
    without_leading_ones,
)
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.tower_fields import (
    PLAIN_VIT,
    count,
    shape_of,
    supervised_resnet,
    vit_tower,
)
from vprompt_jax.clip.config import HALF, Fields
from vprompt_jax.process.errors import UserError

# ResNets of timm that share names and shapes with torchvision's, and compute something else.
_OTHERS = re.compile(
    r"resnet(aa|blur|rs|v2)|(se|eca|sk|gc)resnet|resnet\d+(c|d|s|t|ts|_gn)(?![a-z])", re.I
)


def _configure_npz(tensors: Tensors, beside: Beside) -> Fields:
    del beside
    patch, _, _, width = shape_of(tensors, "embedding/kernel", 4)
    name = "Transformer/posembed_input/pos_embedding"
    first = "Transformer/encoderblock_0/"
    mlp = shape_of(tensors, f"{first}MlpBlock_3/Dense_0/kernel", 2)[1]
    query = f"{first}MultiHeadDotProductAttention_1/query/kernel"
    layers = count(tensors, r"Transformer/encoderblock_(\d+)/")
    fields = vit_tower(width, layers, patch, shape_of(tensors, name, 3)[1], name, mlp)
    fields |= PLAIN_VIT | {
        "embed_dim": width,
        "vision.heads": shape_of(tensors, query, 3)[1],
        "vision.activation": "gelu_tanh",
        "vision.norm_eps": 1e-6,  # flax's default
        "mean": HALF,
        "std": HALF,
    }
    if "head/kernel" in tensors:
        fields["classes"] = shape_of(tensors, "head/kernel", 2)[1]
    if "pre_logits/kernel" in tensors:
        fields["pre_logits"] = shape_of(tensors, "pre_logits/kernel", 2)[1]
    return fields


def _npz_to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    # Arrays lie as in flax, with heads as an axis of their own in attention.
    if "in_proj" in path:
        return array.reshape(*array.shape[:-2], -1)
    if "out_proj" in path and path[-1] == "kernel":
        return array.reshape(-1, array.shape[-1])
    return without_leading_ones(path, array)


NPZ_FAMILY = Family(
    title="the original layout of ViT",
    markers=(r"^embedding/kernel$", r"^Transformer/encoder_norm/scale$"),
    renames=(
        (r"^visual\.conv1\.", r"embedding/"),
        (r"^visual\.class_embedding$", r"cls"),
        (r"^visual\.positional_embedding$", r"Transformer/posembed_input/pos_embedding"),
        (r"^visual\.ln_post\.", r"Transformer/encoder_norm/"),
        (r"^visual\.resblocks_(\d+)\.", r"Transformer/encoderblock_\1/"),
        (r"attn\.in_proj\.", r"MultiHeadDotProductAttention_1/{}/"),
        (r"attn\.out_proj\.", r"MultiHeadDotProductAttention_1/out/"),
        (r"ln_1\.", r"LayerNorm_0/"),
        (r"ln_2\.", r"LayerNorm_2/"),
        (r"mlp\.c_fc\.", r"MlpBlock_3/Dense_0/"),
        (r"mlp\.c_proj\.", r"MlpBlock_3/Dense_1/"),
        (r"^classifier\.", r"head/"),
        (r"^pre_logits\.", r"pre_logits/"),
    ),
    split=("query", "key", "value"),
    configure=_configure_npz,
    to_ours=_npz_to_ours,
)


def _configure_torchvision(tensors: Tensors, beside: Beside) -> Fields:
    stages = count(tensors, r"layer(\d+)\.") - 1
    width = shape_of(tensors, "conv1.weight", 4)[0]
    blocks = [count(tensors, rf"layer{stage}\.(\d+)\.") for stage in range(1, stages + 1)]
    if other := _OTHERS.search(beside.name):
        raise UserError(
            f"{beside.name} names a ResNet of another kind ({other[0]}), which has the names and "
            "shapes of a plain one and computes something else: it is not supported"
        )
    if "layer1.0.conv3.weight" not in tensors:
        raise UserError(
            "a ResNet whose blocks have two convolutions (ResNet-18, ResNet-34), which is not "
            "supported: choose ResNet-50, -101 or -152"
        )
    fields = supervised_resnet(width, blocks)
    if "fc.weight" in tensors:
        fields["classes"] = shape_of(tensors, "fc.weight", 2)[0]
    return fields | timm.resnet_fields(beside.hugging_face, width, tuple(blocks))


TORCHVISION_FAMILY = Family(
    title="torchvision's layout of ResNet",
    markers=(r"^conv1\.weight$", r"^layer1\.0\.conv1\.weight$"),
    renames=(
        (r"^visual\.", r""),
        *RESNET_BLOCKS,
        (r"^classifier\.", r"fc."),
        *STATISTICS,
        (r"\.(kernel|scale)$", r".weight"),
    ),
    configure=_configure_torchvision,
    to_ours=from_torch,
)

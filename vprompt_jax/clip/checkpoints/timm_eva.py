"""timm's names and layouts of EVA-CLIP's and PE-Core's image towers, as OpenCLIP uses them.

EVA-02 (arXiv 2303.11331) turns queries and keys by their place, and has gates and further norms; PE
(arXiv 2504.13181) turns them, too, and pools by attention. (Both read in timm's `eva`.)
"""

import re

import numpy as np

from vprompt_jax.clip.checkpoints.family import Path, Renames
from vprompt_jax.clip.checkpoints.formats import Tensor, Tensors
from vprompt_jax.clip.checkpoints.timm_siglip import FAMILY as SIGLIP
from vprompt_jax.clip.checkpoints.tower_fields import count, shape_of, vit_tower
from vprompt_jax.clip.config import Fields

EVA = re.compile(r"eva_giant_patch14_(?:clip_)?\d+|eva02_(base|large|enormous)_patch\d+_clip_\d+")
PE = re.compile(r"vit_pe_core_(tiny|small|base|large|gigantic)_patch\d+_\d+")
_EVA_HEADS = {None: 16, "base": 12, "large": 16, "enormous": 16}
# Heads, and patches per side of the images that the places were counted on.
_PE = {
    "tiny": (3, 24), "small": (6, 24), "base": (12, 14), "large": (16, 24), "gigantic": (16, 32),
}  # fmt: skip


def _tower(tensors: Tensors, first_of_mlp: str) -> Fields:
    """The fields that shapes tell."""
    width, _, _, patch = shape_of(tensors, "patch_embed.proj.weight", 4)
    layers = count(tensors, r"blocks\.(\d+)\.")
    mlp = shape_of(tensors, f"blocks.0.mlp.{first_of_mlp}.weight", 2)[0]
    positions = shape_of(tensors, "pos_embed", 3)[1]
    has_class = "cls_token" in tensors
    fields = vit_tower(width, layers, patch, positions, "pos_embed", mlp, prefix=int(has_class))
    return fields | {
        "embed_dim": shape_of(tensors, "head.weight", 2)[0],
        "vision.class_token": has_class,
        "vision.projection_bias": True,
    }


def eva(tensors: Tensors, architecture: str) -> Fields:
    """The fields of EVA-CLIP's image tower that shapes and timm's name tell."""
    match = EVA.fullmatch(architecture)
    assert match is not None
    gated = match[1] in ("base", "large")
    fields = _tower(tensors, "fc1_x" if gated else "fc1") | {
        "vision.heads": _EVA_HEADS[match[1]],
        "vision.activation": "silu" if gated else "gelu",
        "vision.norm_eps": 1e-6,
        "vision.patch_bias": True,
        "vision.pre_norm": False,
        "vision.qkv_bias": "no_key",
        "vision.post_norm": match[1] == "enormous",
    }
    if not gated:
        return fields
    return fields | {
        "vision.gated_mlp": True,
        "vision.inner_norms": True,
        "vision.rope": "pairs",
        "vision.rope_base": 10_000.0,
        "vision.rope_reference": 16,
    }


def pe(tensors: Tensors, architecture: str) -> Fields:
    """The fields of PE-Core's image tower that shapes and timm's name tell."""
    match = PE.fullmatch(architecture)
    assert match is not None
    heads, reference = _PE[match[1]]
    pool_mlp = shape_of(tensors, "attn_pool.mlp.fc1.weight", 2)[0]
    return _tower(tensors, "fc1") | {
        "vision.heads": heads,
        "vision.activation": "gelu",
        "vision.norm_eps": 1e-5,
        "vision.pooling": "attention",
        "vision.pool_heads": 8,
        "vision.pool_mlp_width": pool_mlp,
        "vision.pool_class": "cls_token" in tensors,
        "vision.rope": "pairs",
        "vision.rope_base": 10_000.0,
        "vision.rope_reference": reference,
        "vision.rope_offset": 0.0 if match[1] == "gigantic" else 1.0,
        "vision.rope_order": "columns",
    }


def with_joined_biases(tensors: Tensors) -> Tensors:
    """The biases of queries and values, which timm keeps apart, as one: keys have none."""
    result = dict(tensors)
    for name in tensors:
        match = re.fullmatch(r"(.*\.attn\.)(?:q_bias|q_proj\.bias)", name)
        other = name.replace(".q_", ".v_")
        if match is None or other not in tensors:
            continue
        query, value = result.pop(name), result.pop(other)
        result[f"{match[1]}qv_bias"] = _joined(query, value)
    return result


def _joined(first: Tensor, second: Tensor) -> Tensor:
    def read() -> np.ndarray:
        return np.concatenate([first.read(), second.read()])

    return Tensor((first.shape[0] + second.shape[0],), first.dtype, read)


def to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    """As of the layouts above."""
    return array.T if path[-1] == "proj" else SIGLIP.to_ours(path, array)


_HEAD: Renames = ((r"^visual\.proj$", r"head.weight"), (r"^visual\.proj_bias$", r"head.bias"))
PE_NAMES: Renames = (*_HEAD, (r"^visual\.ln_pre\.", r"norm_pre."), *SIGLIP.renames)
EVA_NAMES: Renames = (
    *_HEAD,
    (r"\.attn\.in_proj\.bias$", r".attn.qv_bias"),
    (r"\.ln_inner\.", r".norm."),
    (r"\.c_gate\.", r".fc1_g."),
    *SIGLIP.renames,
)
# EVA-02 keeps queries, keys and values apart, too, and has two layers in place of the first.
EVA_02_NAMES: Renames = (
    (r"\.attn\.in_proj\.kernel$", r".attn.{}_proj.weight"),
    (r"\.c_fc\.", r".fc1_x."),
    *EVA_NAMES,
)
SPLIT = ("q", "k", "v")

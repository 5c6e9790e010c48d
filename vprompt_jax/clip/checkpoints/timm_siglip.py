"""timm's names and layout of SigLIP's image tower, which is a ViT without a class token."""

import dataclasses
import re

import numpy as np

from vprompt_jax.clip.checkpoints.family import Beside, Family, Path, plain_vit_from_torch
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.keys import agree
from vprompt_jax.clip.checkpoints.timm import FAMILY as VIT_FAMILY
from vprompt_jax.clip.checkpoints.timm import VIT_ARGS, read_config, with_arguments
from vprompt_jax.clip.checkpoints.tower_fields import (
    SIGLIP_VIT,
    count,
    shape_of,
    vit_tower,
    with_side,
)
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError

# "_gap": without the pooling by attention.
ARCHITECTURE = re.compile(r"vit_(base|large|so400m|giantopt)_patch\d+_siglip(?:_gap)?_\d+")
_HEADS = {"base": 12, "large": 16, "so400m": 16, "giantopt": 16}
# timm gives the others the exact GELU. Their authors trained all with tanh's.
_TANH = re.compile(r"vit_(base_patch32|giantopt_patch16|so400m_patch16|large_patch16\w+_512$)")
_ARGS = dataclasses.replace(VIT_ARGS, must={**VIT_ARGS.must, "class_token": (False,)})
_LATENT = "attn_pool.latent"
_HALVES = ("k_proj", "v_proj")


def tower(tensors: Tensors) -> Fields:
    """The fields of the image tower that shapes tell."""
    width, _, _, patch = shape_of(tensors, "patch_embed.proj.weight", 4)
    layers = count(tensors, r"blocks\.(\d+)\.")
    mlp = shape_of(tensors, "blocks.0.mlp.fc1.weight", 2)[0]
    positions = shape_of(tensors, "pos_embed", 3)[1]
    fields = vit_tower(width, layers, patch, positions, "pos_embed", mlp, prefix=0)
    fields |= SIGLIP_VIT | {"embed_dim": width}
    if _LATENT not in tensors:
        fields["vision.pooling"] = "mean"
    return fields


def named(architecture: str) -> Fields:
    """The fields that timm's name of an architecture tells, if it is one of SigLIP's."""
    match = ARCHITECTURE.match(architecture)
    assert match is not None
    return {
        "vision.heads": _HEADS[match[1]],
        "vision.activation": "gelu_tanh" if _TANH.match(architecture) else "gelu",
    }


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    config = beside.hugging_face
    fields = tower(tensors)
    if "head.weight" in tensors:
        fields["classes"] = shape_of(tensors, "head.weight", 2)[0]
    if not config:
        if _LATENT not in tensors:
            raise UserError(
                "a ViT of timm without a class token and without attn_pool, of which nothing but "
                "its config tells how it pools: put the config.json it was published with beside it"
            )
        return fields
    architecture, values, args, statistics = read_config(config, ARCHITECTURE, _ARGS)
    # What timm's config says of resizing holds, as for its other towers.
    fields |= {"resize": "shortest"} | statistics | named(architecture[0])
    fields = with_side(fields, values["side"])
    stored = {"global_pool": "map" if _LATENT in tensors else "avg"}
    for told in (values, args):
        agree({"global_pool": told["global_pool"]}, stored, "config.json")
    return with_arguments(fields, args)


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] == "probe":
        return array[0, 0]
    if len(path) == 4 and path[2] in _HALVES:  # keys and values are one array there
        array = np.split(array, 2)[_HALVES.index(path[2])]
    return plain_vit_from_torch(path, array)


FAMILY = Family(
    title="timm's layout of SigLIP",
    markers=(r"^patch_embed\.proj\.weight$", r"^attn_pool\.latent$"),
    renames=(
        (r"^visual\.attnpool\.probe$", _LATENT),
        (r"^visual\.attnpool\.q_proj\.", r"attn_pool.q."),
        (r"^visual\.attnpool\.[kv]_proj\.", r"attn_pool.kv."),
        (r"^visual\.attnpool\.out_proj\.", r"attn_pool.proj."),
        (r"^visual\.attnpool\.ln_2\.", r"attn_pool.norm."),
        (r"^visual\.attnpool\.", r"attn_pool."),
        *VIT_FAMILY.renames,
    ),
    configure=_configure,
    to_ours=_to_ours,
)
# Any other ViT of timm without a class token has these names, too: the config tells.
MEAN_FAMILY = dataclasses.replace(
    FAMILY, markers=(r"^patch_embed\.proj\.weight$", r"^blocks\.0\.norm1\.weight$")
)

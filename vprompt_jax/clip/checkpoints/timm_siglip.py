"""timm's names and layout of SigLIP's image tower, which is a ViT without a class token."""

import dataclasses
import re

import numpy as np

from vprompt_jax.clip.checkpoints.family import Beside, Family, Path, plain_vit_from_torch
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.keys import agree
from vprompt_jax.clip.checkpoints.timm import FAMILY as VIT_FAMILY
from vprompt_jax.clip.checkpoints.timm import read_config, tower, with_arguments
from vprompt_jax.clip.checkpoints.timm_keys import SIGLIPS, VIT_ARGS, named
from vprompt_jax.clip.checkpoints.tower_fields import SIGLIP_VIT, with_side
from vprompt_jax.clip.config import Fields

ARCHITECTURE = re.compile("|".join(SIGLIPS))
# It has no tokens but the patches, so a checkpoint's others would be left over.
_SIGLIP: Fields = SIGLIP_VIT | {"vision.registers": 0}
_ARGS = dataclasses.replace(
    VIT_ARGS, must={**VIT_ARGS.must, "class_token": (False,), "reg_tokens": (0,)}
)
_LATENT = "attn_pool.latent"
_HALVES = ("k_proj", "v_proj")


def siglip(tensors: Tensors, architecture: str) -> Fields:
    """The fields of SigLIP's image tower that shapes and timm's name tell."""
    found = named(architecture, SIGLIPS)
    assert found is not None
    kind, own = found
    return with_arguments(tower(tensors) | _SIGLIP, kind, _ARGS.values(own))


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    config = beside.hugging_face
    fields = tower(tensors) | _SIGLIP
    if not config:
        return fields
    kind, values, args, statistics = read_config(config, SIGLIPS, _ARGS)
    for told in (values, args):
        agree({"global_pool": told["global_pool"]}, {"global_pool": "map"}, "config.json")
    # What timm's config says of resizing holds, as for its other towers.
    fields |= {"resize": "shortest"} | statistics
    return with_arguments(with_side(fields, values["side"]), kind, args)


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

"""OpenCLIP's layout of a CLIP whose image tower is one of timm's (SigLIP)."""

from typing import Any

import numpy as np

from vprompt_jax.clip.checkpoints import open_clip, timm_siglip
from vprompt_jax.clip.checkpoints.family import Beside, Family, Path, from_torch
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.keys import Keys, agree, side_of
from vprompt_jax.clip.checkpoints.openai import FAMILY as OPENAI
from vprompt_jax.clip.checkpoints.openai import text_fields
from vprompt_jax.clip.checkpoints.tower_fields import with_side
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError

_TRUNK = "visual.trunk."
# OpenCLIP reads no other key of its own beside timm's names.
VISION = Keys(
    open_clip.VISION.where,
    read={"timm_model_name": None, "image_size": None},
    must={"timm_pool": ("map",), "timm_proj": ("none",)},
    harmless=open_clip.VISION.known,
)


def _vision(config: dict[str, Any], quick: bool, shapes: Fields) -> Fields:
    """What the config of the image tower adds; timm's have the activation of their name."""
    del quick
    values = VISION.values(config)
    name = values["timm_model_name"]
    side = side_of(values["image_size"], f"{VISION.where}: image_size")
    fields = with_side(shapes, side)
    agree({"image_size": side}, {"image_size": fields["vision.image_resolution"]}, VISION.where)
    return fields | timm_siglip.named(name)


def _architecture(config: Any) -> Any:
    """timm's name of the image tower in the whole config; None if it says none."""
    for part in ("model_cfg", "vision_cfg", "timm_model_name"):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    if not beside.open_clip:
        raise UserError(
            f"its image tower is one of timm's, and only {open_clip.FILE} says which: put the one "
            "it was published with beside it"
        )
    name = _architecture(beside.open_clip)
    if not timm_siglip.ARCHITECTURE.fullmatch(str(name)):
        raise UserError(
            f"{VISION.where} says timm_model_name={name!r}, which is not supported (supported: "
            "SigLIP's, such as 'vit_base_patch16_siglip_224')"
        )
    trunk = {n.removeprefix(_TRUNK): t for n, t in tensors.items() if n.startswith(_TRUNK)}
    fields = timm_siglip.tower(trunk) | text_fields(tensors)
    return fields | open_clip.fields_of(beside.open_clip, fields, beside.folder, _vision)


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    of_images = path[0] == "visual"
    return timm_siglip.FAMILY.to_ours(path, array) if of_images else from_torch(path, array)


FAMILY = Family(
    title="OpenCLIP's layout of SigLIP",
    markers=(r"^visual\.trunk\.attn_pool\.latent$",),
    renames=(*timm_siglip.FAMILY.renames, (r"^(?!logit_)", _TRUNK)),
    text_renames=OPENAI.renames,
    configure=_configure,
    to_ours=_to_ours,
    ignored=OPENAI.ignored,
    prepare=OPENAI.prepare,
)

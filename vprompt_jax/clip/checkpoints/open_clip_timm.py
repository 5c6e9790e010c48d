"""OpenCLIP's layout of a CLIP whose image tower is one of timm's: SigLIP, EVA-CLIP, PE-Core."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from vprompt_jax.clip.checkpoints import open_clip, timm_eva, timm_siglip
from vprompt_jax.clip.checkpoints.family import Beside, Family, Path, Renames, from_torch
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.keys import Keys, agree, side_of
from vprompt_jax.clip.checkpoints.openai import FAMILY as OPENAI
from vprompt_jax.clip.checkpoints.openai import text_fields
from vprompt_jax.clip.checkpoints.tower_fields import check_features, with_side
from vprompt_jax.clip.config import CLIP_MEAN, CLIP_STD, Fields
from vprompt_jax.process.errors import UserError

_TRUNK = "visual.trunk."
# OpenCLIP reads no other key of its own beside timm's names.
VISION = Keys(
    open_clip.VISION.where,
    read={"timm_model_name": None, "image_size": None, "timm_pool": "avg", "timm_proj": "linear"},
    must={},
    harmless=open_clip.VISION.known,
)


@dataclasses.dataclass(frozen=True)
class Tower:
    """One kind of timm's towers.

    Attributes:
      names: what timm calls its architectures.
      fields: (tensors, architecture) -> the fields that shapes and name tell.
      asks: what OpenCLIP's config says of its pooling and projection.
    """

    names: re.Pattern[str]
    fields: Callable[[Tensors, str], Fields]
    asks: dict[str, Any]


_CLIP: Fields = {"mean": CLIP_MEAN, "std": CLIP_STD}
_TOWERS = (
    Tower(
        timm_siglip.ARCHITECTURE,
        timm_siglip.siglip,
        {"timm_pool": "map", "timm_proj": "none"},
    ),
    Tower(
        timm_eva.EVA,
        lambda tensors, name: timm_eva.eva(tensors, name) | _CLIP,
        {"timm_pool": "token", "timm_proj": None},
    ),
    Tower(
        timm_eva.PE,
        lambda tensors, name: timm_eva.pe(tensors, name) | _CLIP,
        {"timm_pool": "map", "timm_proj": None},
    ),
)


def _vision(config: dict[str, Any], quick: bool, shapes: Fields) -> Fields:
    """What the config of the image tower adds; timm's have the activation of their name."""
    del quick
    side = side_of(VISION.values(config)["image_size"], f"{VISION.where}: image_size")
    fields = with_side(shapes, side)
    agree({"image_size": side}, {"image_size": fields["vision.image_resolution"]}, VISION.where)
    return fields


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    if not beside.open_clip:
        raise UserError(
            f"its image tower is one of timm's, and only {open_clip.FILE} says which: put the one "
            "it was published with beside it"
        )
    model = open_clip.CONFIG.values(beside.open_clip)["model_cfg"] or {}
    said = VISION.values(model.get("vision_cfg"))
    name = str(said["timm_model_name"])
    tower = next((tower for tower in _TOWERS if tower.names.fullmatch(name)), None)
    if tower is None:
        raise UserError(
            f"{VISION.where} says timm_model_name={said['timm_model_name']!r}, which is not "
            f"supported (supported: {', '.join(tower.names.pattern for tower in _TOWERS)})"
        )
    for key, value in tower.asks.items():
        if (said[key] or None) != value:
            raise UserError(
                f"{VISION.where} asks for {key}={said[key]!r} with {name}, which is not supported "
                f"(supported: {value!r}): choose another checkpoint"
            )
    trunk = {n.removeprefix(_TRUNK): t for n, t in tensors.items() if n.startswith(_TRUNK)}
    fields = tower.fields(trunk, name)
    of_texts = text_fields(tensors)
    check_features(of_texts["embed_dim"], fields["embed_dim"])
    fields |= of_texts
    return fields | open_clip.fields_of(beside.open_clip, fields, beside.folder, _vision)


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    return timm_eva.to_ours(path, array) if path[0] == "visual" else from_torch(path, array)


def _prepare(tensors: Tensors) -> Tensors:
    return timm_eva.with_joined_biases(OPENAI.prepare(tensors))


def _family(title: str, renames: Renames, *markers: str) -> Family:
    return Family(
        title=f"OpenCLIP's layout of {title}",
        markers=tuple(rf"^visual\.trunk\.{marker}$" for marker in markers),
        renames=(*renames, (r"^(?!logit_)", _TRUNK)),
        text_renames=OPENAI.renames,
        configure=_configure,
        to_ours=_to_ours,
        split=timm_eva.SPLIT,
        ignored=OPENAI.ignored,
        prepare=_prepare,
    )


# The first that fits; what it really is, the config says.
FAMILIES = (
    _family("EVA-02-CLIP", timm_eva.EVA_02_NAMES, r"blocks\.0\.attn\.q_proj\.weight"),
    _family("EVA-CLIP", timm_eva.EVA_NAMES, r"blocks\.0\.attn\.q_bias"),
    _family("PE-Core", timm_eva.PE_NAMES, r"norm_pre\.weight", r"attn_pool\.latent"),
    _family("SigLIP", timm_siglip.FAMILY.renames, r"attn_pool\.latent"),
)

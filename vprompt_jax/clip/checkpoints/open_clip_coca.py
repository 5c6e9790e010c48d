"""OpenCLIP's layout of CoCa (arXiv 2205.01917): its two towers, without what writes captions."""

import numpy as np

from vprompt_jax.clip.checkpoints import open_clip, openai
from vprompt_jax.clip.checkpoints.family import Beside, Family, Path, from_torch, rows_apart
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.tower_fields import shape_of
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError

_QUERY = "visual.attn_pool.query"
_JOINED = r"^(visual\.attn_pool\.attn\.)in_proj_(?=(weight|bias)$)"


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    if not beside.open_clip:
        raise UserError(
            f"it holds a CoCa, and only {open_clip.FILE} says how many heads its pooling has: put "
            "the one it was published with beside it"
        )
    fields = openai.shape_fields(tensors)
    notice = "the weights that write captions (text_decoder.*) are left out"
    if _QUERY in tensors:
        queries = shape_of(tensors, _QUERY, 2)[0]
        fields |= {
            "vision.pooling": "query",
            "vision.final_norm": "after",
            "vision.pool_class": True,
        }
        notice += f", as are the {queries - 1} of {queries} queries in {_QUERY} that only they read"
    config = dict(beside.open_clip)
    if isinstance(config.get("model_cfg"), dict):
        # What it says of the decoder.
        config["model_cfg"] = {
            k: v for k, v in config["model_cfg"].items() if k != "multimodal_cfg"
        }
    fields |= open_clip.fields_of(config, fields, beside.folder)
    return fields | {"notice": f"a CoCa's texts and images are compared as CLIP's: {notice}."}


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    return array[0] if path[-1] == "probe" else from_torch(path, array)


def _prepare(tensors: Tensors) -> Tensors:
    """With the biases of queries, keys and values apart, and with their weights, which torch joins
    where all have as many channels."""
    names = [rf"\1{word}_proj_" for word in "qkv"]
    return rows_apart(openai.plain_text_names(tensors), _JOINED, names)


FAMILY = Family(
    title="OpenCLIP's layout of CoCa",
    markers=(r"^visual\.conv1\.weight$", r"^text_decoder\."),
    renames=(
        (r"^visual\.attnpool\.probe$", _QUERY),
        (r"^visual\.attnpool\.([qkv])_proj\.kernel$", r"visual.attn_pool.attn.\1_proj_weight"),
        (r"^visual\.attnpool\.([qkv])_proj\.bias$", r"visual.attn_pool.attn.\1_proj_bias"),
        (r"^visual\.attnpool\.out_proj\.", r"visual.attn_pool.attn.out_proj."),
        (r"^visual\.attnpool\.", r"visual.attn_pool."),
        *openai.FAMILY.renames,
    ),
    configure=_configure,
    to_ours=_to_ours,
    ignored=rf"{openai.FAMILY.ignored}|^text_decoder\.",
    prepare=_prepare,
)

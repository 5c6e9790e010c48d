"""big_vision's layout (.npz) of SigLIP and SigLIP 2, which is that of their authors."""

import re

import numpy as np

from vprompt_jax.clip.checkpoints.family import Beside, Family, Path, without_leading_ones
from vprompt_jax.clip.checkpoints.formats import Tensor, Tensors
from vprompt_jax.clip.checkpoints.processors import pixel_fields
from vprompt_jax.clip.checkpoints.tower_fields import (
    SIGLIP_VIT,
    count,
    shape_of,
    siglip_text,
    vit_tower,
)
from vprompt_jax.clip.checkpoints.vocabularies import tokenizer_fields
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError

_PROBE = "img/MAPHead_0/probe"
_PATCHES = "img/embedding/kernel"


def _encoder(tensors: Tensors, name: str) -> tuple[int, int, int]:
    """Number of blocks, width of the MLP and number of heads."""
    first = f"{name}/encoderblock_0"
    mlp = shape_of(tensors, f"{first}/MlpBlock_0/Dense_0/kernel", 2)[1]
    query = f"{first}/MultiHeadDotProductAttention_0/query/kernel"
    return count(tensors, rf"{name}/encoderblock_(\d+)/"), mlp, shape_of(tensors, query, 3)[1]


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    if _PATCHES in tensors and len(tensors[_PATCHES].shape) == 2:
        raise UserError(
            "it holds a SigLIP 2 for images of any shape (NaFlex), which is not supported: choose "
            "a SigLIP 2 for images of one size"
        )
    if _PROBE not in tensors or "b" not in tensors:
        raise UserError(
            f"{_PROBE} or b is missing: of big_vision's towers, only SigLIP's are supported"
        )
    patch, _, _, width = shape_of(tensors, _PATCHES, 4)
    positions = shape_of(tensors, "img/pos_embedding", 3)[1]
    layers, mlp, heads = _encoder(tensors, "img/Transformer")
    fields = vit_tower(width, layers, patch, positions, "img/pos_embedding", mlp, prefix=0)
    fields |= SIGLIP_VIT | {"embed_dim": width, "vision.heads": heads}
    _, context_length, text_width = shape_of(tensors, "txt/pos_embedding", 3)
    vocabulary = shape_of(tensors, "txt/Embed_0/embedding", 2)[0]
    layers, mlp, heads = _encoder(tensors, "txt/Encoder_0")
    features = shape_of(tensors, "txt/head/kernel", 2)[1]
    fields |= siglip_text(text_width, layers, mlp, context_length, vocabulary, features, width)
    # big_vision's encoders know one activation.
    fields |= dict.fromkeys(("vision.activation", "text.activation"), "gelu_tanh")
    fields |= {"text.heads": heads, **tokenizer_fields(beside.folder)}
    return fields | pixel_fields(
        beside.preprocessor, beside.preprocessor_file, decides=True, crops=False
    )


def _block_by_block(tensors: Tensors) -> Tensors:
    """The blocks one by one, where they are stacked as a scan over them leaves them."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stacked = re.fullmatch(r"(.*/)encoderblock/(.*)", name)
        if stacked is None or not tensor.shape:
            result[name] = tensor
            continue
        for i in range(tensor.shape[0]):

            def read(tensor: Tensor = tensor, i: int = i) -> np.ndarray:
                return tensor.read()[i]

            unstacked = f"{stacked[1]}encoderblock_{i}/{stacked[2]}"
            result[unstacked] = Tensor(tensor.shape[1:], tensor.dtype, read)
    return result


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] in ("logit_scale", "logit_bias"):
        return array.reshape(())  # [1] there
    if path[-1] == "probe":
        return array[0, 0]
    # Arrays lie as in flax, with heads as an axis of their own in attention.
    if path[-2] in ("in_proj", "q_proj", "k_proj", "v_proj"):
        return array.reshape(*array.shape[:-2], -1)
    if path[-2:] == ("out_proj", "kernel"):
        return array.reshape(-1, array.shape[-1])
    return without_leading_ones(path, array)


FAMILY = Family(
    title="big_vision's layout of SigLIP",
    markers=(r"^(params/)?img/embedding/kernel$", r"^(params/)?txt/"),
    renames=(
        (r"^logit_scale$", r"t"),
        (r"^logit_bias$", r"b"),
        (r"^visual\.conv1\.", r"img/embedding/"),
        (r"^visual\.positional_embedding$", r"img/pos_embedding"),
        (r"^visual\.ln_post\.", r"img/Transformer/encoder_norm/"),
        (r"^visual\.resblocks_(\d+)\.", r"img/Transformer/encoderblock_\1/"),
        (r"^visual\.attnpool\.([qkv])_proj\.", r"visual.attnpool.attn.\1."),
        (r"^visual\.attnpool\.out_proj\.", r"visual.attnpool.attn.out_proj."),
        (r"^visual\.attnpool\.ln_2\.", r"img/MAPHead_0/LayerNorm_0/"),
        (r"^visual\.attnpool\.", r"img/MAPHead_0/"),
        (r"^text\.token_embedding\.", r"txt/Embed_0/"),
        (r"^text\.positional_embedding$", r"txt/pos_embedding"),
        (r"^text\.ln_final\.", r"txt/Encoder_0/encoder_norm/"),
        (r"^text\.text_projection$", r"txt/head/kernel"),
        (r"^text\.text_projection_bias$", r"txt/head/bias"),
        (r"^text\.resblocks_(\d+)\.", r"txt/Encoder_0/encoderblock_\1/"),
        (r"attn\.in_proj\.", r"MultiHeadDotProductAttention_0/{}/"),
        (r"attn\.q\.", r"MultiHeadDotProductAttention_0/query/"),
        (r"attn\.k\.", r"MultiHeadDotProductAttention_0/key/"),
        (r"attn\.v\.", r"MultiHeadDotProductAttention_0/value/"),
        (r"attn\.out_proj\.", r"MultiHeadDotProductAttention_0/out/"),
        (r"ln_1\.", r"LayerNorm_0/"),
        (r"ln_2\.", r"LayerNorm_1/"),
        (r"mlp\.c_fc\.", r"MlpBlock_0/Dense_0/"),
        (r"mlp\.c_proj\.", r"MlpBlock_0/Dense_1/"),
    ),
    split=("query", "key", "value"),
    configure=_configure,
    to_ours=_to_ours,
    prefix=r"^params/",
    prepare=_block_by_block,
)

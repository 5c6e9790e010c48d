"""DINOv2, an image tower that was trained without labels or texts, in Hugging Face's layout (the
transformers library) and in Meta's own; and what DINOv3 shares with it."""

import re

from vprompt_jax.clip.checkpoints.family import (
    Beside,
    Family,
    Renames,
    plain_vit_from_torch,
    rows_apart,
)
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.keys import agree
from vprompt_jax.clip.checkpoints.processors import pixel_fields
from vprompt_jax.clip.checkpoints.tower_fields import PLAIN_VIT, count, shape_of, vit_tower
from vprompt_jax.clip.checkpoints.transformers_keys import DINOV2
from vprompt_jax.clip.checkpoints.transformers_values import check_type, square, with_vit_config
from vprompt_jax.clip.config import IMAGENET_MEAN, IMAGENET_STD, Fields
from vprompt_jax.clip.variants import VISION_HEADS
from vprompt_jax.process.errors import UserError


def tower(
    tensors: Tensors,
    *,
    patches: str,
    positions: str,
    registers: str,
    block: str,
    hidden: str,
    gate: str,
) -> Fields:
    """The fields that shapes tell, and those that all DINOs share.

    Args:
      tensors: the file's, bare.
      patches: name of the projection of the patches.
      positions: name of the learned positions; "" if there are none.
      registers: name of the registers, [1, R, D].
      block: pattern of a block's names, whose group is its number.
      hidden: name of the first block's first layer, beside the gate's if there is one.
      gate: name of the first block's gate.
    """
    width, _, _, patch = shape_of(tensors, patches, 4)
    count_of_registers = shape_of(tensors, registers, 3)[1] if registers in tensors else 0
    placed = "class" if count_of_registers else "all"  # registers have no position
    if positions:
        length = shape_of(tensors, positions, 3)[1]
    else:
        placed, length = "none", max(224 // patch, 1) ** 2
    layers, mlp = count(tensors, block), shape_of(tensors, hidden, 2)[0]
    fields = vit_tower(width, layers, patch, length, positions, mlp, prefix=1 if positions else 0)
    gated = gate in tensors
    # The heads of all have 64 channels, but for those of the DINOv3 of 4096 channels.
    usual = width % 64 == 0 and width <= 1536
    heads = width // 64 if usual else VISION_HEADS.get((width, layers, patch))
    fields |= {} if heads is None else {"vision.heads": heads}
    return (fields | PLAIN_VIT) | {
        "embed_dim": width,
        "vision.registers": count_of_registers,
        "vision.positions": placed,
        "vision.layer_scale": 1.0,
        "vision.gated_mlp": gated,
        "vision.activation": "silu" if gated else "gelu",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }


def _swiglu_width(width: int, ratio: float) -> int:
    """Hidden channels of DINOv2's gated perceptron: two thirds, rounded up to a multiple of 8."""
    return (int(int(width * ratio) * 2 / 3) + 7) // 8 * 8


def _configure_dinov2(tensors: Tensors, beside: Beside) -> Fields:
    if "classifier.weight" in tensors:
        raise UserError(
            "it holds DINOv2 with a classifier of the class token beside the patches' mean, which "
            "is not supported: choose the checkpoint without a classifier (facebook/dinov2-base), "
            "and train a linear head"
        )
    fields = tower(
        tensors,
        patches="embeddings.patch_embeddings.projection.weight",
        positions="embeddings.position_embeddings",
        registers="embeddings.register_tokens",
        block=r"encoder\.layer\.(\d+)\.",
        hidden="encoder.layer.0.mlp.fc1.weight",
        gate="encoder.layer.0.mlp.gate.weight",
    )
    fields |= {"vision.norm_eps": 1e-6}
    fields |= pixel_fields(beside.preprocessor, beside.preprocessor_file, decides=False)
    if not beside.hugging_face:
        return fields
    registers, gated = fields["vision.registers"], fields["vision.gated_mlp"]
    check_type(beside.hugging_face, "dinov2_with_registers" if registers else "dinov2")
    config = square(DINOV2.values(beside.hugging_face), DINOV2.where)
    told = {key: config[key] for key in ("num_register_tokens", "use_swiglu_ffn")}
    agree(told, {"num_register_tokens": registers, "use_swiglu_ffn": gated}, DINOV2.where)
    width, ratio = config["hidden_size"], config["mlp_ratio"]
    if width is not None:
        hidden = _swiglu_width(width, ratio) if gated else int(width * ratio)
        config["intermediate_size"] = hidden
    if gated:
        config["hidden_act"] = "silu"  # whatever it says
    return with_vit_config(fields, config, DINOV2.where)


# Names that the libraries' layouts of DINOv2 share.
INSIDE: Renames = (
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.mlp\.c_gate\.", r".mlp.gate."),
    (r"\.mlp\.c_fc\.", r".mlp.fc1."),
    (r"\.mlp\.c_proj\.", r".mlp.fc2."),
    (r"\.(kernel|scale)$", r".weight"),
)


def _prepare_dinov2(tensors: Tensors) -> Tensors:
    renamed = {re.sub(r"\.mlp\.weights_out\.", r".mlp.fc2.", n): t for n, t in tensors.items()}
    return rows_apart(renamed, r"\.mlp\.weights_in\.", [".mlp.gate.", ".mlp.fc1."])


DINOV2_FAMILY = Family(
    title="Hugging Face's layout of DINOv2",
    markers=(
        r"^(dinov2(_with_registers)?\.)?embeddings\.patch_embeddings\.projection\.weight$",
        r"layer_scale1\.lambda1$",
    ),
    renames=(
        (r"^visual\.resblocks_(\d+)\.", r"encoder.layer.\1."),
        (r"^visual\.conv1\.", r"embeddings.patch_embeddings.projection."),
        (r"^visual\.class_embedding$", r"embeddings.cls_token"),
        (r"^visual\.register_embedding$", r"embeddings.register_tokens"),
        (r"^visual\.positional_embedding$", r"embeddings.position_embeddings"),
        (r"^visual\.ln_post\.", r"layernorm."),
        (r"\.attn\.in_proj\.", r".attention.attention.{}."),
        (r"\.attn\.out_proj\.", r".attention.output.dense."),
        (r"\.ls_(\d)\.gamma$", r".layer_scale\1.lambda1"),
        *INSIDE,
    ),
    split=("query", "key", "value"),
    configure=_configure_dinov2,
    to_ours=plain_vit_from_torch,
    prefix=r"^dinov2(_with_registers)?\.",
    ignored=r"mask_token$",  # stands for hidden patches in the training of DINOv2 itself
    prepare=_prepare_dinov2,
)


def _configure_meta(tensors: Tensors, beside: Beside) -> Fields:
    del beside
    return tower(
        tensors,
        patches="patch_embed.proj.weight",
        positions="pos_embed",
        registers="register_tokens",
        block=r"blocks\.(\d+)\.",
        hidden="blocks.0.mlp.fc1.weight",
        gate="blocks.0.mlp.gate.weight",
    ) | {"vision.norm_eps": 1e-6}


def _prepare_meta(tensors: Tensors) -> Tensors:
    renamed = {re.sub(r"\.mlp\.w3\.", r".mlp.fc2.", n): t for n, t in tensors.items()}
    return rows_apart(renamed, r"\.mlp\.w12\.", [".mlp.gate.", ".mlp.fc1."])


META_FAMILY = Family(
    title="Meta's layout of DINOv2",
    markers=(r"^mask_token$", r"^patch_embed\.proj\.weight$", r"^blocks\.0\.ls1\.gamma$"),
    renames=(
        (r"^visual\.resblocks_(\d+)\.", r"blocks.\1."),
        (r"^visual\.conv1\.", r"patch_embed.proj."),
        (r"^visual\.class_embedding$", r"cls_token"),
        (r"^visual\.register_embedding$", r"register_tokens"),
        (r"^visual\.positional_embedding$", r"pos_embed"),
        (r"^visual\.ln_post\.", r"norm."),
        (r"\.attn\.in_proj\.", r".attn.qkv."),
        (r"\.attn\.out_proj\.", r".attn.proj."),
        (r"\.ls_(\d)\.", r".ls\1."),
        *INSIDE,
    ),
    configure=_configure_meta,
    to_ours=plain_vit_from_torch,
    ignored=r"^mask_token$",
    prepare=_prepare_meta,
)

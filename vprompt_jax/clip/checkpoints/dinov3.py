"""DINOv3 (arXiv 2508.10104) in Hugging Face's layout, in Meta's own and in timm's."""

import re

import numpy as np

from vprompt_jax.clip.checkpoints.dino import META_FAMILY as META_DINOV2
from vprompt_jax.clip.checkpoints.dino import tower
from vprompt_jax.clip.checkpoints.family import (
    Beside,
    Family,
    plain_vit_from_torch,
    without_key_bias,
)
from vprompt_jax.clip.checkpoints.formats import Tensor, Tensors
from vprompt_jax.clip.checkpoints.keys import agree, side_of
from vprompt_jax.clip.checkpoints.processors import pixel_fields
from vprompt_jax.clip.checkpoints.timm import FAMILY as TIMM_VIT
from vprompt_jax.clip.checkpoints.timm import pooling, read_config
from vprompt_jax.clip.checkpoints.timm_eva import with_joined_biases
from vprompt_jax.clip.checkpoints.timm_keys import DINOV3S, EVA_ARGS
from vprompt_jax.clip.checkpoints.tower_fields import shape_of
from vprompt_jax.clip.checkpoints.transformers_keys import DINOV3
from vprompt_jax.clip.checkpoints.transformers_values import check_type, square, with_vit_config
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError

_ROTATION: Fields = {"vision.norm_eps": 1e-5, "vision.rope": "halves", "vision.rope_base": 100.0}
# Pixels of the satellites' images that some were trained on.
_SATELLITES: Fields = {"mean": (0.430, 0.411, 0.296), "std": (0.213, 0.156, 0.143)}

# Which of queries, keys and values have a bias -> `vision.qkv_bias`.
_BIASES: dict[tuple[bool, ...], str] = {
    (True, True, True): "all",
    (True, False, True): "no_key",
    (False, False, False): "none",
}


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    fields = tower(
        tensors,
        patches="embeddings.patch_embeddings.weight",
        positions="",
        registers="embeddings.register_tokens",
        block=r"layer\.(\d+)\.",
        hidden="layer.0.mlp.up_proj.weight",
        gate="layer.0.mlp.gate_proj.weight",
    )
    biases = {
        word: name in tensors and tensors[name].shape != (0,)
        for word in ("query", "key", "value")
        for name in [f"layer.0.attention.{word[0]}_proj.bias"]
    }
    if tuple(biases.values()) not in _BIASES:
        with_one = ", ".join(word for word, has in biases.items() if has)
        raise UserError(
            f"of queries, keys and values, {with_one} have a bias, which is not supported "
            "(supported: all of them, queries and values, or none)"
        )
    fields |= _ROTATION | {"vision.qkv_bias": _BIASES[tuple(biases.values())]}
    fields |= pixel_fields(beside.preprocessor, beside.preprocessor_file, decides=True, crops=False)
    if not beside.hugging_face:
        return fields | {"resize": fields.get("resize", "squash_bilinear")}
    check_type(beside.hugging_face, "dinov3_vit")
    config = square(DINOV3.values(beside.hugging_face), DINOV3.where)
    shapes = {f"{word}_bias": has for word, has in biases.items()} | {
        "num_register_tokens": fields["vision.registers"],
        "use_gated_mlp": fields["vision.gated_mlp"],
    }
    agree({key: config[key] for key in shapes}, shapes, DINOV3.where)
    if config["image_size"]:  # the weights fit images of any size
        fields["vision.image_resolution"] = config["image_size"]
    fields["vision.rope_base"] = config["rope_theta"]
    return with_vit_config(fields, config, DINOV3.where)


def _prepare(tensors: Tensors) -> Tensors:
    return without_key_bias(tensors, r"\.q_proj\.bias$", ".k_proj.bias")


FAMILY = Family(
    title="Hugging Face's layout of DINOv3",
    markers=(
        r"^embeddings\.patch_embeddings\.weight$",
        r"^embeddings\.cls_token$",
        r"^layer\.0\.attention\.",
    ),
    renames=(
        (r"^visual\.resblocks_(\d+)\.", r"layer.\1."),
        (r"^visual\.conv1\.", r"embeddings.patch_embeddings."),
        (r"^visual\.class_embedding$", r"embeddings.cls_token"),
        (r"^visual\.register_embedding$", r"embeddings.register_tokens"),
        (r"^visual\.ln_post\.", r"norm."),
        (r"\.attn\.in_proj\.", r".attention.{}_proj."),
        (r"\.attn\.out_proj\.", r".attention.o_proj."),
        (r"\.ln_(\d)\.", r".norm\1."),
        (r"\.ls_(\d)\.gamma$", r".layer_scale\1.lambda1"),
        (r"\.mlp\.c_gate\.", r".mlp.gate_proj."),
        (r"\.mlp\.c_fc\.", r".mlp.up_proj."),
        (r"\.mlp\.c_proj\.", r".mlp.down_proj."),
        (r"\.(kernel|scale)$", r".weight"),
    ),
    split=("q", "k", "v"),
    configure=_configure,
    to_ours=plain_vit_from_torch,
    # The last holds the wavelengths, which the config tells.
    ignored=r"mask_token$|^rope_embeddings\.inv_freq$",
    prepare=_prepare,
)


def _configure_meta(tensors: Tensors, beside: Beside) -> Fields:
    fields = tower(
        tensors,
        patches="patch_embed.proj.weight",
        positions="",
        registers="storage_tokens",
        block=r"blocks\.(\d+)\.",
        hidden="blocks.0.mlp.fc1.weight",
        gate="blocks.0.mlp.gate.weight",
    )
    bias = tensors.get("blocks.0.attn.qkv.bias")
    kind = "none" if bias is None else "no_key"
    if bias is not None and bias.shape == (3 * fields["vision.width"],):
        kind = "all"
    fields |= _ROTATION | {"vision.qkv_bias": kind, "resize": "squash_bilinear"}
    return fields | (_SATELLITES if "sat493m" in beside.name else {})


def _prepare_meta(tensors: Tensors) -> Tensors:
    """With Meta's names of gated perceptrons as DINOv2's, and biases without the masked keys'.

    Raises:
      UserError: if the file holds other wavelengths than Meta's models have.
    """
    periods = "rope_embed.periods"
    if periods in tensors:
        stored = np.asarray(tensors[periods].read(), np.float32)
        wanted = 100.0 ** (np.arange(stored.size) / max(stored.size, 1))
        # Meta's files round them to bfloat16; Hugging Face's and timm's code does not.
        if stored.ndim != 1 or not np.allclose(stored, wanted, rtol=2**-7, atol=0):
            raise UserError(
                f"{periods} holds other wavelengths than those of the base 100, which is not "
                "supported: choose the checkpoint in Hugging Face's layout, whose config tells them"
            )
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name == periods or name.endswith(".qkv.bias_mask"):
            continue
        mask = tensors.get(f"{name}_mask")
        for theirs, ours in (("w1", "gate"), ("w2", "fc1"), ("w3", "fc2")):
            name = name.replace(f".mlp.{theirs}.", f".mlp.{ours}.")
        result[name] = _masked(tensor, mask) if mask and len(tensor.shape) == 1 else tensor
    return result


def _masked(bias: Tensor, mask: Tensor) -> Tensor:
    """The bias of queries and values, of one that a mask sets to 0 for keys."""
    width = bias.shape[0] // 3

    def read() -> np.ndarray:
        factors = mask.read()
        if factors.shape != bias.shape or np.any(factors[width : 2 * width] != 0):
            raise UserError(
                "a qkv.bias_mask leaves keys a bias, which is not supported (supported: a mask "
                "that is 0 for all keys, or no mask)"
            )
        both = bias.read() * factors
        return np.concatenate([both[:width], both[2 * width :]])

    return Tensor((2 * width,), bias.dtype, read)


META_FAMILY = Family(
    title="Meta's layout of DINOv3",
    markers=(r"^storage_tokens$", r"^blocks\.0\.ls1\.gamma$"),
    renames=(
        (r"^visual\.register_embedding$", r"storage_tokens"),
        *META_DINOV2.renames,
    ),
    configure=_configure_meta,
    to_ours=plain_vit_from_torch,
    # The second is of the crops that the largest was trained on.
    ignored=r"^mask_token$|^local_cls_norm\.",
    prepare=_prepare_meta,
)


def _configure_timm(tensors: Tensors, beside: Beside) -> Fields:
    fields = tower(
        tensors,
        patches="patch_embed.proj.weight",
        positions="",
        registers="reg_token",
        block=r"blocks\.(\d+)\.",
        hidden="blocks.0.mlp.fc1.weight",
        gate="blocks.0.mlp.fc1_g.weight",
    )
    if not beside.hugging_face:
        raise UserError(
            "timm takes a DINOv3's features from its class token or from its patches' mean, and "
            "only config.json says which: put the one it was published with beside it"
        )
    config = beside.hugging_face
    _, values, args, statistics = read_config(config, DINOV3S, EVA_ARGS)
    width, gated = fields["vision.width"], fields["vision.gated_mlp"]
    bias = "blocks.0.attn.qv_bias" in tensors
    told = {key: args[key] for key in ("embed_dim", "depth", "num_reg_tokens", "qkv_bias")}
    told |= {"patch_size": side_of(args["patch_size"], f"{EVA_ARGS.where}: patch_size")}
    told |= {"swiglu_mlp": args["swiglu_mlp"]}
    if args["mlp_ratio"] is not None:
        hidden = int(width * args["mlp_ratio"])
        told["mlp_ratio * embed_dim"] = hidden + -hidden % (args["swiglu_align_to"] or 1)
    shapes = {
        "embed_dim": width,
        "depth": fields["vision.layers"],
        "num_reg_tokens": fields["vision.registers"],
        "qkv_bias": bias,
        "patch_size": fields["vision.patch_size"],
        "swiglu_mlp": gated,
        "mlp_ratio * embed_dim": fields["vision.mlp_width"] or 4 * width,
    }
    agree(told, shapes, EVA_ARGS.where)
    side = side_of(args["img_size"], f"{EVA_ARGS.where}: img_size") or values["side"] or 256
    fields |= _ROTATION | statistics | pooling(args | {"fc_norm": False}, values, tensors)
    if "head.weight" in tensors:
        fields["classes"] = shape_of(tensors, "head.weight", 2)[0]
    return fields | {
        "vision.heads": args["num_heads"] or width // 64,
        "vision.image_resolution": side,
        "vision.qkv_bias": "no_key" if bias else "none",
        "vision.rope_base": args["rope_temperature"],
    }


def _prepare_timm(tensors: Tensors) -> Tensors:
    joined = with_joined_biases(tensors)
    return {re.sub(r"\.mlp\.fc1_x\.", ".mlp.fc1.", name): t for name, t in joined.items()}


TIMM_FAMILY = Family(
    title="timm's layout of DINOv3",
    markers=(r"^reg_token$", r"^blocks\.0\.gamma_1$"),
    renames=(
        (r"\.ls_(\d)\.gamma$", r".gamma_\1"),
        (r"\.attn\.in_proj\.bias$", r".attn.qv_bias"),
        (r"\.c_gate\.", r".fc1_g."),
        *TIMM_VIT.renames,
    ),
    configure=_configure_timm,
    to_ours=plain_vit_from_torch,
    prepare=_prepare_timm,
)

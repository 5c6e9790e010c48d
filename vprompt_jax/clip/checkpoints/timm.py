"""timm's names and layout of ViT, and what its config.json says of ViTs and ResNets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vprompt_jax.clip.checkpoints.family import (
    Beside,
    Family,
    plain_vit_from_torch,
    rows_apart,
)
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.keys import Keys, agree, side_of
from vprompt_jax.clip.checkpoints.timm_keys import (
    ACTIVATIONS,
    CONFIG,
    HEADS,
    PRETRAINED,
    RESNET_ARGS,
    RESNETS,
    SWIGLU,
    VIT_ARGS,
    VITS,
    Names,
    named,
)
from vprompt_jax.clip.checkpoints.tower_fields import (
    PLAIN_VIT,
    count,
    pixel_statistics,
    shape_of,
    vit_heads,
    vit_tower,
    with_side,
)
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError


def read_config(
    config: dict[str, Any], known: Names, args: Keys
) -> tuple[str, dict[str, Any], dict[str, Any], Fields]:
    """The kind that a config's architecture names ("base", ...), all its values (and "side", its
    images' in pixels), the architecture's arguments, and the pixel statistics.

    Raises:
      UserError: if it is of an architecture that is not supported, or says something that is not.
    """
    architecture = config.get("architecture")
    found = named(str(architecture), known)
    if found is None:
        raise UserError(
            f"config.json beside the weights is of architecture {architecture!r}, which is not "
            f"supported (supported: {', '.join(known)})"
        )
    kind, own = found
    values = CONFIG.values(config)
    pretrained = values["pretrained_cfg"]
    if pretrained is None:
        pretrained = {k: v for k, v in config.items() if k in PRETRAINED.known}
    pretrained = PRETRAINED.values(pretrained)
    size = pretrained["input_size"]
    size = None if size is None else list(size)[1:]
    values["side"] = side_of(size, f"{PRETRAINED.where}: input_size")
    fields = pixel_statistics(pretrained, "mean", "std")
    if pretrained["crop_mode"] == "squash":
        fields |= {"resize": "squash"}
    told = values["model_args"] or {}
    told = {**own, **told} if isinstance(told, Mapping) else told
    return kind, values, args.values(told), fields


def resnet_fields(config: dict[str, Any], width: int, blocks: tuple[int, ...]) -> Fields:
    """What timm's config.json adds to a ResNet's shapes; {} if there is none."""
    if not config:
        return {}
    _, values, args, fields = read_config(config, RESNETS, RESNET_ARGS)
    if values["global_pool"] not in (None, "avg"):
        raise UserError(
            f"config.json asks for global_pool={values['global_pool']!r}, which is not supported "
            "(supported: 'avg')"
        )
    channels = tuple(width * 2**i for i in range(len(blocks)))
    agree(args, {"layers": blocks, "channels": channels}, RESNET_ARGS.where)
    return fields


def pooling(args: dict[str, Any], values: dict[str, Any], tensors: Tensors) -> Fields:
    """Where features come from, by an architecture's arguments.

    Args:
      args: the architecture's arguments, "global_pool" and "fc_norm" among them.
      values: of `CONFIG`, whose "global_pool" only informs.
      tensors: by timm's names.

    Raises:
      UserError: if they disagree, or the pooling is not supported.
    """
    kind = args["global_pool"] or "token"
    informed = values["global_pool"]
    if kind not in ("token", "avg") or (informed or kind) != kind:
        raise UserError(
            f"config.json asks for global_pool={informed or kind!r}, which is not supported "
            "(supported: 'token' or 'avg', given in model_args)"
        )
    fc_norm = kind == "avg" if args["fc_norm"] is None else bool(args["fc_norm"])
    stored = "fc_norm.weight" in tensors
    if fc_norm != stored:
        raise UserError(
            f"config.json asks for global_pool={kind!r} and fc_norm={args['fc_norm']!r}, but "
            f"the weights hold {'fc_norm' if stored else 'norm'}: it belongs to another checkpoint"
        )
    return {
        "vision.pooling": "class" if kind == "token" else "mean",
        "vision.final_norm": "after" if fc_norm else "before",
    }


def tower(tensors: Tensors, patches_alone: bool = False) -> Fields:
    """A ViT's fields that names and shapes tell.

    Args:
      tensors: by timm's names, with gates apart.
      patches_alone: the class token and registers have no positions.
    """
    width, _, _, patch = shape_of(tensors, "patch_embed.proj.weight", 4)
    layers = count(tensors, r"blocks\.(\d+)\.")
    mlp = shape_of(tensors, "blocks.0.mlp.fc1.weight", 2)[0]
    positions = shape_of(tensors, "pos_embed", 3)[1]
    registers = shape_of(tensors, "reg_token", 3)[1] if "reg_token" in tensors else 0
    has_class = "cls_token" in tensors
    prefix = int(has_class) + registers
    fields = vit_tower(
        width, layers, patch, positions, "pos_embed", mlp, 0 if patches_alone else prefix
    )
    fields |= PLAIN_VIT | {
        "embed_dim": width,
        "vision.norm_eps": 1e-6,
        "vision.class_token": has_class,
        "vision.registers": registers,
        "vision.positions": "patches" if patches_alone and prefix else "all",
        "vision.gated_mlp": "blocks.0.mlp.gate.weight" in tensors,
        "vision.qkv_bias": "all" if "blocks.0.attn.qkv.bias" in tensors else "none",
    }
    if "head.weight" in tensors:
        fields["classes"] = shape_of(tensors, "head.weight", 2)[0]
    if "pre_logits.fc.weight" in tensors:
        fields["pre_logits"] = shape_of(tensors, "pre_logits.fc.weight", 2)[0]
    if "blocks.0.ls1.gamma" in tensors:
        fields["vision.layer_scale"] = 1.0
    return fields


def with_arguments(fields: Fields, kind: str, args: dict[str, Any]) -> Fields:
    """A ViT's fields with what its arguments add, if they describe the same tower.

    Args:
      fields: those of `tower`.
      kind: what its architecture names.
      args: the values of `VIT_ARGS`.

    Raises:
      UserError: if they describe another tower, or one that is not supported.
    """
    width, gated = fields["vision.width"], fields["vision.gated_mlp"]
    mlp = fields["vision.mlp_width"] or 4 * width
    shapes = {
        "img_size": fields["vision.image_resolution"],
        "patch_size": fields["vision.patch_size"],
        "embed_dim": width,
        "depth": fields["vision.layers"],
        "mlp_ratio * embed_dim": 2 * mlp if gated else mlp,
        "init_values": "vision.layer_scale" in fields,
        "class_token": fields["vision.class_token"],
        "reg_tokens": fields["vision.registers"],
        "qkv_bias": fields["vision.qkv_bias"] == "all",
        "mlp_layer": SWIGLU if gated else "Mlp",
    }
    told = {key: args[key] for key in ("embed_dim", "depth", "class_token", "reg_tokens")}
    told |= {k: side_of(args[k], f"{VIT_ARGS.where}: {k}") for k in ("img_size", "patch_size")}
    told |= {"qkv_bias": args["qkv_bias"], "mlp_layer": args["mlp_layer"] or "Mlp"}
    told["init_values"] = None if args["init_values"] is None else True
    if args["mlp_ratio"] is not None:
        told["mlp_ratio * embed_dim"] = int(width * args["mlp_ratio"])
    agree(told, shapes, VIT_ARGS.where)
    if args["act_layer"] not in ACTIVATIONS:
        supported = ", ".join(filter(None, ACTIVATIONS))
        raise UserError(
            f"{VIT_ARGS.where} asks for act_layer={args['act_layer']!r}, which is not supported "
            f"(supported: {supported})"
        )
    return fields | {
        "vision.heads": args["num_heads"] or HEADS.get(kind) or width // 64,
        "vision.activation": ACTIVATIONS[args["act_layer"]],
    }


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    config = beside.hugging_face
    if "dist_token" in tensors:
        raise UserError(
            "timm's ViT with a distillation token (dist_token), which is not supported: choose a "
            "plain ViT"
        )
    if config:
        kind, values, args, statistics = read_config(config, VITS, VIT_ARGS)
        fields = tower(tensors, patches_alone=bool(args["no_embed_class"])) | statistics
        fields = with_side(fields, values["side"])
        return with_arguments(fields, kind, args) | pooling(args, values, tensors)
    positions = shape_of(tensors, "pos_embed", 3)[1]
    fields = tower(tensors, patches_alone=round(positions**0.5) ** 2 == positions)
    plain = fields["vision.class_token"] and not fields["vision.gated_mlp"]
    if not plain or "fc_norm.weight" in tensors:
        raise UserError(
            "the weights hold fc_norm or a gate, or no class token, so this is no plain ViT of "
            "timm: put the config.json they were published with beside them"
        )
    shape = (fields[f"vision.{name}"] for name in ("width", "layers", "patch_size"))
    return fields | vit_heads(*shape) | {"vision.activation": "gelu"}


def _prepare(tensors: Tensors) -> Tensors:
    """With a gate apart where the first layer has twice the channels that the second takes."""
    both = [tensors.get(f"blocks.0.mlp.fc{i}.weight") for i in (1, 2)]
    first, second = (() if tensor is None else tensor.shape for tensor in both)
    if len(first) == len(second) == 2 and first[0] == 2 * second[1]:
        return rows_apart(tensors, r"\.mlp\.fc1\.", [".mlp.gate.", ".mlp.fc1."])
    return tensors


FAMILY = Family(
    title="timm's layout of ViT",
    markers=(r"^patch_embed\.proj\.weight$", r"^blocks\.0\.norm1\."),
    renames=(
        (r"^visual\.resblocks_(\d+)\.", r"blocks.\1."),
        (r"^visual\.conv1\.", r"patch_embed.proj."),
        (r"^visual\.class_embedding$", r"cls_token"),
        (r"^visual\.register_embedding$", r"reg_token"),
        (r"^visual\.positional_embedding$", r"pos_embed"),
        (r"^visual\.ln_post\.", r"norm."),
        (r"\.attn\.in_proj\.", r".attn.qkv."),
        (r"\.attn\.out_proj\.", r".attn.proj."),
        (r"\.ln_(\d)\.", r".norm\1."),
        (r"\.ls_(\d)\.", r".ls\1."),
        (r"\.c_gate\.", r".gate."),
        (r"\.c_fc\.", r".fc1."),
        (r"\.c_proj\.", r".fc2."),
        (r"^classifier\.", r"head."),
        (r"^pre_logits\.", r"pre_logits.fc."),
        (r"\.(kernel|scale)$", r".weight"),
    ),
    configure=_configure,
    to_ours=plain_vit_from_torch,
    prepare=_prepare,
)
# Where the norm acts after the pooling, timm calls it otherwise.
FC_NORM_FAMILY = dataclasses.replace(
    FAMILY,
    markers=(*FAMILY.markers, r"^fc_norm\.weight$"),
    renames=((r"^visual\.ln_post\.", r"fc_norm."), *FAMILY.renames),
)

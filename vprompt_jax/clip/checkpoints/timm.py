"""timm's names and layout of ViT, and what its config.json can say of ViTs and ResNets."""

import dataclasses
import re
from typing import Any

from vprompt_jax.clip.checkpoints.family import (
    Beside,
    Family,
    plain_vit_from_torch,
)
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.keys import Keys, agree, names, side_of
from vprompt_jax.clip.checkpoints.tower_fields import (
    PLAIN_VIT,
    count,
    pixel_statistics,
    shape_of,
    vit_heads,
    vit_tower,
)
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError

# timm's names of the towers that are the ones here; others can share names and shapes with them.
_VIT = re.compile(r"(?:vit|deit)_(tiny|small|base|large|huge)_patch\d+_\d+")
_RESNET = re.compile(r"(?:tv_)?resnet(?:50|101|152)")
_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16}
_ACTIVATIONS = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_tanh": "gelu_tanh",
}

# The top level; files of early versions have the keys of `pretrained_cfg` here, too.
PRETRAINED = Keys(
    "config.json: pretrained_cfg",
    read={"mean": None, "std": None, "input_size": None, "num_classes": None, "crop_mode": None},
    must={"crop_mode": (None, "center", "squash")},
    # Where it comes from, how its authors resized images (docs/checkpoints.md), and names.
    harmless=names(
        "url file state_dict hf_hub_id hf_hub_filename source architecture tag custom_load "
        "test_input_size min_input_size fixed_input_size interpolation crop_pct test_crop_pct "
        "label_offset label_names label_descriptions labels pool_size test_pool_size "
        "first_conv classifier license description origin_url paper_name paper_ids notes "
        "num_features"
    ),
)
CONFIG = Keys(
    "config.json",
    read={"architecture": None, "global_pool": None, "model_args": None, "pretrained_cfg": None},
    must={},
    harmless=frozenset(PRETRAINED.known) | {"label_names", "label_descriptions", "num_features"},
)
VIT_ARGS = Keys(
    "config.json: model_args",
    read={
        "img_size": None,
        "patch_size": None,
        "num_classes": None,
        "embed_dim": None,
        "depth": None,
        "num_heads": None,
        "mlp_ratio": None,
        "global_pool": None,
        "init_values": None,
        "fc_norm": None,
        "act_layer": None,
    },
    must={
        "in_chans": (3,),
        "qkv_bias": (True,),
        "qk_norm": (False,),
        "scale_attn_norm": (False,),
        "scale_mlp_norm": (False,),
        "proj_bias": (True,),
        "class_token": (True,),
        "pos_embed": ("learn",),
        "no_embed_class": (False,),
        "reg_tokens": (0,),
        "pre_norm": (False,),
        "final_norm": (True,),
        "pool_include_prefix": (False,),
        "dynamic_img_pad": (False,),
        "embed_layer": (None,),
        "embed_norm_layer": (None,),
        "norm_layer": (None,),
        "block_fn": (None,),
        "mlp_layer": (None,),
        "attn_layer": (None,),
    },
    harmless=names(
        "dynamic_img_size drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate "
        "drop_path_rate weight_init fix_init device dtype"
    ),
)
RESNET_ARGS = Keys(
    "config.json: model_args",
    read={"layers": None, "num_classes": None, "channels": None},
    must={
        "block": (None, "Bottleneck"),
        "in_chans": (3,),
        "output_stride": (32,),
        "global_pool": ("avg",),
        "cardinality": (1,),
        "base_width": (64,),
        "stem_width": (64,),
        "stem_type": ("", None),
        "replace_stem_pool": (False,),
        "block_reduce_first": (1,),
        "down_kernel_size": (1,),
        "avg_down": (False,),
        "act_layer": (None, "relu"),
        "norm_layer": (None,),
        "aa_layer": (None, ""),
        "block_args": (None, {}),
    },
    harmless=frozenset(
        ["drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last", "device", "dtype"]
    ),
)


def read_config(
    config: dict[str, Any], known: re.Pattern[str], args: Keys
) -> tuple[re.Match[str], dict[str, Any], dict[str, Any], Fields]:
    """A config's architecture, all its values (and "side", its images' in pixels), those of
    `model_args`, and the pixel statistics.

    Raises:
      UserError: if it is of an architecture that is not supported, or says something that is not.
    """
    architecture = config.get("architecture")
    match = known.fullmatch(architecture) if isinstance(architecture, str) else None
    if match is None:
        raise UserError(
            f"config.json beside the weights is of architecture {architecture!r}, which is not "
            f"supported (supported: {known.pattern})"
        )
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
    return match, values, args.values(values["model_args"] or {}), fields


def resnet_fields(config: dict[str, Any], width: int, blocks: tuple[int, ...]) -> Fields:
    """What timm's config.json adds to a ResNet's shapes; {} if there is none."""
    if not config:
        return {}
    _, values, args, fields = read_config(config, _RESNET, RESNET_ARGS)
    if values["global_pool"] not in (None, "avg"):
        raise UserError(
            f"config.json asks for global_pool={values['global_pool']!r}, which is not supported "
            "(supported: 'avg')"
        )
    channels = tuple(width * 2**i for i in range(len(blocks)))
    agree(args, {"layers": blocks, "channels": channels}, RESNET_ARGS.where)
    return fields


def _pooling(args: dict[str, Any], values: dict[str, Any], tensors: Tensors) -> Fields:
    pooling = args["global_pool"] or "token"
    informed = values["global_pool"]
    if pooling not in ("token", "avg") or (informed or pooling) != pooling:
        raise UserError(
            f"config.json asks for global_pool={informed or pooling!r}, which is not supported "
            "(supported: 'token' or 'avg', given in model_args)"
        )
    fc_norm = pooling == "avg" if args["fc_norm"] is None else bool(args["fc_norm"])
    stored = "fc_norm.weight" in tensors
    if fc_norm != stored:
        raise UserError(
            f"config.json asks for global_pool={pooling!r} and fc_norm={args['fc_norm']!r}, but "
            f"the weights hold {'fc_norm' if stored else 'norm'}: it belongs to another checkpoint"
        )
    return {
        "vision.pooling": "class" if pooling == "token" else "mean",
        "vision.final_norm": "after" if fc_norm else "before",
    }


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    config = beside.hugging_face
    for name, what in (("reg_token", "reg_tokens"), ("dist_token", "a distillation token")):
        if name in tensors:
            raise UserError(
                f"timm's ViT with {what} ({name}), which is not supported: choose a plain ViT"
            )
    kind = ""  # "tiny", "base", ..., which says how many heads there are
    values: dict[str, Any] = {}
    args: dict[str, Any] = dict(VIT_ARGS.read)
    statistics: Fields = {}
    if config:
        match, values, args, statistics = read_config(config, _VIT, VIT_ARGS)
        kind = match[1]
    width, _, _, patch = shape_of(tensors, "patch_embed.proj.weight", 4)
    layers = count(tensors, r"blocks\.(\d+)\.")
    mlp = shape_of(tensors, "blocks.0.mlp.fc1.weight", 2)[0]
    positions = shape_of(tensors, "pos_embed", 3)[1]
    if round(positions**0.5) ** 2 == positions:
        raise UserError(
            f"pos_embed has {positions} positions, a square grid without the class token's: a ViT "
            "of timm with no_embed_class (as DeiT III), which is not supported"
        )
    fields = vit_tower(width, layers, patch, positions, "pos_embed", mlp)
    fields |= PLAIN_VIT | {"embed_dim": width, "vision.norm_eps": 1e-6}
    if "head.weight" in tensors:
        fields["classes"] = shape_of(tensors, "head.weight", 2)[0]
    if "pre_logits.fc.weight" in tensors:
        fields["pre_logits"] = shape_of(tensors, "pre_logits.fc.weight", 2)[0]
    if "blocks.0.ls1.gamma" in tensors:
        fields["vision.layer_scale"] = 1.0
    fields |= vit_heads(width, layers, patch) | statistics
    if not config:
        if "fc_norm.weight" in tensors:
            raise UserError(
                "the weights hold fc_norm, so timm pools more than the class token: put the "
                "config.json they were published with beside them"
            )
        return fields | {"vision.activation": "gelu"}
    fields |= {"vision.heads": _HEADS[kind], "vision.activation": "gelu"}
    return with_arguments(fields, args) | _pooling(args, values, tensors)


def with_arguments(fields: Fields, args: dict[str, Any]) -> Fields:
    """A ViT's fields with what its config's `model_args` add, if they describe the same tower.

    Args:
      fields: what the shapes tell, and the name of the architecture.
      args: the arguments that are used.

    Raises:
      UserError: if they describe another tower, or one that is not supported.
    """
    width = fields["vision.width"]
    shapes = {
        "img_size": fields["vision.image_resolution"],
        "patch_size": fields["vision.patch_size"],
        "embed_dim": width,
        "depth": fields["vision.layers"],
        "mlp_ratio * embed_dim": fields["vision.mlp_width"] or 4 * width,
        "init_values": "vision.layer_scale" in fields,
    }
    told = {key: args[key] for key in ("embed_dim", "depth")}
    told |= {k: side_of(args[k], f"{VIT_ARGS.where}: {k}") for k in ("img_size", "patch_size")}
    told["init_values"] = args["init_values"] is not None
    if args["mlp_ratio"] is not None:
        told["mlp_ratio * embed_dim"] = int(width * args["mlp_ratio"])
    agree(told, shapes, VIT_ARGS.where)
    if args["act_layer"] not in (None, *_ACTIVATIONS):
        known = ", ".join(_ACTIVATIONS)
        raise UserError(
            f"{VIT_ARGS.where} asks for act_layer={args['act_layer']!r}, which is not supported "
            f"(supported: {known})"
        )
    return fields | {
        "vision.heads": args["num_heads"] or fields["vision.heads"],
        "vision.activation": _ACTIVATIONS.get(args["act_layer"], fields["vision.activation"]),
    }


FAMILY = Family(
    title="timm's layout of ViT",
    markers=(r"^patch_embed\.proj\.weight$", r"^cls_token$"),
    renames=(
        (r"^visual\.resblocks_(\d+)\.", r"blocks.\1."),
        (r"^visual\.conv1\.", r"patch_embed.proj."),
        (r"^visual\.class_embedding$", r"cls_token"),
        (r"^visual\.positional_embedding$", r"pos_embed"),
        (r"^visual\.ln_post\.", r"norm."),
        (r"\.attn\.in_proj\.", r".attn.qkv."),
        (r"\.attn\.out_proj\.", r".attn.proj."),
        (r"\.ln_(\d)\.", r".norm\1."),
        (r"\.ls_(\d)\.", r".ls\1."),
        (r"\.c_fc\.", r".fc1."),
        (r"\.c_proj\.", r".fc2."),
        (r"^classifier\.", r"head."),
        (r"^pre_logits\.", r"pre_logits.fc."),
        (r"\.(kernel|scale)$", r".weight"),
    ),
    configure=_configure,
    to_ours=plain_vit_from_torch,
)
# Where the norm acts after the pooling, timm calls it otherwise.
FC_NORM_FAMILY = dataclasses.replace(
    FAMILY,
    markers=(*FAMILY.markers, r"^fc_norm\.weight$"),
    renames=((r"^visual\.ln_post\.", r"fc_norm."), *FAMILY.renames),
)

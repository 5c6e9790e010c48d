"""What timm's config.json can say of ViTs and ResNets, and what its names of architectures mean."""

import re
from collections.abc import Mapping
from typing import Any

from vprompt_jax.clip.checkpoints.keys import Keys, names

SWIGLU = "SwiGLUPacked"  # timm's class of a perceptron whose gate stands before its other half

# timm's names of architectures, as patterns, and the arguments that each stands for where they are
# not the defaults.
Names = Mapping[str, dict[str, Any]]

_MAP: dict[str, Any] = {"class_token": False, "global_pool": "map"}
_TANH = {"act_layer": "gelu_tanh"}
# SigLIP's image towers. Their authors trained all with tanh's GELU, which timm gives to some.
SIGLIPS: Names = {
    r"vit_(base)_patch16_siglip_\d+": _MAP,
    r"vit_(base)_patch32_siglip_\d+": _MAP | _TANH,
    r"vit_(large)_patch16_siglip_(?:256|384)": _MAP,
    r"vit_(large)_patch16_siglip_512": _MAP | _TANH,
    r"vit_(so400m)_patch14_siglip_\d+": _MAP,
    r"vit_(so400m|giantopt)_patch16_siglip_\d+": _MAP | _TANH,
}
# The other towers that are the ones here. Others can share names and shapes with them.
_GAP: dict[str, Any] = {"class_token": False, "global_pool": "avg"}
_REGISTERS = {"no_embed_class": True, "reg_tokens": 4}
VITS: Names = {
    r"(?:vit|deit)_(tiny|small|base|large|huge)_patch\d+_\d+": {},
    r"deit3_(small|medium|base|large|huge)_patch\d+_\d+": {"no_embed_class": True},
    r"vit_(small|base|large)_patch14_dinov2": {},
    r"vit_(small|base|large)_patch14_reg4_dinov2": _REGISTERS,
    r"vit_(giant)_patch14_dinov2": {"act_layer": "silu", "mlp_layer": SWIGLU},
    r"vit_(giant)_patch14_reg4_dinov2": {"act_layer": "silu", "mlp_layer": SWIGLU} | _REGISTERS,
    r"vit_(wee|little|medium|betwixt)_patch16_reg1_gap_\d+": (
        _GAP | _REGISTERS | {"reg_tokens": 1}
    ),
    r"vit_(little|mediumd?|betwixt|base)_patch16_reg4_gap_\d+": _GAP | _REGISTERS,
    r"vit_(medium|betwixt)_patch16_gap_\d+": _GAP | {"fc_norm": False, "qkv_bias": False},
    r"vit_(huge)_patch\d+_gap_\d+": _GAP | {"fc_norm": False},
    **{
        name.replace("_siglip_", "_siglip_gap_"): own | _GAP | {"fc_norm": False}
        for name, own in SIGLIPS.items()
    },
}
# DINOv3, which timm builds as an EVA; their features are the patches' mean where nothing is said.
_DINOV3: dict[str, Any] = {"global_pool": "avg"}
_GATED = _DINOV3 | {"swiglu_mlp": True, "swiglu_align_to": 8}
DINOV3S: Names = {
    r"vit_(small|base|large)_patch16_dinov3": _DINOV3 | {"qkv_bias": False},
    r"vit_(small|huge)_plus_patch16_dinov3": _GATED | {"qkv_bias": False},
    r"vit_(tiny|small|base|large)_patch16_dinov3_qkvb": _DINOV3,
    r"vit_(small|huge)_plus_patch16_dinov3_qkvb": _GATED,
    r"vit_(7b)_patch16_dinov3": (
        _GATED | {"qkv_bias": False, "num_heads": 32, "swiglu_align_to": 64}
    ),
}
RESNETS: Names = {r"(?:tv_)?resnet(?:50|101|152)": {}}
# Heads of those that are not 64 channels wide each, or so wide that the width does not tell.
HEADS = {
    "tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16, "so400m": 16, "giantopt": 16,
    "giant": 24,
}  # fmt: skip
ACTIVATIONS = {
    None: "gelu",
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_tanh": "gelu_tanh",
    "silu": "silu",
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
        "qkv_bias": True,
        "class_token": True,
        "no_embed_class": False,
        "reg_tokens": 0,
        "mlp_layer": None,
    },
    must={
        "in_chans": (3,),
        "qk_norm": (False,),
        "scale_attn_norm": (False,),
        "scale_mlp_norm": (False,),
        "proj_bias": (True,),
        "pos_embed": ("learn",),
        "pre_norm": (False,),
        "final_norm": (True,),
        "pool_include_prefix": (False,),
        "dynamic_img_pad": (False,),
        "embed_layer": (None,),
        "embed_norm_layer": (None,),
        "norm_layer": (None,),
        "block_fn": (None,),
        "attn_layer": (None,),
    },
    harmless=names(
        "dynamic_img_size drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate "
        "drop_path_rate weight_init fix_init device dtype"
    ),
)
# Of timm's EVAs, as far as they are DINOv3.
EVA_ARGS = Keys(
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
        "qkv_bias": True,
        "num_reg_tokens": None,
        "swiglu_mlp": False,
        "swiglu_align_to": 0,
        "rope_temperature": 100.0,
    },
    must={
        "in_chans": (3,),
        "num_kv_heads": (None,),
        "qkv_fused": (True,),
        "qk_norm": (False,),
        "scale_mlp": (False,),
        "scale_attn_inner": (False,),
        "attn_type": ("eva",),
        "norm_layer": (None,),
        "attn_only_layer_scale": (False,),
        "class_token": (True,),
        "use_abs_pos_emb": (False,),
        "use_rot_pos_emb": (True,),
        "rope_type": ("dinov3",),
        "rope_grid_offset": (0,),
        "rope_grid_indexing": ("ij",),
        "rope_rotate_half": (True,),
        "use_post_norm": (False,),
        "use_pre_transformer_norm": (False,),
        "use_post_transformer_norm": (None,),
        "use_fc_norm": (False,),
        "dynamic_img_pad": (False,),
    },
    # Of training, of positions and poolings that none of them has, or told by the weights.
    harmless=names(
        "init_values no_embed_class ref_feat_shape rope_mrope_section rope_shift_coords "
        "rope_jitter_coords rope_rescale_coords attn_pool_num_heads attn_pool_mlp_ratio "
        "drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate drop_path_rate "
        "dynamic_img_size head_init_scale device dtype"
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


def named(architecture: str, known: Names) -> tuple[str, dict[str, Any]] | None:
    """The kind that an architecture's name says ("base", ...; "" for a ResNet), and the arguments
    that the name stands for; None if it is none of `known`."""
    found = ((match, known[p]) for p in known if (match := re.fullmatch(p, architecture)))
    return next((((match.groups() or ("",))[0], own) for match, own in found), None)

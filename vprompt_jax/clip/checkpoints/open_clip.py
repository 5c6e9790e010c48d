"""What OpenCLIP's `open_clip_config.json` can say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vprompt_jax.clip.checkpoints.keys import Keys, agree, side_of
from vprompt_jax.clip.checkpoints.tower_fields import pixel_statistics
from vprompt_jax.clip.checkpoints.vocabularies import open_clip_tokenizer
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError

FILE = "open_clip_config.json"

# Other attention blocks than CLIP's.
_CUSTOM_BLOCKS = {
    "block_type": (None, "default"),
    "qk_norm": (False,),
    "scaled_cosine_attn": (False,),
    "scale_heads": (False,),
    "scale_attn_inner": (False,),
    "scale_attn": (False,),
    "scale_fc": (False,),
}
CONFIG = Keys(FILE, {"model_cfg": None, "preprocess_cfg": None}, {}, ())
MODEL = Keys(
    f"{FILE}: model_cfg",
    read={"embed_dim": None, "quick_gelu": False, "vision_cfg": None, "text_cfg": None},
    must={
        "nonscalar_logit_scale": (False,),
        "multimodal_cfg": (None,),
    },
    # Whether there is a bias, and what the text tower's names are, the weights tell.
    harmless={
        "init_logit_scale",
        "init_logit_bias",
        "custom_text",
        "output_dict",
        "cast_dtype",
        "pad_id",  # of captions; the text tower has its own
    },
)
VISION = Keys(
    f"{FILE}: vision_cfg",
    read={
        "layers": 12,
        "width": 768,
        "head_width": 64,
        "mlp_ratio": None,
        "patch_size": None,
        "image_size": None,
        "ls_init_value": None,
        "no_ln_pre": False,
        "final_ln_after_pool": False,
        "pool_type": "tok",
        "attentional_pool": False,
        "attn_pooler_heads": 8,
        "act_kwargs": None,
        "norm_kwargs": None,
    },
    must={
        **_CUSTOM_BLOCKS,
        "attentional_pool": (False, True),
        "pos_embed_type": ("learnable", "sin_cos_2d"),  # either is stored
        "timm_model_name": (None, ""),
    },
    # Of training, or of what the switches above turn on.
    harmless={
        "patch_dropout",
        "attn_pooler_queries",
        "output_tokens",
        "timm_model_pretrained",
        "timm_pool",
        "timm_proj",
        "timm_proj_bias",
        "timm_drop",
        "timm_drop_path",
    },
)
TEXT = Keys(
    f"{FILE}: text_cfg",
    read={
        "context_length": None,
        "vocab_size": None,
        "width": 512,
        "heads": 8,
        "layers": 12,
        "mlp_ratio": None,
        "no_causal_mask": False,
        "pool_type": "argmax",
        "eos_id": 2,
        "ls_init_value": None,
        "proj_bias": False,
        "proj_type": "linear",
        "act_kwargs": None,
        "norm_kwargs": None,
        "hf_tokenizer_name": None,
        "tokenizer_kwargs": None,
        "embed_cls": False,
        "pad_id": 0,
    },
    must={
        **_CUSTOM_BLOCKS,
        "final_ln_after_pool": (False,),
        "hf_model_name": (None, ""),
        "tokenizer_mode": (None,),
    },
    harmless={"output_tokens", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"},
)
PREPROCESS = Keys(
    f"{FILE}: preprocess_cfg",
    read={
        "mean": None,
        "std": None,
        "resize_mode": "shortest",
        "interpolation": "bicubic",
        "size": None,
    },
    must={"mode": ("RGB",)},
    harmless={"fill_color"},  # of the mode "longest" alone
)

# (vision_cfg, quick_gelu, the fields that shapes tell) -> the fields that it adds.
Reader = Callable[[dict[str, Any], bool, Fields], Fields]


def fields_of(
    config: dict[str, Any], shapes: Fields, folder: Path, vision: Reader | None = None
) -> Fields:
    """What a config adds to the fields that the weights' shapes tell.

    Args:
      config: the file's.
      shapes: the fields that the shapes tell.
      folder: where the tokenizer's files lie, if there are any.
      vision: reads the image tower's part, if that is not one of OpenCLIP's own.

    Raises:
      UserError: if it describes another model than the shapes do, or one that is not supported.
    """
    whole = CONFIG.values(config)
    if not isinstance(whole["model_cfg"], dict):
        raise UserError(f"{FILE} has no model_cfg")
    model = MODEL.values(whole["model_cfg"])
    for part in ("vision_cfg", "text_cfg"):
        if not isinstance(model[part], dict):
            raise UserError(f"{FILE} has no {part}")
    agree({"embed_dim": model["embed_dim"]}, shapes, FILE)
    quick = bool(model["quick_gelu"])
    fields = (vision or _vision)(model["vision_cfg"], quick, shapes)
    fields |= _text(TEXT.values(model["text_cfg"]), quick, shapes, folder)
    return fields | _pixels(PREPROCESS.values(whole["preprocess_cfg"] or {}))


def _activation(quick: bool, kwargs: Any, where: str) -> str:
    if kwargs in (None, {}):
        return "quick_gelu" if quick else "gelu"
    if not quick and kwargs == {"approximate": "tanh"}:
        return "gelu_tanh"
    raise UserError(
        f"{where} asks for act_kwargs={kwargs!r}, which is not supported (supported: none, or "
        "{'approximate': 'tanh'} with the exact GELU)"
    )


def _eps(kwargs: Any, where: str) -> float:
    if kwargs in (None, {}):
        return 1e-5
    if isinstance(kwargs, dict) and set(kwargs) == {"eps"}:
        return float(kwargs["eps"])
    raise UserError(
        f"{where} asks for norm_kwargs={kwargs!r}, which is not supported (supported: eps)"
    )


def _mlp(values: dict[str, Any], shapes: Fields, tower: str, where: str) -> None:
    if values["mlp_ratio"] is not None:
        stored = shapes[f"{tower}.mlp_width"] or 4 * shapes[f"{tower}.width"]
        told = int(values["width"] * values["mlp_ratio"])
        agree({"mlp_ratio * width": told}, {"mlp_ratio * width": stored}, where)


def _vision(config: dict[str, Any], quick: bool, shapes: Fields) -> Fields:
    values = VISION.values(config)
    is_vit = shapes["vision.kind"] == "vit"
    layers, width = values["layers"], values["width"]
    told = {
        "vision.width": width,
        "vision.image_resolution": side_of(values["image_size"], f"{VISION.where}: image_size"),
        "vision.layers" if is_vit else "vision.blocks": layers,
    }
    agree(told, shapes, FILE)
    heads = width * (1 if is_vit else 32) // values["head_width"]
    if not is_vit:
        return {"vision.heads": heads}
    patch = side_of(values["patch_size"], f"{VISION.where}: patch_size")
    agree({"vision.patch_size": patch}, shapes, FILE)
    _mlp(values, shapes, "vision", VISION.where)
    if values["pool_type"] not in ("tok", "avg"):
        raise UserError(
            f"{VISION.where} asks for pool_type={values['pool_type']!r}, which is not supported "
            "(supported: 'tok' or 'avg')"
        )
    agree(
        {
            "no_ln_pre": bool(values["no_ln_pre"]),
            "ls_init_value": values["ls_init_value"] is not None,
            "attentional_pool": values["attentional_pool"],
        },
        {
            "no_ln_pre": not shapes.get("vision.pre_norm", True),
            "ls_init_value": shapes.get("vision.layer_scale") is not None,
            "attentional_pool": shapes.get("vision.pooling") == "query",
        },
        VISION.where,
    )
    return {
        "vision.heads": heads,
        "vision.activation": _activation(quick, values["act_kwargs"], VISION.where),
        "vision.norm_eps": _eps(values["norm_kwargs"], VISION.where),
        **_pooling(values),
    }


def _pooling(values: dict[str, Any]) -> Fields:
    if values["attentional_pool"]:
        if values["pool_type"] != "tok":
            raise UserError(
                f"{VISION.where} asks for pool_type={values['pool_type']!r} of what "
                "attentional_pool gives, which is not supported (supported: 'tok')"
            )
        return {"vision.pool_heads": values["attn_pooler_heads"]}
    return {
        "vision.pooling": "class" if values["pool_type"] == "tok" else "mean",
        "vision.final_norm": "after" if values["final_ln_after_pool"] else "before",
    }


def _text(values: dict[str, Any], quick: bool, shapes: Fields, folder: Path) -> Fields:
    own = bool(values["embed_cls"])
    told = {
        f"text.{key}": values[key] for key in ("width", "layers", "context_length", "vocab_size")
    }
    agree(told, shapes, FILE)
    _mlp(values, shapes, "text", TEXT.where)
    pooling = values["pool_type"]
    if pooling not in ("argmax", "eos", "last"):
        raise UserError(
            f"{TEXT.where} asks for pool_type={pooling!r}, which is not supported "
            "(supported: 'argmax', 'eos' or 'last')"
        )
    agree(
        {
            "ls_init_value": values["ls_init_value"] is not None,
            "proj_bias": bool(values["proj_bias"]),
            "proj_type": values["proj_type"],
            "embed_cls": own,
        },
        {
            "ls_init_value": shapes.get("text.layer_scale") is not None,
            "proj_bias": shapes.get("text.projection_bias", False),
            "proj_type": "linear" if shapes.get("text.projection", True) else "none",
            "embed_cls": shapes.get("text.pooling") == "class",
        },
        TEXT.where,
    )
    return {
        "text.heads": values["heads"],
        "text.activation": _activation(quick, values["act_kwargs"], TEXT.where),
        "text.norm_eps": _eps(values["norm_kwargs"], TEXT.where),
        "text.causal": not values["no_causal_mask"],
        "text.pooling": "last" if pooling == "last" else "end",
        "text.end_token": values["eos_id"] if pooling == "eos" else None,
        # The token of its own decides, whatever pool_type says.
        **({"text.pooling": "class", "text.pad_token": values["pad_id"]} if own else {}),
        **open_clip_tokenizer(
            values["hf_tokenizer_name"], values["tokenizer_kwargs"] or {}, folder, TEXT.where
        ),
    }


def _pixels(values: dict[str, Any]) -> Fields:
    side_of(values["size"], f"{PREPROCESS.where}: size")
    mode = values["resize_mode"] or "shortest"
    if mode not in ("shortest", "squash"):
        raise UserError(
            f"{PREPROCESS.where} asks for resize_mode={mode!r}, which is not supported (supported: "
            "'shortest' or 'squash')"
        )
    return pixel_statistics(values, "mean", "std") | {"resize": _resize(mode, values)}


def _resize(mode: str, values: dict[str, Any]) -> str:
    interpolation = values["interpolation"] or "bicubic"
    if interpolation in ("bicubic", "random"):  # "random" is of training; inference is bicubic
        return mode
    if (mode, interpolation) == ("squash", "bilinear"):
        return "squash_bilinear"
    raise UserError(
        f"{PREPROCESS.where} asks for interpolation={interpolation!r} with resize_mode={mode!r}, "
        "which is not supported (supported: 'bicubic', and 'bilinear' with 'squash'): choose "
        "another checkpoint, or change the key if the difference is small enough for you"
    )

"""What transformers' CLIP and SigLIP have in common: names, and what values in configs mean."""

from typing import Any

from vprompt_jax.clip.checkpoints.family import Renames
from vprompt_jax.clip.checkpoints.keys import Keys, agree, side_of
from vprompt_jax.clip.checkpoints.tower_fields import with_side
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError

# Our names -> those that the library's CLIP and SigLIP share: of the towers, and in their blocks.
TOWER_NAMES: Renames = (
    (r"^text\.resblocks_(\d+)\.", r"text_model.encoder.layers.\1."),
    (r"^visual\.resblocks_(\d+)\.", r"vision_model.encoder.layers.\1."),
    (r"^text\.token_embedding\.embedding$", r"text_model.embeddings.token_embedding.weight"),
    (r"^text\.positional_embedding$", r"text_model.embeddings.position_embedding.weight"),
    (r"^text\.ln_final\.", r"text_model.final_layer_norm."),
)
BLOCK_NAMES: Renames = (
    (r"\.attn\.in_proj\.", r".self_attn.{}_proj."),
    (r"\.attn\.out_proj\.", r".self_attn.out_proj."),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.c_fc\.", r".fc1."),
    (r"\.c_proj\.", r".fc2."),
    (r"\.(kernel|scale)$", r".weight"),
)
_ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
}


def activation(name: str) -> str:
    """Our name of an activation.

    Raises:
      UserError: if it is not supported.
    """
    if name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise UserError(f"config.json: hidden_act {name!r} is not supported (known: {known})")
    return _ACTIVATIONS[name]


def check_type(config: dict[str, Any], *kinds: str) -> None:
    """Refuses the config of another kind of model; the first of the kinds is the weights'.

    Raises:
      UserError: if it is one.
    """
    if config.get("model_type") not in kinds:
        raise UserError(
            f"config.json beside the weights is of model_type {config.get('model_type')!r}, the "
            f"weights are of {kinds[0]!r}: it belongs to another checkpoint"
        )


def part_of(config: dict[str, Any], name: str, keys: Keys) -> dict[str, Any]:
    """The values of one tower's config, as transformers resolves them.

    Old files have a second copy under "NAME_dict", which takes the first's place as a whole: what
    it leaves out has the library's default, whatever the first copy says.
    """
    part, override = config.get(name) or {}, config.get(f"{name}_dict")
    if isinstance(override, dict) and isinstance(part, dict):
        part = {k: v for k, v in part.items() if k not in keys.read and k not in keys.must}
        part |= override
    return keys.values(part)


def square(config: dict[str, Any], where: str) -> dict[str, Any]:
    """A ViT's config with one number for each size that must be a square's side."""
    sizes = ("image_size", "patch_size")
    return config | {key: side_of(config[key], f"{where}: {key}") for key in sizes}


def with_vit_config(fields: Fields, config: dict[str, Any], where: str) -> Fields:
    """A ViT's fields with what its config adds, if that describes the tower that shapes tell."""
    fields = with_side(fields, config["image_size"])
    width = fields["vision.width"]
    shapes = {
        "hidden_size": width,
        "num_hidden_layers": fields["vision.layers"],
        "intermediate_size": fields["vision.mlp_width"] or 4 * width,
        "image_size": fields["vision.image_resolution"],
        "patch_size": fields["vision.patch_size"],
    }
    agree(config, shapes, where)
    return fields | {
        "vision.heads": config["num_attention_heads"],
        "vision.activation": activation(config["hidden_act"]),
        "vision.norm_eps": config["layer_norm_eps"],
    }

"""Hugging Face's names and layout (the transformers library) of SigLIP, and of SigLIP 2 with images
of one size, which is the same."""

import dataclasses
from typing import Any

import numpy as np

from vprompt_jax.clip.checkpoints.family import Beside, Family, Path, from_torch
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.keys import agree
from vprompt_jax.clip.checkpoints.processors import pixel_fields
from vprompt_jax.clip.checkpoints.tower_fields import (
    SIGLIP_VIT,
    count,
    shape_of,
    siglip_text,
    vit_tower,
)
from vprompt_jax.clip.checkpoints.transformers_keys import SIGLIP, SIGLIP_TEXT, SIGLIP_VISION
from vprompt_jax.clip.checkpoints.transformers_values import (
    BLOCK_NAMES,
    TOWER_NAMES,
    activation,
    check_type,
    part_of,
    square,
    with_vit_config,
)
from vprompt_jax.clip.checkpoints.vocabularies import tokenizer_fields
from vprompt_jax.clip.config import Fields
from vprompt_jax.process.errors import UserError

_PATCHES = "vision_model.embeddings.patch_embedding.weight"
_PROBE = "vision_model.head.probe"
_POOLING = ("q_proj", "k_proj", "v_proj")


def _vision(tensors: Tensors, config: dict[str, Any]) -> Fields:
    """The image tower; `config` is {} where there is none."""
    width, _, _, patch = shape_of(tensors, _PATCHES, 4)
    layers = count(tensors, r"vision_model\.encoder\.layers\.(\d+)\.")
    name = "vision_model.embeddings.position_embedding.weight"
    positions = shape_of(tensors, name, 2)[0]
    mlp = shape_of(tensors, "vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0]
    fields = vit_tower(width, layers, patch, positions, name, mlp, prefix=0)
    fields |= SIGLIP_VIT | {"embed_dim": width}
    if "classifier.weight" in tensors:  # of the patches' mean
        fields["classes"] = shape_of(tensors, "classifier.weight", 2)[0]
        fields["vision.pooling"] = "mean"
    elif _PROBE not in tensors:
        raise UserError(
            f"{_PROBE} is missing: a SigLIP without its pooling head has no image features"
        )
    if not config:
        return fields
    return with_vit_config(fields, square(config, SIGLIP_VISION.where), SIGLIP_VISION.where)


def _text(tensors: Tensors, config: dict[str, Any], beside: Beside, embed_dim: int) -> Fields:
    """The text tower; `config` is {} where there is none."""
    context_length, width = shape_of(tensors, "text_model.embeddings.position_embedding.weight", 2)
    mlp = shape_of(tensors, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0]
    shapes = {
        "hidden_size": width,
        "num_hidden_layers": count(tensors, r"text_model\.encoder\.layers\.(\d+)\."),
        "intermediate_size": mlp,
        "max_position_embeddings": context_length,
        "vocab_size": shape_of(tensors, "text_model.embeddings.token_embedding.weight", 2)[0],
        "projection_size": shape_of(tensors, "text_model.head.weight", 2)[0],
    }
    layers, vocabulary = shapes["num_hidden_layers"], shapes["vocab_size"]
    fields = siglip_text(
        width, layers, mlp, context_length, vocabulary, shapes["projection_size"], embed_dim
    )
    fields |= tokenizer_fields(beside.folder)
    if not config:
        return fields
    agree(config, shapes, SIGLIP_TEXT.where)
    return fields | {
        "text.heads": config["num_attention_heads"],
        "text.activation": activation(config["hidden_act"]),
        "text.norm_eps": config["layer_norm_eps"],
    }


def _configure(tensors: Tensors, beside: Beside) -> Fields:
    """A SigLIP, or the image tower that some classes of the library keep alone."""
    config = beside.hugging_face
    vision: dict[str, Any] = {}
    text: dict[str, Any] = {}
    if _PATCHES in tensors and len(tensors[_PATCHES].shape) == 2:
        raise UserError(
            "it holds a SigLIP 2 for images of any shape (NaFlex), which is not supported: choose "
            "a SigLIP 2 for images of one size, such as patch16-224"
        )
    if config:
        check_type(config, "siglip", "siglip_vision_model")
        if config["model_type"] != "siglip_vision_model":
            SIGLIP.values(config)
            vision = part_of(config, "vision_config", SIGLIP_VISION)
            text = part_of(config, "text_config", SIGLIP_TEXT)
        else:
            vision = dataclasses.replace(SIGLIP_VISION, where="config.json").values(config)
    fields = _vision(tensors, vision)
    fields |= pixel_fields(beside.preprocessor, beside.preprocessor_file, decides=True, crops=False)
    if any(name.startswith("text_model.") for name in tensors):
        fields |= _text(tensors, text, beside, fields["embed_dim"])
    return fields


def _prepare(tensors: Tensors) -> Tensors:
    """Under the names of a whole SigLIP, and without what a classifier does not use."""
    if "post_layernorm.weight" in tensors:  # an image tower of version 5 alone
        tensors = {f"vision_model.{name}": tensor for name, tensor in tensors.items()}
    if "classifier.weight" in tensors:
        unused = "vision_model.head."
        tensors = {n: t for n, t in tensors.items() if not n.startswith(unused)}
    return tensors


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] in ("logit_scale", "logit_bias"):
        return array.reshape(())  # [1] there
    if path[-1] == "probe":
        return array[0, 0]
    if path[-1] == "text_projection":
        return array.T
    if len(path) == 4 and path[2] in _POOLING:  # torch's attention has all three in one array
        array = np.split(array, 3)[_POOLING.index(path[2])]
    return from_torch(path, array)


FAMILY = Family(
    title="Hugging Face's layout of SigLIP",
    markers=(
        r"^(vision_model\.)?embeddings\.patch_embedding\.bias$",
        r"^(vision_model\.)?embeddings\.position_embedding\.weight$",
    ),
    renames=(
        *TOWER_NAMES,
        (r"^text\.text_projection$", r"text_model.head.weight"),
        (r"^text\.text_projection_bias$", r"text_model.head.bias"),
        (r"^visual\.conv1\.", r"vision_model.embeddings.patch_embedding."),
        (r"^visual\.positional_embedding$", r"vision_model.embeddings.position_embedding.weight"),
        (r"^visual\.ln_post\.", r"vision_model.post_layernorm."),
        (r"^visual\.attnpool\.probe$", _PROBE),
        (r"^visual\.attnpool\.[qkv]_proj\.kernel$", r"vision_model.head.attention.in_proj_weight"),
        (r"^visual\.attnpool\.[qkv]_proj\.bias$", r"vision_model.head.attention.in_proj_bias"),
        (r"^visual\.attnpool\.out_proj\.", r"vision_model.head.attention.out_proj."),
        (r"^visual\.attnpool\.ln_2\.", r"vision_model.head.layernorm."),
        (r"^visual\.attnpool\.", r"vision_model.head."),
        *BLOCK_NAMES,
    ),
    split=("q", "k", "v"),
    configure=_configure,
    to_ours=_to_ours,
    ignored=r"position_ids$",
    prepare=_prepare,
)

"""Hugging Face's names and layouts (the transformers library) of CLIP, ViT and ResNet."""

import dataclasses
from typing import Any

import numpy as np

from vprompt_jax.clip.checkpoints.family import (
    STATISTICS,
    Beside,
    Family,
    Path,
    from_torch,
    plain_vit_from_torch,
)
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.keys import agree
from vprompt_jax.clip.checkpoints.processors import pixel_fields
from vprompt_jax.clip.checkpoints.tower_fields import (
    PLAIN_VIT,
    count,
    shape_of,
    supervised_resnet,
    text_tower,
    vit_heads,
    vit_tower,
)
from vprompt_jax.clip.checkpoints.transformers_keys import (
    CLIP,
    CLIP_TEXT,
    CLIP_VISION,
    RESNET,
    VIT,
)
from vprompt_jax.clip.checkpoints.transformers_values import (
    BLOCK_NAMES,
    TOWER_NAMES,
    activation,
    check_type,
    part_of,
    square,
    with_vit_config,
)
from vprompt_jax.clip.config import CLIP_MEAN, CLIP_STD, Fields
from vprompt_jax.process.errors import UserError


def _clip_vision(tensors: Tensors, config: dict[str, Any]) -> Fields:
    """The image tower; `config` is {} where there is none."""
    width, _, _, patch = shape_of(tensors, "vision_model.embeddings.patch_embedding.weight", 4)
    layers = count(tensors, r"vision_model\.encoder\.layers\.(\d+)\.")
    name = "vision_model.embeddings.position_embedding.weight"
    mlp = shape_of(tensors, "vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0]
    config = config and square(config, CLIP_VISION.where)
    fields = vit_tower(width, layers, patch, shape_of(tensors, name, 2)[0], name, mlp)
    fields |= vit_heads(width, layers, patch)
    return with_vit_config(fields, config, CLIP_VISION.where) if config else fields


def _clip_text(tensors: Tensors, config: dict[str, Any]) -> Fields:
    """The text tower; `config` is {} where there is none."""
    context_length, width = shape_of(tensors, "text_model.embeddings.position_embedding.weight", 2)
    mlp = shape_of(tensors, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0]
    vocab_size = shape_of(tensors, "text_model.embeddings.token_embedding.weight", 2)[0]
    layers = count(tensors, r"text_model\.encoder\.layers\.(\d+)\.")
    fields = text_tower(width, layers, mlp, context_length, vocab_size)
    if not config:
        return fields
    shapes = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": mlp,
        "max_position_embeddings": context_length,
        "vocab_size": vocab_size,
    }
    agree(config, shapes, CLIP_TEXT.where)
    end = config["eos_token_id"]
    if type(end) is not int:
        raise UserError(f"{CLIP_TEXT.where}: eos_token_id={end!r} is no token's id")
    # Files of versions before 4.31 say 2, and the library takes the largest id for them still.
    largest = end in (2, vocab_size - 1)
    return fields | {
        "text.heads": config["num_attention_heads"],
        "text.activation": activation(config["hidden_act"]),
        "text.norm_eps": config["layer_norm_eps"],
        "text.end_token": None if largest else end,
    }


def _configure_clip(tensors: Tensors, beside: Beside) -> Fields:
    """A CLIP, or the image tower that some classes of the library keep alone."""
    config = beside.hugging_face
    vision: dict[str, Any] = {}
    text: dict[str, Any] = {}
    if config:
        check_type(config, "clip", "clip_vision_model")
        if config["model_type"] == "clip":
            projection = CLIP.values(config)["projection_dim"]
            vision = part_of(config, "vision_config", CLIP_VISION)
            text = part_of(config, "text_config", CLIP_TEXT)
        else:
            vision = dataclasses.replace(CLIP_VISION, where="config.json").values(config)
            projection = vision["projection_dim"]
    fields = _clip_vision(tensors, vision) | dict(mean=CLIP_MEAN, std=CLIP_STD)
    fields |= pixel_fields(beside.preprocessor, beside.preprocessor_file, decides=True)
    if "visual_projection.weight" in tensors:
        fields["embed_dim"] = shape_of(tensors, "visual_projection.weight", 2)[0]
        if config:
            agree({"projection_dim": projection}, {"projection_dim": fields["embed_dim"]}, "config")
    else:
        fields |= {"embed_dim": fields["vision.width"], "vision.projection": False}
    if "classifier.weight" in tensors:  # of the patches' mean, to which no norm was applied
        fields["classes"] = shape_of(tensors, "classifier.weight", 2)[0]
        fields |= {"vision.pooling": "mean", "vision.final_norm": "none"}
    if any(name.startswith("text_model.") for name in tensors):
        fields |= _clip_text(tensors, text)
    return fields


def _clip_tensors(tensors: Tensors) -> Tensors:
    """Under the names of a whole CLIP, and without what a classifier does not use."""
    if "pre_layrnorm.weight" in tensors:  # an image tower of version 5 alone
        tensors = {f"vision_model.{name}": tensor for name, tensor in tensors.items()}
    if "classifier.weight" in tensors:
        unused = "vision_model.post_layernorm."
        tensors = {n: t for n, t in tensors.items() if not n.startswith(unused)}
    return tensors


def _clip_to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    # The projections are linear layers there and plain matrices here.
    return array.T if path[-1] in ("proj", "text_projection") else from_torch(path, array)


CLIP_FAMILY = Family(
    title="Hugging Face's layout of CLIP",
    markers=(r"^(vision_model\.)?embeddings\.class_embedding$",),
    renames=(
        *TOWER_NAMES,
        (r"^text\.text_projection$", r"text_projection.weight"),
        (r"^visual\.conv1\.", r"vision_model.embeddings.patch_embedding."),
        (r"^visual\.class_embedding$", r"vision_model.embeddings.class_embedding"),
        (r"^visual\.positional_embedding$", r"vision_model.embeddings.position_embedding.weight"),
        (r"^visual\.ln_pre\.", r"vision_model.pre_layrnorm."),
        (r"^visual\.ln_post\.", r"vision_model.post_layernorm."),
        (r"^visual\.proj$", r"visual_projection.weight"),
        *BLOCK_NAMES,
    ),
    split=("q", "k", "v"),
    configure=_configure_clip,
    to_ours=_clip_to_ours,
    ignored=r"position_ids$",
    prepare=_clip_tensors,
)


def _configure_vit(tensors: Tensors, beside: Beside) -> Fields:
    width, _, _, patch = shape_of(tensors, "embeddings.patch_embeddings.projection.weight", 4)
    name = "embeddings.position_embeddings"
    layers = count(tensors, r"encoder\.layer\.(\d+)\.")
    mlp = shape_of(tensors, "encoder.layer.0.intermediate.dense.weight", 2)[0]
    config = beside.hugging_face
    if config:
        check_type(config, "vit")
        config = square(VIT.values(config), VIT.where)
    fields = vit_tower(width, layers, patch, shape_of(tensors, name, 3)[1], name, mlp)
    fields |= PLAIN_VIT | {"embed_dim": width, "vision.norm_eps": 1e-12}
    if "classifier.weight" in tensors:
        fields["classes"] = shape_of(tensors, "classifier.weight", 2)[0]
    fields |= vit_heads(width, layers, patch)
    if config:
        fields = with_vit_config(fields, config, VIT.where)
    return fields | pixel_fields(beside.preprocessor, beside.preprocessor_file, decides=False)


VIT_FAMILY = Family(
    title="Hugging Face's layout of ViT",
    markers=(r"^(vit\.)?embeddings\.cls_token$", r"embeddings\.patch_embeddings\.projection"),
    renames=(
        (r"^visual\.resblocks_(\d+)\.", r"encoder.layer.\1."),
        (r"^visual\.conv1\.", r"embeddings.patch_embeddings.projection."),
        (r"^visual\.class_embedding$", r"embeddings.cls_token"),
        (r"^visual\.positional_embedding$", r"embeddings.position_embeddings"),
        (r"^visual\.ln_post\.", r"layernorm."),
        (r"\.attn\.in_proj\.", r".attention.attention.{}."),
        (r"\.attn\.out_proj\.", r".attention.output.dense."),
        (r"\.ln_1\.", r".layernorm_before."),
        (r"\.ln_2\.", r".layernorm_after."),
        (r"\.mlp\.c_fc\.", r".intermediate.dense."),
        (r"\.mlp\.c_proj\.", r".output.dense."),
        (r"\.(kernel|scale)$", r".weight"),
    ),
    split=("query", "key", "value"),
    configure=_configure_vit,
    to_ours=plain_vit_from_torch,
    prefix=r"^vit\.",
    ignored=r"^(vit\.)?pooler\.",  # a head of models without classifier, not of the tower
)


def _configure_resnet(tensors: Tensors, beside: Beside) -> Fields:
    stages = count(tensors, r"encoder\.stages\.(\d+)\.")
    width = shape_of(tensors, "embedder.embedder.convolution.weight", 4)[0]
    blocks = [count(tensors, rf"encoder\.stages\.{s}\.layers\.(\d+)\.") for s in range(stages)]
    if beside.hugging_face:
        check_type(beside.hugging_face, "resnet")
        shapes = {
            "embedding_size": width,
            "hidden_sizes": tuple(4 * width * 2**s for s in range(stages)),
            "depths": tuple(blocks),
        }
        agree(RESNET.values(beside.hugging_face), shapes, RESNET.where)
    fields = supervised_resnet(width, blocks)
    if "classifier.1.weight" in tensors:
        fields["classes"] = shape_of(tensors, "classifier.1.weight", 2)[0]
    return fields | pixel_fields(beside.preprocessor, beside.preprocessor_file, decides=False)


RESNET_FAMILY = Family(
    title="Hugging Face's layout of ResNet",
    markers=(r"^(resnet\.)?embedder\.embedder\.convolution\.weight$",),
    renames=(
        (r"^visual\.conv1\.", r"embedder.embedder.convolution."),
        (r"^visual\.bn1\.", r"embedder.embedder.normalization."),
        *((rf"^visual\.layer{s + 1}_(\d+)\.", rf"encoder.stages.{s}.layers.\1.") for s in range(4)),
        (r"\.downsample_conv\.", r".shortcut.convolution."),
        (r"\.downsample_bn\.", r".shortcut.normalization."),
        *((rf"\.conv{i + 1}\.", rf".layer.{i}.convolution.") for i in range(3)),
        *((rf"\.bn{i + 1}\.", rf".layer.{i}.normalization.") for i in range(3)),
        (r"^classifier\.", r"classifier.1."),
        *STATISTICS,
        (r"\.(kernel|scale)$", r".weight"),
    ),
    configure=_configure_resnet,
    to_ours=from_torch,
    prefix=r"^resnet\.",
)

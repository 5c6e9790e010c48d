"""Hugging Face's names and layouts (the transformers library) of CLIP, ViT and ResNet."""

import numpy as np

from vprompt_jax.clip.checkpoints.family import (
    PLAIN_VIT,
    STATISTICS,
    Beside,
    Family,
    Path,
    count,
    from_torch,
    pixel_statistics,
    plain_vit_from_torch,
    shape_of,
    supervised_resnet,
    text_tower,
    vit_heads,
    vit_tower,
)
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.config import CLIP_MEAN, CLIP_STD, Fields
from vprompt_jax.process.errors import UserError

_ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def _activation(name: str) -> str:
    if name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise UserError(f"config.json: hidden_act {name!r} is not supported (known: {known})")
    return _ACTIVATIONS[name]


def _check_type(config: dict, kind: str) -> None:
    if config.get("model_type") != kind:
        raise UserError(
            f"config.json beside the weights is of model_type {config.get('model_type')!r}, the "
            f"weights are of {kind!r}: it belongs to another checkpoint"
        )


def _part(config: dict, name: str) -> dict:
    # Old configs have a second, overriding copy of each part under this name.
    return (config.get(name) or {}) | (config.get(f"{name}_dict") or {})


def _configure_clip(tensors: Tensors, beside: Beside) -> Fields:
    width, _, _, patch = shape_of(tensors, "vision_model.embeddings.patch_embedding.weight", 4)
    layers = count(tensors, r"vision_model\.encoder\.layers\.(\d+)\.")
    name = "vision_model.embeddings.position_embedding.weight"
    context_length, text_width = shape_of(
        tensors, "text_model.embeddings.position_embedding.weight", 2
    )
    mlp = shape_of(tensors, "vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0]
    text_mlp = shape_of(tensors, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0]
    vocab_size = shape_of(tensors, "text_model.embeddings.token_embedding.weight", 2)[0]
    text_layers = count(tensors, r"text_model\.encoder\.layers\.(\d+)\.")
    embed_dim = shape_of(tensors, "visual_projection.weight", 2)[0]
    fields = vit_tower(width, layers, patch, shape_of(tensors, name, 2)[0], name, mlp)
    fields |= dict(embed_dim=embed_dim, mean=CLIP_MEAN, std=CLIP_STD)
    fields |= text_tower(text_width, text_layers, text_mlp, context_length, vocab_size)
    fields |= vit_heads(width, layers, patch)
    if beside.hugging_face:
        _check_type(beside.hugging_face, "clip")
        vision = _part(beside.hugging_face, "vision_config")
        text = _part(beside.hugging_face, "text_config")
        for tower, part, heads in (("vision", vision, 12), ("text", text, 8)):
            fields |= {
                f"{tower}.heads": part.get("num_attention_heads", heads),
                f"{tower}.activation": _activation(part.get("hidden_act", "quick_gelu")),
                f"{tower}.norm_eps": part.get("layer_norm_eps", 1e-5),
            }
    return fields | pixel_statistics(beside.preprocessor, "image_mean", "image_std")


def _clip_to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    # The projections are linear layers there and plain matrices here.
    return array.T if path[-1] in ("proj", "text_projection") else from_torch(path, array)


CLIP_FAMILY = Family(
    title="Hugging Face's layout of CLIP",
    markers=(r"^vision_model\.embeddings\.class_embedding$",),
    renames=(
        (r"^text\.resblocks_(\d+)\.", r"text_model.encoder.layers.\1."),
        (r"^visual\.resblocks_(\d+)\.", r"vision_model.encoder.layers.\1."),
        (r"^text\.token_embedding\.embedding$", r"text_model.embeddings.token_embedding.weight"),
        (r"^text\.positional_embedding$", r"text_model.embeddings.position_embedding.weight"),
        (r"^text\.ln_final\.", r"text_model.final_layer_norm."),
        (r"^text\.text_projection$", r"text_projection.weight"),
        (r"^visual\.conv1\.", r"vision_model.embeddings.patch_embedding."),
        (r"^visual\.class_embedding$", r"vision_model.embeddings.class_embedding"),
        (r"^visual\.positional_embedding$", r"vision_model.embeddings.position_embedding.weight"),
        (r"^visual\.ln_pre\.", r"vision_model.pre_layrnorm."),
        (r"^visual\.ln_post\.", r"vision_model.post_layernorm."),
        (r"^visual\.proj$", r"visual_projection.weight"),
        (r"\.attn\.in_proj\.", r".self_attn.{}_proj."),
        (r"\.attn\.out_proj\.", r".self_attn.out_proj."),
        (r"\.ln_(\d)\.", r".layer_norm\1."),
        (r"\.c_fc\.", r".fc1."),
        (r"\.c_proj\.", r".fc2."),
        (r"\.(kernel|scale)$", r".weight"),
    ),
    split=("q", "k", "v"),
    configure=_configure_clip,
    to_ours=_clip_to_ours,
    ignored=r"position_ids$",
)


def _configure_vit(tensors: Tensors, beside: Beside) -> Fields:
    width, _, _, patch = shape_of(tensors, "embeddings.patch_embeddings.projection.weight", 4)
    name = "embeddings.position_embeddings"
    layers = count(tensors, r"encoder\.layer\.(\d+)\.")
    mlp = shape_of(tensors, "encoder.layer.0.intermediate.dense.weight", 2)[0]
    fields = vit_tower(width, layers, patch, shape_of(tensors, name, 3)[1], name, mlp)
    fields |= PLAIN_VIT | {"embed_dim": width, "vision.norm_eps": 1e-12}
    if "classifier.weight" in tensors:
        fields["classes"] = shape_of(tensors, "classifier.weight", 2)[0]
    fields |= vit_heads(width, layers, patch)
    if beside.hugging_face:
        _check_type(beside.hugging_face, "vit")
        fields |= {
            "vision.heads": beside.hugging_face.get("num_attention_heads", 12),
            "vision.activation": _activation(beside.hugging_face.get("hidden_act", "gelu")),
            "vision.norm_eps": beside.hugging_face.get("layer_norm_eps", 1e-12),
        }
    return fields | pixel_statistics(beside.preprocessor, "image_mean", "image_std")


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
    config = beside.hugging_face
    if config:
        _check_type(config, "resnet")
        if config.get("layer_type", "bottleneck") != "bottleneck" or config.get(
            "downsample_in_bottleneck"
        ):
            raise UserError("config.json asks for a ResNet whose blocks are not supported")
    stages = count(tensors, r"encoder\.stages\.(\d+)\.")
    width = shape_of(tensors, "embedder.embedder.convolution.weight", 4)[0]
    blocks = [count(tensors, rf"encoder\.stages\.{s}\.layers\.(\d+)\.") for s in range(stages)]
    fields = supervised_resnet(width, blocks)
    if "classifier.1.weight" in tensors:
        fields["classes"] = shape_of(tensors, "classifier.1.weight", 2)[0]
    return fields | pixel_statistics(beside.preprocessor, "image_mean", "image_std")


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

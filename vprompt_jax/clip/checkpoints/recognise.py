"""Names the towers that are not supported by what only their weights' names hold."""

import re
from collections.abc import Iterable

# Title -> patterns that must each match a name, and, after "!", one that must match none.
_TOWERS: dict[str, tuple[str, ...]] = {
    "a CLIP of OpenCLIP whose image tower is one of timm's (ConvNeXt, MobileCLIP, ViTamin, ...), "
    "but not SigLIP's, EVA's or PE's": (
        r"^visual\.trunk\.",
        r"!^visual\.trunk\.(attn_pool\.latent|blocks\.0\.attn\.(q_proj\.weight|q_bias))$",
    ),
    "a CLIP of OpenCLIP whose text tower is one of Hugging Face's": (
        r"^text\.transformer\.(encoder|embeddings)\.",
    ),
    "MobileCLIP": (r"^image_encoder\.model\.",),
    "EVA-CLIP": (r"^visual\.blocks\.\d+\.attn\.",),
    "transformers' CLIPTextModelWithProjection, a text tower alone": (
        r"^text_model\.",
        r"!^vision_model\.",
    ),
    "transformers' CLIPTextModel, a text tower alone": (
        r"^embeddings\.token_embedding\.",
        r"^final_layer_norm\.",
    ),
    "BLIP": (r"^(text_decoder|visual_encoder|qformer)\.", r"!^visual\."),
    "ConvNeXt (transformers)": (
        r"^(convnext(v2)?\.)?embeddings\.patch_embeddings\.weight$",
        r"!^embeddings\.cls_token$",
    ),
    "a ConvNeXt of DINOv3 (transformers)": (
        r"^(model\.)?stages\.\d+\.layers\.\d+\.depthwise_conv\.",
    ),
    "ConvNeXt (timm)": (r"^stem\.0\.weight$", r"^stages\.\d+\.blocks\.\d+\.conv_dw\."),
    "ConvNeXt (torchvision)": (r"^features\.0\.0\.weight$", r"\.layer_scale$"),
    "EVA (timm)": (r"^blocks\.\d+\.attn\.(q_proj|q_bias)", r"!^reg_token$"),
    "a Swin transformer": (r"relative_position_bias_table$",),
    "BEiT": (r"^blocks\.\d+\.gamma_1$", r"!^reg_token$"),
    "DeiT with a distillation token (transformers)": (r"distillation_token$",),
    "torchvision's ViT": (r"^encoder\.layers\.encoder_layer_0\.", r"^conv_proj\."),
    "EfficientNet": (r"^conv_stem\.weight$|^features\.0\.0\.weight$",),
    "transformers' BERT": (r"^(bert\.)?embeddings\.word_embeddings\.weight$",),
}


def tower_of(names: Iterable[str]) -> str | None:
    """What a checkpoint that is in no supported layout holds; None if that cannot be told."""
    names = list(names)

    def holds(pattern: str) -> bool:
        wanted = not pattern.startswith("!")
        return any(re.search(pattern.removeprefix("!"), n) for n in names) == wanted

    return next((t for t, patterns in _TOWERS.items() if all(map(holds, patterns))), None)

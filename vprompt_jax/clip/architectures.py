"""What the public architectures of a family have in common: a builder of configs for each."""

import dataclasses
from typing import Any

from vprompt_jax.clip.config import HALF, IMAGENET_MEAN, IMAGENET_STD, CLIPConfig
from vprompt_jax.clip.resnet_config import ResNetConfig
from vprompt_jax.clip.towers import TextConfig, ViTConfig

TextSize = tuple[int, int, int]  # width, heads, layers


def _text(size: TextSize, activation: str, context: int = 77) -> TextConfig:
    width, heads, layers = size
    return TextConfig(width, layers, heads, context, 49408, activation=activation)


def vit(
    patch: int,
    resolution: int,
    width: int,
    layers: int,
    heads: int,
    embed: int,
    text: TextSize,
    activation: str,
    mlp: int | None = None,
) -> CLIPConfig:
    vision = ViTConfig(width, layers, heads, patch, resolution, mlp, activation=activation)
    return CLIPConfig(embed, vision, _text(text, activation))


def clipa(
    resolution: int,
    width: int,
    layers: int,
    embed: int,
    text: TextSize,
    mlp: int | None = None,
) -> CLIPConfig:
    """CLIPA (arXiv 2305.07017): the patches' mean, and texts in BERT's vocabulary."""
    vision = ViTConfig(
        width, layers, 16, 14, resolution, mlp, pooling="mean", activation="gelu",
        pre_norm=False, final_norm="after",
    )  # fmt: skip
    texts = dataclasses.replace(
        _text(text, "gelu", 32), vocab_size=32_000, causal=False, pooling="last", tokenizer=None
    )
    return CLIPConfig(embed, vision, texts, IMAGENET_MEAN, IMAGENET_STD, resize="squash_bilinear")


# Of all EVA-CLIPs (arXiv 2303.15389).
_EVA: dict[str, Any] = {
    "norm_eps": 1e-6,
    "patch_bias": True,
    "pre_norm": False,
    "qkv_bias": "no_key",
    "projection_bias": True,
}


def eva01(text: TextSize) -> CLIPConfig:
    """EVA-CLIP whose image tower is EVA's giant (arXiv 2211.07636)."""
    vision = ViTConfig(1408, 40, 16, 14, 224, 6144, activation="gelu", **_EVA)
    return CLIPConfig(1024, vision, _text(text, "gelu"))


def eva02(
    patch: int, resolution: int, width: int, layers: int, mlp: int, embed: int, text: TextSize
) -> CLIPConfig:
    """EVA-CLIP whose image tower is an EVA-02 (arXiv 2303.11331); heads have 64 channels."""
    vision = ViTConfig(
        width, layers, width // 64, patch, resolution, mlp, activation="silu", gated_mlp=True,
        inner_norms=True, rope="pairs", rope_base=10_000.0, rope_reference=16, **_EVA,
    )  # fmt: skip
    return CLIPConfig(embed, vision, _text(text, "gelu"))


def eva02_e(text: TextSize) -> CLIPConfig:
    """EVA02-CLIP's ViT-E (arXiv 2303.15389)."""
    vision = ViTConfig(1792, 64, 16, 14, 224, 15360, activation="gelu", post_norm=True, **_EVA)
    return CLIPConfig(1024, vision, _text(text, "gelu"))


def coca(patch: int, width: int, layers: int, heads: int, embed: int, text: TextSize) -> CLIPConfig:
    """CoCa (arXiv 2205.01917) as OpenCLIP has it, without what writes captions."""
    vision = ViTConfig(
        width, layers, heads, patch, 224, activation="gelu", pooling="query", pool_heads=8,
        pool_class=True, final_norm="after",
    )  # fmt: skip
    texts = dataclasses.replace(_text(text, "gelu", 76), pooling="class")
    return CLIPConfig(embed, vision, texts)


def pe(
    patch: int,
    resolution: int,
    width: int,
    layers: int,
    heads: int,
    embed: int,
    text: TextSize,
    mlp: int | None = None,
    **fields: Any,
) -> CLIPConfig:
    """PE-Core (arXiv 2504.13181)."""
    options: dict[str, Any] = {"pool_class": True, "rope_offset": 1.0} | fields
    vision = ViTConfig(
        width, layers, heads, patch, resolution, mlp, pooling="attention", pool_heads=8,
        pool_mlp_width=4 * width, activation="gelu", projection_bias=True, rope="pairs",
        rope_base=10_000.0, rope_reference=resolution // patch, rope_order="columns", **options,
    )  # fmt: skip
    return CLIPConfig(embed, vision, _text(text, "gelu", 32), HALF, HALF, resize="squash_bilinear")


def pe_giant() -> CLIPConfig:
    """Its largest has no class token, and its texts are longer."""
    config = pe(
        14, 448, 1536, 50, 16, 1280, (1280, 20, 24), 8960, class_token=False, pool_class=False,
        rope_offset=0.0,
    )  # fmt: skip
    return config.with_fields({"context_length": 72})


def resnet(
    resolution: int, blocks: tuple[int, ...], width: int, embed: int, text: TextSize
) -> CLIPConfig:
    vision = ResNetConfig(width, blocks, resolution, heads=width // 2)
    return CLIPConfig(embed, vision, _text(text, "quick_gelu"))


def supervised_vit(width: int, layers: int, heads: int) -> CLIPConfig:
    vision = ViTConfig(
        width, layers, heads, 16, 224, activation="gelu", norm_eps=1e-6,
        patch_bias=True, pre_norm=False, projection=False,
    )  # fmt: skip
    return CLIPConfig(width, vision, mean=HALF, std=HALF, classes=1000)


def supervised_resnet(blocks: tuple[int, ...]) -> CLIPConfig:
    vision = ResNetConfig(64, blocks, 224, stem="imagenet", antialias=False, pooling="mean")
    return CLIPConfig(2048, vision, mean=IMAGENET_MEAN, std=IMAGENET_STD, classes=1000)


def siglip(
    patch: int, resolution: int, size: str, vocabulary: int = 32_000, pad: int = 1
) -> CLIPConfig:
    """SigLIP; SigLIP 2 (arXiv 2502.14786) differs in its vocabulary and padding."""
    width, layers, heads, mlp = _SIGLIP_VISION[size]
    vision = ViTConfig(
        width, layers, heads, patch, resolution, mlp, class_token=False, pooling="attention",
        activation="gelu_tanh", norm_eps=1e-6, patch_bias=True, pre_norm=False, projection=False,
    )  # fmt: skip
    # The giant's text tower is So400m's.
    width, layers, heads, mlp = _SIGLIP_VISION["So400m" if size == "giant" else size]
    text = TextConfig(
        width, layers, heads, 64, vocabulary, mlp, activation="gelu_tanh",
        norm_eps=1e-6, end_token=1, causal=False, pooling="last", projection_bias=True,
        tokenizer="siglip" if pad else "gemma", pad_token=pad,
    )  # fmt: skip
    return CLIPConfig(
        vision.width, vision, text, HALF, HALF, resize="squash" if pad else "squash_bilinear",
        logit_bias=True,
    )  # fmt: skip


def siglip2(patch: int, resolution: int, size: str) -> CLIPConfig:
    return siglip(patch, resolution, size, 256_000, pad=0)


def _dino(
    patch: int,
    resolution: int,
    width: int,
    layers: int,
    mlp: int | None,
    head_width: int = 64,
    **fields: Any,
) -> CLIPConfig:
    """What all DINOs have in common."""
    vision = ViTConfig(
        width, layers, width // head_width, patch, resolution, mlp, patch_bias=True, pre_norm=False,
        projection=False, layer_scale=1.0, gated_mlp=mlp is not None,
        activation="gelu" if mlp is None else "silu", **fields,
    )  # fmt: skip
    return CLIPConfig(width, vision, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def dinov2(width: int, layers: int, mlp: int | None = None, registers: int = 0) -> CLIPConfig:
    """DINOv2 (arXiv 2304.07193), without or with registers (arXiv 2309.16588)."""
    positions = "class" if registers else "all"
    return _dino(
        14, 518, width, layers, mlp, norm_eps=1e-6, registers=registers, positions=positions
    )


def dinov3(
    width: int, layers: int, mlp: int | None = None, head_width: int = 64, bias: str = "no_key"
) -> CLIPConfig:
    """DINOv3 (arXiv 2508.10104)."""
    config = _dino(
        16, 224, width, layers, mlp, head_width, registers=4, positions="none", qkv_bias=bias,
        rope="halves",
    )  # fmt: skip
    return dataclasses.replace(config, resize="squash_bilinear")


# Width, layers, heads and MLP's width of SigLIP's image towers, and of the text towers beside them.
_SIGLIP_VISION: dict[str, tuple[int, int, int, int | None]] = {
    "B": (768, 12, 12, None),
    "L": (1024, 24, 16, None),
    "So400m": (1152, 27, 16, 4304),
    "giant": (1536, 40, 16, None),
}

"""What the public architectures of a family have in common: a builder of configs for each."""

import dataclasses
from typing import Any

from vprompt_jax.clip.config import HALF, IMAGENET_MEAN, IMAGENET_STD, CLIPConfig
from vprompt_jax.clip.towers import ResNetConfig, TextConfig, ViTConfig

TextSize = tuple[int, int, int]  # width, heads, layers


def _text(size: TextSize, activation: str) -> TextConfig:
    width, heads, layers = size
    return TextConfig(width, layers, heads, 77, 49408, activation=activation)


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
    patch: int, resolution: int, width: int, layers: int, mlp: int | None, **fields: Any
) -> CLIPConfig:
    """What all DINOs have in common; their heads have 64 channels."""
    vision = ViTConfig(
        width, layers, width // 64, patch, resolution, mlp, patch_bias=True, pre_norm=False,
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


def dinov3(width: int, layers: int, mlp: int | None = None) -> CLIPConfig:
    """DINOv3 (arXiv 2508.10104)."""
    config = _dino(
        16, 224, width, layers, mlp, registers=4, positions="none", qkv_bias="no_key",
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

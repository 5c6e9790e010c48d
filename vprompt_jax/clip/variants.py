"""The public architectures, by name."""

import dataclasses
from typing import Any

from vprompt_jax.clip.config import HALF, IMAGENET_MEAN, IMAGENET_STD, CLIPConfig
from vprompt_jax.clip.towers import ResNetConfig, TextConfig, ViTConfig

_TextSize = tuple[int, int, int]  # width, heads, layers


def _text(size: _TextSize, activation: str) -> TextConfig:
    width, heads, layers = size
    return TextConfig(width, layers, heads, 77, 49408, activation=activation)


def _vit(
    patch: int,
    resolution: int,
    width: int,
    layers: int,
    heads: int,
    embed: int,
    text: _TextSize,
    activation: str,
    mlp: int | None = None,
) -> CLIPConfig:
    vision = ViTConfig(width, layers, heads, patch, resolution, mlp, activation=activation)
    return CLIPConfig(embed, vision, _text(text, activation))


def _resnet(
    resolution: int, blocks: tuple[int, ...], width: int, embed: int, text: _TextSize
) -> CLIPConfig:
    vision = ResNetConfig(width, blocks, resolution, heads=width // 2)
    return CLIPConfig(embed, vision, _text(text, "quick_gelu"))


def _supervised_vit(width: int, layers: int, heads: int) -> CLIPConfig:
    vision = ViTConfig(
        width, layers, heads, 16, 224, activation="gelu", norm_eps=1e-6,
        patch_bias=True, pre_norm=False, projection=False,
    )  # fmt: skip
    return CLIPConfig(width, vision, mean=HALF, std=HALF, classes=1000)


def _supervised_resnet(blocks: tuple[int, ...]) -> CLIPConfig:
    vision = ResNetConfig(64, blocks, 224, stem="imagenet", antialias=False, pooling="mean")
    return CLIPConfig(2048, vision, mean=IMAGENET_MEAN, std=IMAGENET_STD, classes=1000)


def _siglip(
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


def _siglip2(patch: int, resolution: int, size: str) -> CLIPConfig:
    return _siglip(patch, resolution, size, 256_000, pad=0)


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


def _dinov2(width: int, layers: int, mlp: int | None = None, registers: int = 0) -> CLIPConfig:
    """DINOv2 (arXiv 2304.07193), without or with registers (arXiv 2309.16588)."""
    positions = "class" if registers else "all"
    return _dino(
        14, 518, width, layers, mlp, norm_eps=1e-6, registers=registers, positions=positions
    )


def _dinov3(width: int, layers: int, mlp: int | None = None) -> CLIPConfig:
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

# Text towers by width: (channels, heads, layers).
_T512, _T640, _T768, _T1024 = (512, 8, 12), (640, 10, 12), (768, 12, 12), (1024, 16, 12)

# OpenAI's nine under OpenAI's names, OpenCLIP's under theirs (with the activation that most of
# their weights were trained with), SigLIP's, and towers without texts.
VARIANTS: dict[str, CLIPConfig] = {
    "RN50": _resnet(224, (3, 4, 6, 3), 64, 1024, _T512),
    "RN101": _resnet(224, (3, 4, 23, 3), 64, 512, _T512),
    "RN50x4": _resnet(288, (4, 6, 10, 6), 80, 640, _T640),
    "RN50x16": _resnet(384, (6, 8, 18, 8), 96, 768, _T768),
    "RN50x64": _resnet(448, (3, 15, 36, 10), 128, 1024, _T1024),
    "ViT-B/32": _vit(32, 224, 768, 12, 12, 512, _T512, "quick_gelu"),
    "ViT-B/16": _vit(16, 224, 768, 12, 12, 512, _T512, "quick_gelu"),
    "ViT-L/14": _vit(14, 224, 1024, 24, 16, 768, _T768, "quick_gelu"),
    "ViT-L/14@336px": _vit(14, 336, 1024, 24, 16, 768, _T768, "quick_gelu"),
    "OpenCLIP ViT-B-32": _vit(32, 224, 768, 12, 12, 512, _T512, "gelu"),
    "OpenCLIP ViT-B-16": _vit(16, 224, 768, 12, 12, 512, _T512, "gelu"),
    "OpenCLIP ViT-L-14": _vit(14, 224, 1024, 24, 16, 768, _T768, "gelu"),
    "OpenCLIP ViT-H-14": _vit(14, 224, 1280, 32, 16, 1024, (1024, 16, 24), "gelu"),
    "OpenCLIP ViT-g-14": _vit(14, 224, 1408, 40, 16, 1024, (1024, 16, 24), "gelu", 6144),
    "OpenCLIP ViT-bigG-14": _vit(14, 224, 1664, 48, 16, 1280, (1280, 20, 32), "gelu", 8192),
    "SigLIP ViT-B/16": _siglip(16, 224, "B"),
    "SigLIP ViT-B/16@256px": _siglip(16, 256, "B"),
    "SigLIP ViT-B/16@384px": _siglip(16, 384, "B"),
    "SigLIP ViT-B/16@512px": _siglip(16, 512, "B"),
    "SigLIP ViT-L/16@256px": _siglip(16, 256, "L"),
    "SigLIP ViT-L/16@384px": _siglip(16, 384, "L"),
    "SigLIP So400m/14@384px": _siglip(14, 384, "So400m"),
    "SigLIP 2 ViT-B/32@256px": _siglip2(32, 256, "B"),
    "SigLIP 2 ViT-B/16": _siglip2(16, 224, "B"),
    "SigLIP 2 ViT-B/16@256px": _siglip2(16, 256, "B"),
    "SigLIP 2 ViT-B/16@384px": _siglip2(16, 384, "B"),
    "SigLIP 2 ViT-B/16@512px": _siglip2(16, 512, "B"),
    "SigLIP 2 ViT-L/16@256px": _siglip2(16, 256, "L"),
    "SigLIP 2 ViT-L/16@384px": _siglip2(16, 384, "L"),
    "SigLIP 2 ViT-L/16@512px": _siglip2(16, 512, "L"),
    "SigLIP 2 So400m/14": _siglip2(14, 224, "So400m"),
    "SigLIP 2 So400m/14@384px": _siglip2(14, 384, "So400m"),
    "SigLIP 2 So400m/16@256px": _siglip2(16, 256, "So400m"),
    "SigLIP 2 So400m/16@384px": _siglip2(16, 384, "So400m"),
    "SigLIP 2 So400m/16@512px": _siglip2(16, 512, "So400m"),
    "SigLIP 2 giant-opt/16@256px": _siglip2(16, 256, "giant"),
    "SigLIP 2 giant-opt/16@384px": _siglip2(16, 384, "giant"),
    "DINOv2 ViT-S/14": _dinov2(384, 12),
    "DINOv2 ViT-B/14": _dinov2(768, 12),
    "DINOv2 ViT-L/14": _dinov2(1024, 24),
    "DINOv2 ViT-g/14": _dinov2(1536, 40, 4096),
    "DINOv2 ViT-S/14 with registers": _dinov2(384, 12, registers=4),
    "DINOv2 ViT-B/14 with registers": _dinov2(768, 12, registers=4),
    "DINOv2 ViT-L/14 with registers": _dinov2(1024, 24, registers=4),
    "DINOv2 ViT-g/14 with registers": _dinov2(1536, 40, 4096, registers=4),
    "DINOv3 ViT-S/16": _dinov3(384, 12),
    "DINOv3 ViT-S+/16": _dinov3(384, 12, 1536),
    "DINOv3 ViT-B/16": _dinov3(768, 12),
    "DINOv3 ViT-L/16": _dinov3(1024, 24),
    "DINOv3 ViT-H+/16": _dinov3(1280, 32, 5120),
    "supervised ViT-B/16": _supervised_vit(768, 12, 12),
    "supervised ViT-L/16": _supervised_vit(1024, 24, 16),
    "supervised ResNet-50": _supervised_resnet((3, 4, 6, 3)),
    "supervised ResNet-101": _supervised_resnet((3, 4, 23, 3)),
}
VIT_B_32 = VARIANTS["ViT-B/32"]

# Number of attention heads by (width, blocks, patch size), for the public ViTs whose heads are not
# 64 channels wide: the shapes of their tensors do not tell it.
VISION_HEADS = {
    (c.vision.width, c.vision.layers, c.vision.patch_size): c.vision.heads
    for c in VARIANTS.values()
    if isinstance(c.vision, ViTConfig) and c.vision.width != 64 * c.vision.heads
}


def _shape(config: CLIPConfig) -> tuple[Any, ...]:
    """The properties that tell public architectures apart, except for the activation."""
    vision, text = config.vision, config.text
    own = (vision.registers, vision.gated_mlp, vision.rope) if isinstance(vision, ViTConfig) else ()
    return (
        type(vision), vision.block_counts, vision.width, vision.image_resolution, vision.downscale,
        vision.pooling, *own, config.embed_dim, text and (text.width, text.layers, text.vocab_size),
    )  # fmt: skip


def _activation(config: CLIPConfig) -> str | None:
    tower = config.vision if isinstance(config.vision, ViTConfig) else config.text
    return None if tower is None else tower.activation


def variant_name(config: CLIPConfig) -> str | None:
    """The public name of an architecture; None if it has none."""
    names = [name for name, known in VARIANTS.items() if _shape(known) == _shape(config)]
    # OpenAI's and OpenCLIP's ViTs differ in the activation alone.
    return min(names, key=lambda n: _activation(VARIANTS[n]) != _activation(config), default=None)

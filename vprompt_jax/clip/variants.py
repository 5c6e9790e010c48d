"""The public architectures, by name."""

from typing import Any

from vprompt_jax.clip.architectures import (
    clipa,
    coca,
    dinov2,
    dinov3,
    eva01,
    eva02,
    eva02_e,
    pe,
    pe_giant,
    resnet,
    siglip,
    siglip2,
    supervised_resnet,
    supervised_vit,
    vit,
)
from vprompt_jax.clip.config import CLIPConfig
from vprompt_jax.clip.towers import ViTConfig

# Text towers by width: (channels, heads, layers).
_T512, _T640, _T768, _T1024 = (512, 8, 12), (640, 10, 12), (768, 12, 12), (1024, 16, 12)
_T1024_DEEP, _T1280 = (1024, 16, 24), (1280, 20, 32)

# OpenAI's nine under OpenAI's names, OpenCLIP's under theirs (with the activation that most of
# their weights were trained with), SigLIP's, and towers without texts.
VARIANTS: dict[str, CLIPConfig] = {
    "RN50": resnet(224, (3, 4, 6, 3), 64, 1024, _T512),
    "RN101": resnet(224, (3, 4, 23, 3), 64, 512, _T512),
    "RN50x4": resnet(288, (4, 6, 10, 6), 80, 640, _T640),
    "RN50x16": resnet(384, (6, 8, 18, 8), 96, 768, _T768),
    "RN50x64": resnet(448, (3, 15, 36, 10), 128, 1024, _T1024),
    "ViT-B/32": vit(32, 224, 768, 12, 12, 512, _T512, "quick_gelu"),
    "ViT-B/16": vit(16, 224, 768, 12, 12, 512, _T512, "quick_gelu"),
    "ViT-L/14": vit(14, 224, 1024, 24, 16, 768, _T768, "quick_gelu"),
    "ViT-L/14@336px": vit(14, 336, 1024, 24, 16, 768, _T768, "quick_gelu"),
    "OpenCLIP ViT-B-32": vit(32, 224, 768, 12, 12, 512, _T512, "gelu"),
    "OpenCLIP ViT-B-16": vit(16, 224, 768, 12, 12, 512, _T512, "gelu"),
    "OpenCLIP ViT-L-14": vit(14, 224, 1024, 24, 16, 768, _T768, "gelu"),
    "OpenCLIP ViT-H-14": vit(14, 224, 1280, 32, 16, 1024, _T1024_DEEP, "gelu"),
    "OpenCLIP ViT-g-14": vit(14, 224, 1408, 40, 16, 1024, _T1024_DEEP, "gelu", 6144),
    "OpenCLIP ViT-bigG-14": vit(14, 224, 1664, 48, 16, 1280, _T1280, "gelu", 8192),
    "OpenCLIP ViT-L-14-CLIPA": clipa(224, 1024, 24, 768, _T768),
    "OpenCLIP ViT-L-14-CLIPA-336": clipa(336, 1024, 24, 768, _T768),
    "OpenCLIP ViT-H-14-CLIPA": clipa(224, 1280, 32, 1024, _T1024_DEEP),
    "OpenCLIP ViT-H-14-CLIPA-336": clipa(336, 1280, 32, 1024, _T1024_DEEP),
    "OpenCLIP ViT-bigG-14-CLIPA": clipa(224, 1664, 48, 1280, _T1280, 8192),
    "OpenCLIP ViT-bigG-14-CLIPA-336": clipa(336, 1664, 48, 1280, _T1280, 8192),
    "OpenCLIP EVA01-g-14": eva01(_T768),
    "OpenCLIP EVA01-g-14-plus": eva01(_T1024_DEEP),
    "OpenCLIP EVA02-B-16": eva02(16, 224, 768, 12, 2048, 512, _T512),
    "OpenCLIP EVA02-L-14": eva02(14, 224, 1024, 24, 2730, 768, _T768),
    "OpenCLIP EVA02-L-14-336": eva02(14, 336, 1024, 24, 2730, 768, _T768),
    "OpenCLIP EVA02-E-14": eva02_e(_T1024_DEEP),
    "OpenCLIP EVA02-E-14-plus": eva02_e(_T1280),
    "OpenCLIP coca_ViT-B-32": coca(32, 768, 12, 12, 512, _T512),
    "OpenCLIP coca_ViT-L-14": coca(14, 1024, 24, 16, 768, _T768),
    "OpenCLIP PE-Core-T-16-384": pe(16, 384, 192, 12, 3, 512, _T512),
    "OpenCLIP PE-Core-S-16-384": pe(16, 384, 384, 12, 6, 512, _T512),
    "OpenCLIP PE-Core-B-16": pe(16, 224, 768, 12, 12, 1024, _T1024_DEEP),
    "OpenCLIP PE-Core-L-14-336": pe(14, 336, 1024, 24, 16, 1024, _T1024_DEEP),
    "OpenCLIP PE-Core-bigG-14-448": pe_giant(),
    "SigLIP ViT-B/16": siglip(16, 224, "B"),
    "SigLIP ViT-B/16@256px": siglip(16, 256, "B"),
    "SigLIP ViT-B/16@384px": siglip(16, 384, "B"),
    "SigLIP ViT-B/16@512px": siglip(16, 512, "B"),
    "SigLIP ViT-L/16@256px": siglip(16, 256, "L"),
    "SigLIP ViT-L/16@384px": siglip(16, 384, "L"),
    "SigLIP So400m/14@384px": siglip(14, 384, "So400m"),
    "SigLIP 2 ViT-B/32@256px": siglip2(32, 256, "B"),
    "SigLIP 2 ViT-B/16": siglip2(16, 224, "B"),
    "SigLIP 2 ViT-B/16@256px": siglip2(16, 256, "B"),
    "SigLIP 2 ViT-B/16@384px": siglip2(16, 384, "B"),
    "SigLIP 2 ViT-B/16@512px": siglip2(16, 512, "B"),
    "SigLIP 2 ViT-L/16@256px": siglip2(16, 256, "L"),
    "SigLIP 2 ViT-L/16@384px": siglip2(16, 384, "L"),
    "SigLIP 2 ViT-L/16@512px": siglip2(16, 512, "L"),
    "SigLIP 2 So400m/14": siglip2(14, 224, "So400m"),
    "SigLIP 2 So400m/14@384px": siglip2(14, 384, "So400m"),
    "SigLIP 2 So400m/16@256px": siglip2(16, 256, "So400m"),
    "SigLIP 2 So400m/16@384px": siglip2(16, 384, "So400m"),
    "SigLIP 2 So400m/16@512px": siglip2(16, 512, "So400m"),
    "SigLIP 2 giant-opt/16@256px": siglip2(16, 256, "giant"),
    "SigLIP 2 giant-opt/16@384px": siglip2(16, 384, "giant"),
    "DINOv2 ViT-S/14": dinov2(384, 12),
    "DINOv2 ViT-B/14": dinov2(768, 12),
    "DINOv2 ViT-L/14": dinov2(1024, 24),
    "DINOv2 ViT-g/14": dinov2(1536, 40, 4096),
    "DINOv2 ViT-S/14 with registers": dinov2(384, 12, registers=4),
    "DINOv2 ViT-B/14 with registers": dinov2(768, 12, registers=4),
    "DINOv2 ViT-L/14 with registers": dinov2(1024, 24, registers=4),
    "DINOv2 ViT-g/14 with registers": dinov2(1536, 40, 4096, registers=4),
    "DINOv3 ViT-S/16": dinov3(384, 12),
    "DINOv3 ViT-S+/16": dinov3(384, 12, 1536),
    "DINOv3 ViT-B/16": dinov3(768, 12),
    "DINOv3 ViT-L/16": dinov3(1024, 24),
    "DINOv3 ViT-H+/16": dinov3(1280, 32, 5120),
    "DINOv3 ViT-7B/16": dinov3(4096, 40, 8192, head_width=128, bias="none"),
    "supervised ViT-B/16": supervised_vit(768, 12, 12),
    "supervised ViT-L/16": supervised_vit(1024, 24, 16),
    "supervised ResNet-50": supervised_resnet((3, 4, 6, 3)),
    "supervised ResNet-101": supervised_resnet((3, 4, 23, 3)),
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
    own: tuple[Any, ...] = ()
    if isinstance(vision, ViTConfig):  # OpenCLIP's EVA01-g-14-plus has all the sizes of ViT-g-14
        own = (vision.registers, vision.gated_mlp, vision.rope, vision.pre_norm)
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

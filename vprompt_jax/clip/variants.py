"""What distinguishes one model from another: the numbers that its towers are built from."""

import dataclasses

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_tanh")

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)  # mean and std that bring pixels to [-1, 1] (ViT, arXiv 2010.11929)

_TEXT_FIELDS = ("context_length", "vocab_size", "text_width", "text_heads", "text_layers")


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Architecture of one CLIP (Radford et al., arXiv 2103.00020, tables 19-20), or of a
    classifier's image tower alone (ViT, arXiv 2010.11929; ResNet, arXiv 1512.03385).

    Attributes:
      embed_dim: width E of the joint image-text space, or of a supervised tower's features.
      image_resolution: side R of the square input, in pixels.
      vision_layers: number of blocks of a ViT, or blocks per stage of a ResNet.
      vision_width: channels of the ViT, or of the ResNet's stem.
      vision_heads: attention heads of the ViT's blocks, or of CLIP's attention pooling; 0 for a
        supervised ResNet, which has none.
      vision_patch_size: side of a ViT patch in pixels; None for a ResNet.
      context_length: longest text, in tokens, start and end included.
      vocab_size: number of token ids.
      text_width: channels of the text tower.
      text_heads: attention heads of the text tower.
      text_layers: blocks of the text tower.
      activation: "quick_gelu" (OpenAI's weights), "gelu" (exact; most of OpenCLIP's) or
        "gelu_tanh" (the original ViT in JAX).
      vision_mlp_width: channels inside the ViT's perceptrons; None: four times `vision_width`.
      text_mlp_width: the same for the text tower.
      layer_norm_eps: of every LayerNorm.
      mean: of the pixels in [0, 1], per channel, which the tower's input is normalised with.
      std: likewise.
      supervised: a classifier's tower: no text; a ViT with a patch bias, without `ln_pre` and
        projection; a ResNet with one 7x7 convolution, max pooling, strided 3x3 convolutions and
        average pooling.
      pre_logits: width of the tanh layer before a supervised tower's classifier; 0: none.
      classes: outputs of the classifier a supervised tower came with; 0: none.
    """

    embed_dim: int
    image_resolution: int
    vision_layers: int | tuple[int, ...]
    vision_width: int
    vision_heads: int
    vision_patch_size: int | None
    context_length: int = 0
    vocab_size: int = 0
    text_width: int = 0
    text_heads: int = 0
    text_layers: int = 0
    activation: str = "quick_gelu"
    vision_mlp_width: int | None = None
    text_mlp_width: int | None = None
    layer_norm_eps: float = 1e-5
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    supervised: bool = False
    pre_logits: int = 0
    classes: int = 0

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {ACTIVATIONS}, got {self.activation!r}")
        if self.has_text and not all(getattr(self, field) for field in _TEXT_FIELDS):
            raise ValueError(f"a CLIP needs {', '.join(_TEXT_FIELDS)}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} must be three channels, std > 0")

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower."""
        return not self.supervised

    @property
    def is_vit(self) -> bool:
        return self.vision_patch_size is not None

    @property
    def depth(self) -> int:
        """Number L of blocks of the vision tower; position L is the final feature vector."""
        return self.vision_layers if self.is_vit else sum(self.vision_layers)

    @property
    def downscale(self) -> int:
        """Pixels per side of one place of the last activation map; divides the resolution."""
        if self.is_vit:
            return self.vision_patch_size
        return 2 ** (len(self.vision_layers) + 1)

    @classmethod
    def from_json(cls, fields: dict) -> "CLIPConfig":
        """Builds a config from JSON, where tuples come back as lists."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def _clip(patch, resolution, width, layers, heads, embed, text, activation, mlp=None):
    text_width, text_heads, text_layers = text
    return CLIPConfig(
        embed_dim=embed,
        image_resolution=resolution,
        vision_layers=layers,
        vision_width=width,
        vision_heads=heads,
        vision_patch_size=patch,
        context_length=77,
        vocab_size=49408,
        text_width=text_width,
        text_heads=text_heads,
        text_layers=text_layers,
        activation=activation,
        vision_mlp_width=mlp,
    )


def _resnet(resolution, layers, width, embed, text):
    return _clip(None, resolution, width, layers, width // 2, embed, text, "quick_gelu")


def _supervised_vit(width, layers, heads):
    return CLIPConfig(
        width, 224, layers, width, heads, 16, activation="gelu", layer_norm_eps=1e-6,
        mean=HALF, std=HALF, supervised=True, classes=1000,
    )  # fmt: skip


def _supervised_resnet(layers):
    return CLIPConfig(
        2048, 224, layers, 64, 0, None, layer_norm_eps=1e-5,
        mean=IMAGENET_MEAN, std=IMAGENET_STD, supervised=True, classes=1000,
    )  # fmt: skip


# Text towers by width: (channels, heads, layers).
_T512, _T640, _T768, _T1024 = (512, 8, 12), (640, 10, 12), (768, 12, 12), (1024, 16, 12)

# OpenAI's nine by the names OpenAI gives them, OpenCLIP's by theirs (with the activation of most
# of their weights), and supervised towers.
VARIANTS: dict[str, CLIPConfig] = {
    "RN50": _resnet(224, (3, 4, 6, 3), 64, 1024, _T512),
    "RN101": _resnet(224, (3, 4, 23, 3), 64, 512, _T512),
    "RN50x4": _resnet(288, (4, 6, 10, 6), 80, 640, _T640),
    "RN50x16": _resnet(384, (6, 8, 18, 8), 96, 768, _T768),
    "RN50x64": _resnet(448, (3, 15, 36, 10), 128, 1024, _T1024),
    "ViT-B/32": _clip(32, 224, 768, 12, 12, 512, _T512, "quick_gelu"),
    "ViT-B/16": _clip(16, 224, 768, 12, 12, 512, _T512, "quick_gelu"),
    "ViT-L/14": _clip(14, 224, 1024, 24, 16, 768, _T768, "quick_gelu"),
    "ViT-L/14@336px": _clip(14, 336, 1024, 24, 16, 768, _T768, "quick_gelu"),
    "OpenCLIP ViT-B-32": _clip(32, 224, 768, 12, 12, 512, _T512, "gelu"),
    "OpenCLIP ViT-B-16": _clip(16, 224, 768, 12, 12, 512, _T512, "gelu"),
    "OpenCLIP ViT-L-14": _clip(14, 224, 1024, 24, 16, 768, _T768, "gelu"),
    "OpenCLIP ViT-H-14": _clip(14, 224, 1280, 32, 16, 1024, (1024, 16, 24), "gelu"),
    "OpenCLIP ViT-g-14": _clip(14, 224, 1408, 40, 16, 1024, (1024, 16, 24), "gelu", 6144),
    "OpenCLIP ViT-bigG-14": _clip(14, 224, 1664, 48, 16, 1280, (1280, 20, 32), "gelu", 8192),
    "supervised ViT-B/16": _supervised_vit(768, 12, 12),
    "supervised ViT-L/16": _supervised_vit(1024, 24, 16),
    "supervised ResNet-50": _supervised_resnet((3, 4, 6, 3)),
    "supervised ResNet-101": _supervised_resnet((3, 4, 23, 3)),
}
VIT_B_32 = VARIANTS["ViT-B/32"]

# Attention heads that tensor shapes cannot tell, by (width, blocks, patch) of public ViTs whose
# heads are not 64 channels wide.
VISION_HEADS = {
    (c.vision_width, c.vision_layers, c.vision_patch_size): c.vision_heads
    for c in VARIANTS.values()
    if c.is_vit and c.vision_width != 64 * c.vision_heads
}


_TELLING = (
    "embed_dim", "image_resolution", "vision_layers", "vision_width", "vision_patch_size",
    "text_width", "text_layers", "supervised",
)  # fmt: skip


def variant_name(config: CLIPConfig) -> str | None:
    """The public name of an architecture; None if it has none."""
    names = [
        name
        for name, known in VARIANTS.items()
        if all(getattr(known, field) == getattr(config, field) for field in _TELLING)
    ]
    # OpenAI's and OpenCLIP's ViTs differ in the activation alone.
    return min(names, key=lambda n: VARIANTS[n].activation != config.activation, default=None)

"""What distinguishes one CLIP from another: the numbers a checkpoint's towers are built from."""

import dataclasses

ACTIVATIONS = ("quick_gelu", "gelu")


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Architecture of one CLIP (Radford et al., arXiv 2103.00020, tables 19-20).

    Attributes:
      embed_dim: width E of the joint image-text space.
      image_resolution: side R of the square input, in pixels.
      vision_layers: number of blocks of a ViT, or blocks per stage of a ModifiedResNet.
      vision_width: channels of the ViT, or of the ResNet's stem.
      vision_heads: attention heads of the ViT's blocks, or of the ResNet's attention pooling.
      vision_patch_size: side of a ViT patch in pixels; None for a ResNet.
      context_length: longest text, in tokens, start and end included.
      vocab_size: number of token ids.
      text_width: channels of the text tower.
      text_heads: attention heads of the text tower.
      text_layers: blocks of the text tower.
      activation: "quick_gelu" (OpenAI's weights) or "gelu" (most of OpenCLIP's).
    """

    embed_dim: int
    image_resolution: int
    vision_layers: int | tuple[int, ...]
    vision_width: int
    vision_heads: int
    vision_patch_size: int | None
    context_length: int
    vocab_size: int
    text_width: int
    text_heads: int
    text_layers: int
    activation: str = "quick_gelu"

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {ACTIVATIONS}, got {self.activation!r}")

    @property
    def is_vit(self) -> bool:
        return self.vision_patch_size is not None

    @property
    def has_text(self) -> bool:
        return self.text_layers > 0

    @property
    def depth(self) -> int:
        """Number L of blocks of the vision tower; position L is the final feature vector."""
        return self.vision_layers if self.is_vit else sum(self.vision_layers)

    @classmethod
    def from_json(cls, fields: dict) -> "CLIPConfig":
        """Builds a config from JSON, where tuples come back as lists."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


VIT_B_32 = CLIPConfig(
    embed_dim=512,
    image_resolution=224,
    vision_layers=12,
    vision_width=768,
    vision_heads=12,
    vision_patch_size=32,
    context_length=77,
    vocab_size=49408,
    text_width=512,
    text_heads=8,
    text_layers=12,
)

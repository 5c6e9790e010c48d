"""The config of a CLIP: one config per tower, and what the towers share.

The package learns what a tower is from these configs alone. It concludes nothing from a
checkpoint's name or from a missing number.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from vprompt_jax.clip.checks import check_choice, check_positive
from vprompt_jax.clip.resnet_config import ResNetConfig
from vprompt_jax.clip.towers import ACTIVATIONS, TextConfig, ViTConfig
from vprompt_jax.process.errors import UserError

__all__ = ["ACTIVATIONS", "CLIPConfig", "ResNetConfig", "TextConfig", "ViTConfig"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)  # mean and std that map pixels to [-1, 1] (ViT, arXiv 2010.11929)

Resize = Literal["shortest", "squash", "squash_bilinear"]

Fields = dict[str, Any]


VisionConfig = ViTConfig | ResNetConfig
_VISION: dict[str, type[ViTConfig] | type[ResNetConfig]] = {
    "vit": ViTConfig,
    "resnet": ResNetConfig,
}


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Architecture of one CLIP (arXiv 2103.00020, tables 19-20), or of an image tower alone.

    Attributes:
      embed_dim: width E of the joint image-text space, or of a lone image tower's features.
      vision: the image tower.
      text: the text tower; None: there is none.
      mean: of the pixels in [0, 1], per channel, which the image tower's input is normalised with.
      std: likewise.
      classes: outputs of the classifier the checkpoint came with; 0: none.
      pre_logits: width of the tanh layer before that classifier; 0: none.
      resize: how a photograph becomes square: "shortest" (the short side is resized, the centre cut
        out) or "squash" (both sides are resized, whatever their ratio). By bicubic interpolation;
        "squash_bilinear" says otherwise.
      logit_bias: whether a learned number is added to the logits of an image and a text (SigLIP,
        arXiv 2303.15343). It is the same for all texts, so a softmax over them does not see it.
    """

    embed_dim: int
    vision: VisionConfig
    text: TextConfig | None = None
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    classes: int = 0
    pre_logits: int = 0
    resize: Resize = "shortest"
    logit_bias: bool = False

    # Short names that users may give: each sets the field in every tower listed here. In addition,
    # "vision_heads" means "vision.heads", and so on.
    SHORT: ClassVar[dict[str, tuple[str, ...]]] = {
        "activation": ("vision.activation", "text.activation"),
        "layer_norm_eps": ("vision.norm_eps", "text.norm_eps"),
        "image_resolution": ("vision.image_resolution",),
        "context_length": ("text.context_length",),
        "vocab_size": ("text.vocab_size",),
    }

    def __post_init__(self) -> None:
        check_positive("the config", self, "embed_dim")
        check_choice("resize", self.resize, get_args(Resize))
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} must be three channels, std > 0")
        features = self._own_features()
        if features is not None and features != self.embed_dim:
            raise ValueError(f"embed_dim is {self.embed_dim}, the tower's features have {features}")
        vision, text = self.vision, self.text
        if isinstance(vision, ViTConfig) and vision.pooling == "query":
            heads = vision.pool_heads or vision.heads
            if self.embed_dim % heads:
                raise ValueError(f"vision: {heads} pool_heads do not divide {self.embed_dim}")
        if text is not None and not text.projection and text.width != self.embed_dim:
            raise ValueError(
                f"embed_dim is {self.embed_dim}, the texts' features have {text.width}"
            )

    def _own_features(self) -> int | None:
        """Channels of the features if the tower fixes their number; None if a projection does."""
        vision = self.vision
        if isinstance(vision, ViTConfig):
            projected = vision.projection or vision.pooling == "query"
            return None if projected else vision.width
        return vision.channels if vision.pooling == "mean" else None

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower."""
        return self.text is not None

    def require_text(self) -> TextConfig:
        """The text tower's config.

        Raises:
          UserError: if there is no text tower.
        """
        if self.text is None:
            raise UserError(
                "this checkpoint has no text tower, so it cannot encode texts or classify "
                "zero-shot: train a linear head, map its own classes, or load a CLIP"
            )
        return self.text

    @property
    def image_resolution(self) -> int:
        """Side R of the square input, in pixels."""
        return self.vision.image_resolution

    @property
    def depth(self) -> int:
        """Number L of blocks of the image tower; position L is the final feature vector."""
        return self.vision.depth

    @property
    def downscale(self) -> int:
        """Pixels per side of one cell of the last activation map; divides the resolution."""
        return self.vision.downscale

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "CLIPConfig":
        """Builds a config from dotted fields; "vision.kind" chooses the image tower's class.

        Raises:
          TypeError, ValueError: if a field is missing or unknown, or has an impossible value.
        """
        parts: dict[str, Fields] = {"": {}, "vision": {}, "text": {}}
        for name, value in fields.items():
            part, _, field = name.rpartition(".")
            parts[part][field] = value
        vision = _VISION[parts["vision"].pop("kind")](**parts["vision"])
        text = TextConfig(**parts["text"]) if parts["text"] else None
        return cls(vision=vision, text=text, **parts[""])

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CLIPConfig":
        """Reads the JSON form of `dataclasses.asdict`, or the flat form of earlier versions.

        Raises:
          KeyError, TypeError, ValueError: if the values do not describe a CLIP.
        """
        values = _tuples(values)
        if "vision" not in values:
            return cls.from_fields(_from_one_level(values))
        fields = {name: v for name, v in values.items() if name not in ("vision", "text")}
        for tower in ("vision", "text"):
            fields |= {f"{tower}.{k}": v for k, v in (values.get(tower) or {}).items()}
        return cls.from_fields(fields)

    def fields(self) -> Fields:
        """All fields by dotted name, without those of a missing text tower."""
        fields: Fields = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not dataclasses.is_dataclass(value):
                fields |= {} if field.name == "text" else {field.name: value}
                continue
            fields |= {
                f"{field.name}.{part.name}": getattr(value, part.name)
                for part in dataclasses.fields(value)
            }
        return fields

    def with_fields(self, changes: Mapping[str, Any]) -> "CLIPConfig":
        """A copy with some fields changed, named as users may ("vision.heads", "vision_heads").

        Raises:
          TypeError, ValueError: if a field is unknown or has an impossible value.
        """
        return self.from_fields(self.fields() | dotted(changes, type(self.vision), self.has_text))


def dotted(values: Mapping[str, Any], vision: type, has_text: bool) -> Fields:
    """Translates the names that users may give to fields into dotted names.

    Args:
      values: values by dotted ("text.heads"), joined ("text_heads") or short names
        (`CLIPConfig.SHORT`).
      vision: class of the image tower's config.
      has_text: whether there is a text tower.

    Raises:
      ValueError: if these towers have no field of a name.
    """
    known = [f.name for f in dataclasses.fields(CLIPConfig) if f.name not in ("vision", "text")]
    for tower, config in (("vision", vision), ("text", TextConfig if has_text else None)):
        if config is not None:
            known += [f"{tower}.{f.name}" for f in dataclasses.fields(config) if f.init]
    fields: Fields = {}
    unknown = []
    for name, value in values.items():
        joined = (name.replace("_", ".", 1),) if name.startswith(("vision_", "text_")) else (name,)
        if name == "vision_layers" and vision is ResNetConfig:
            joined = ("vision.blocks",)
        names = [n for n in CLIPConfig.SHORT.get(name, joined) if n in known]
        if not names:
            unknown.append(name)
        fields |= dict.fromkeys(names, value)
    if unknown:
        choices = ", ".join([*(n for n in CLIPConfig.SHORT if n not in known), *known])
        raise ValueError(f"unknown fields {sorted(unknown)}: choose from {choices}")
    return fields


def _tuples(value: Any) -> Any:
    """Turns JSON lists into tuples at every level: configs have to be hashable."""
    if isinstance(value, Mapping):
        return {key: _tuples(v) for key, v in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _from_one_level(values: Mapping[str, Any]) -> Fields:
    """Dotted fields from the flat form that earlier versions wrote.

    In that form one flag, `supervised`, stood for several properties at once: no text tower; a
    ViT with a patch bias but without `ln_pre` and projection; a ResNet with torchvision's stem,
    strides and mean pooling.
    """
    values = dict(values)
    supervised = values.pop("supervised", False)
    is_vit = values.get("vision_patch_size") is not None
    if is_vit:
        own = {"vision.kind": "vit", "vision.patch_bias": supervised}
        own |= {"vision.pre_norm": not supervised, "vision.projection": not supervised}
    else:
        own = {"vision.kind": "resnet", "vision.antialias": not supervised}
        own |= {"vision.stem": "imagenet" if supervised else "clip"}
        own |= {"vision.pooling": "mean" if supervised else "attention"}
        for name in ("vision_patch_size", "vision_mlp_width"):
            values.pop(name, None)
        if supervised:  # its ReLUs and BatchNorms have neither field
            for name in ("activation", "layer_norm_eps"):
                values.pop(name, None)
    if supervised:
        text = ("context_length", "vocab_size")
        values = {k: v for k, v in values.items() if k not in text and not k.startswith("text_")}
    return own | dotted(values, ViTConfig if is_vit else ResNetConfig, not supervised)

"""The configs of a vision transformer and of a text tower."""

import dataclasses

from vprompt_jax.clip.checks import check_choice, check_heads, check_positive
from vprompt_jax.clip.rotary import ORDERS, PAIRINGS, Places, Rotation

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_tanh", "silu")
# CLIP's own; SigLIP's, of texts in lower case without punctuation; SigLIP 2's, of texts in lower
# case; either one's as OpenCLIP uses it ("canonicalize").
TOKENIZERS = ("clip", "siglip", "gemma", "canonical")
_VIT_CHOICES: dict[str, tuple[str, ...]] = {
    "activation": ACTIVATIONS,
    "pooling": ("class", "mean", "attention", "query"),
    "final_norm": ("before", "after", "none"),
    "positions": ("all", "class", "patches", "none"),
    "qkv_bias": ("all", "no_key", "none"),
    "rope": ("none", *PAIRINGS),
    "rope_order": ORDERS,
}


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """A vision transformer (arXiv 2010.11929); the defaults are CLIP's.

    Its tokens are, in order, the class token, the registers, and the patches row by row.

    Attributes:
      width: channels of a token.
      layers: number of blocks.
      heads: attention heads per block; divides the width.
      patch_size: side of a patch in pixels.
      image_resolution: side R of the square input, in pixels. What is left of it behind the last
        whole patch is not seen (384 pixels are 27 patches of 14).
      mlp_width: hidden channels of the perceptrons; None for four times `width`.
      class_token: whether a learned token stands for the image as a whole.
      registers: number of further learned tokens that stand for no patch.
      pooling: where the features come from: the "class" token, the "mean" of the patches, or
        "attention" to the patches with a learned query (`pooling.ProbePooling`; `QueryPooling`, if
        "query": CoCa, arXiv 2205.01917).
      activation: one of `ACTIVATIONS`: "quick_gelu" (OpenAI's weights), "gelu" (exact; most of
        OpenCLIP's), "gelu_tanh" (the original ViT in JAX), "silu" (SwiGLU's, with `gated_mlp`).
      gated_mlp: whether the blocks' perceptrons have a gate, `layers.MLP` (arXiv 2002.05202).
      norm_eps: epsilon of every LayerNorm.
      patch_bias: whether the projection of the patches has a bias.
      pre_norm: whether a LayerNorm comes before the first block (`ln_pre`).
      post_norm: whether a block's LayerNorms act on what attention and perceptron give, not on what
        they take (EVA-02's ViT-E).
      final_norm: whether `ln_post` acts "before" the pooling, "after" it, or not at all ("none").
        With the class token, before and after are the same. With attention there is no "after".
      layer_scale: initial value of a learned factor per channel on each residual branch; None for
        no factor.
      projection: whether the features are projected to the joint space (`proj`).
      positions: which tokens have learned positions: "all", "class" (the class token and the
        patches), the "patches" alone, or "none".
      qkv_bias: which biases the projection to queries, keys and values has: "all", those of
        queries and values ("no_key"), or "none".
      rope: whether queries and keys of the patches are turned by their place, and if so which
        channels turn together: "none" or one of `rotary.PAIRINGS`.
      rope_base: sets the wavelengths (`rotary.angles`).
      rope_reference, rope_offset, rope_order: how places are counted (`rotary.Places`).
      inner_norms: whether there is a LayerNorm before the last layer of each attention and
        perceptron (EVA-02, arXiv 2303.11331).
      pool_heads, pool_mlp_width: of either pooling by attention; None: as in the blocks.
      pool_class: whether that attends to the class token, too.
      projection_bias: whether the projection has a bias.
    """

    width: int
    layers: int
    heads: int
    patch_size: int
    image_resolution: int
    mlp_width: int | None = None
    class_token: bool = True
    registers: int = 0
    pooling: str = "class"
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    patch_bias: bool = False
    pre_norm: bool = True
    final_norm: str = "before"
    layer_scale: float | None = None
    projection: bool = True
    gated_mlp: bool = False
    positions: str = "all"
    qkv_bias: str = "all"
    rope: str = "none"
    rope_base: float = 100.0
    rope_reference: int | None = None
    rope_offset: float = 0.0
    rope_order: str = "rows"
    inner_norms: bool = False
    pool_heads: int | None = None
    pool_mlp_width: int | None = None
    pool_class: bool = False
    projection_bias: bool = False
    post_norm: bool = False
    kind: str = dataclasses.field(default="vit", init=False)

    def __post_init__(self) -> None:
        check_positive("vision", self, "width", "layers", "heads", "patch_size", "image_resolution")
        check_heads("vision", self)
        for name, choices in _VIT_CHOICES.items():
            check_choice(f"vision.{name}", getattr(self, name), choices)
        if self.pooling == "attention" and self.final_norm == "after":
            raise ValueError("vision.final_norm 'after' is not for vision.pooling 'attention'")
        if self.pooling != "query" and self.width % (self.pool_heads or self.heads):
            raise ValueError(f"vision: {self.pool_heads} pool_heads do not divide {self.width}")
        if self.pool_class and not (self.class_token and self.pooling in ("attention", "query")):
            raise ValueError(
                "vision.pool_class needs a class token and vision.pooling 'attention' or 'query'"
            )
        if self.projection_bias and not self.projection:
            raise ValueError("vision.projection_bias needs vision.projection")
        for name in ("pooling", "positions"):
            if getattr(self, name) == "class" and not self.class_token:
                raise ValueError(f"vision.{name} 'class' needs a class token")
        if self.rope != "none" and (self.width // self.heads % 4 or self.rope_base <= 1):
            raise ValueError(
                f"vision.rope needs heads of a multiple of 4 channels and a rope_base over 1, got "
                f"{self.width // self.heads} and {self.rope_base}"
            )

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return int(self.class_token) + self.registers

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.image_resolution // self.patch_size

    @property
    def placed(self) -> int:
        """Tokens before the patches that have learned positions, too."""
        return {"all": self.prefix, "class": 1}.get(self.positions, 0)

    @property
    def rotation(self) -> Rotation | None:
        """What turns queries and keys by their place; None if nothing does."""
        if self.rope == "none":
            return None
        places = Places(self.rope_reference, self.rope_offset, self.rope_order)
        return Rotation(self.grid, self.rope_base, self.rope, places)

    @property
    def pooled(self) -> int | None:
        """Number of leading tokens that the pooling reads; None for all."""
        return 1 if self.pooling == "class" else None

    @property
    def depth(self) -> int:
        return self.layers

    @property
    def downscale(self) -> int:
        return self.patch_size

    @property
    def block_counts(self) -> dict[str, int]:
        """Number of blocks by the prefix of their names."""
        return {"resblocks": self.layers}

    def shortened(self) -> "ViTConfig":
        """The same tower with one block: all its blocks have the same form."""
        return dataclasses.replace(self, layers=1)


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """A text transformer (arXiv 2103.00020, section 2.4); the defaults are CLIP's.

    Attributes:
      width: channels of a token.
      layers: number of blocks.
      heads: attention heads per block; divides the width.
      context_length: tokens of the longest text, including the start and end tokens.
      vocab_size: number of token ids.
      mlp_width: hidden channels of the perceptrons; None for four times `width`.
      activation: one of `ACTIVATIONS`.
      norm_eps: epsilon of every LayerNorm.
      end_token: id of the token that ends a text; None for the largest id in the text, which is
        end-of-text in CLIP's vocabulary.
      causal: whether a token attends only to itself and to those before it.
      pooling: where the text's feature is read: at the first "end" token, at the "last" place,
        padding or not (SigLIP), or at a learned "class" token behind all places (`text.seen`).
      projection: whether the features are projected to the joint space.
      projection_bias: whether that projection has a bias.
      layer_scale: initial value of a learned factor per channel on each residual branch; None for
        no factor.
      tokenizer: how texts become ids: one of `TOKENIZERS`; None if that is not known. "clip" is
        part of this package; the others need the vocabulary's file (`vocabularies`).
      pad_token: id that fills the places behind a text.
    """

    width: int
    layers: int
    heads: int
    context_length: int
    vocab_size: int
    mlp_width: int | None = None
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    end_token: int | None = None
    causal: bool = True
    pooling: str = "end"
    projection_bias: bool = False
    tokenizer: str | None = "clip"
    pad_token: int = 0
    layer_scale: float | None = None
    projection: bool = True

    def __post_init__(self) -> None:
        check_positive("text", self, "width", "layers", "heads", "context_length", "vocab_size")
        check_heads("text", self)
        check_choice("text.activation", self.activation, ACTIVATIONS)
        check_choice("text.pooling", self.pooling, ("end", "last", "class"))
        if self.projection_bias and not self.projection:
            raise ValueError("text.projection_bias needs text.projection")
        if self.tokenizer is not None:
            check_choice("text.tokenizer", self.tokenizer, TOKENIZERS)
        if self.tokenizer not in (None, "clip") and self.end_token is None:
            raise ValueError(f"text.tokenizer {self.tokenizer!r} needs text.end_token")

    @property
    def block_counts(self) -> dict[str, int]:
        """Number of blocks by the prefix of their names."""
        return {"resblocks": self.layers}

    def shortened(self) -> "TextConfig":
        """The same tower with one block."""
        return dataclasses.replace(self, layers=1)

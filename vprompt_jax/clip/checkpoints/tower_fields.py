"""What names and shapes of tensors say of a tower, as fields of `CLIPConfig`."""

import re
from collections.abc import Sequence
from typing import Any

from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.config import HALF, IMAGENET_MEAN, IMAGENET_STD, Fields
from vprompt_jax.clip.variants import VISION_HEADS
from vprompt_jax.process.errors import UserError

_MOST_BLOCKS = 256  # public towers have at most 64


def shape_of(tensors: Tensors, name: str, rank: int) -> tuple[int, ...]:
    """A tensor's shape.

    Raises:
      UserError: if it is missing or of another rank.
    """
    if name not in tensors or len(tensors[name].shape) != rank:
        what = "is missing" if name not in tensors else f"has shape {tensors[name].shape}"
        some = ", ".join(sorted(tensors)[:4])
        raise UserError(
            f"not a checkpoint this package knows: {name} {what} (it holds {some}, ...)"
        )
    return tensors[name].shape


def count(tensors: Tensors, pattern: str) -> int:
    """One more than the highest number that the pattern's group takes in the names; 0 if none.

    Raises:
      UserError: if a number below it is missing (numbers may begin at 0 or 1), or it is more than
        `_MOST_BLOCKS`: a tower is built block by block, and a name costs nothing.
    """
    numbers = {m[1] for name in tensors if (m := re.match(pattern, name))}
    shown = pattern.replace(r"(\d+)", "N").replace("\\", "")
    if len(numbers) > _MOST_BLOCKS:
        raise UserError(f"it has {shown} with {len(numbers)} different N, over {_MOST_BLOCKS}")
    first = 0 if "0" in numbers else 1
    wanted = [str(i) for i in range(first, first + len(numbers))]
    if missing := [number for number in wanted if number not in numbers]:
        odd = sorted(numbers - set(wanted))[0]
        raise UserError(f"it has {shown} with N = {odd[:20]}, but none with N = {missing[0]}")
    return first + len(numbers) if numbers else 0


def grid(positions: int, name: str, prefix: int = 1) -> int:
    """Side of the square grid that positions, but for the first `prefix`, stand for.

    Raises:
      UserError: if they are no square.
    """
    side = round(max(positions - prefix, 0) ** 0.5)
    if side**2 != positions - prefix or side < 1:
        first = {0: "", 1: "one token and "}.get(prefix, f"{prefix} tokens and ")
        raise UserError(
            f"{name} has {positions} positions, which are not {first}a square grid: towers for "
            "images that are not square are not supported"
        )
    return side


def vit_tower(
    width: int, layers: int, patch: int, positions: int, name: str, mlp: int, prefix: int = 1
) -> Fields:
    """The fields of a ViT that shapes tell.

    Args:
      width: channels.
      layers: blocks.
      patch: side in pixels.
      positions: number of them, the class token's included; `name` is their tensor's.
      mlp: channels inside the perceptrons.
      prefix: positions that are no patch's: the class token's, registers'.

    Raises:
      UserError: if the positions are no square.
    """
    return {
        "vision.kind": "vit",
        "vision.image_resolution": grid(positions, name, prefix) * patch,
        "vision.layers": layers,
        "vision.width": width,
        "vision.patch_size": patch,
        "vision.mlp_width": None if mlp == 4 * width else mlp,
    }


def with_side(fields: Fields, side: int | None) -> Fields:
    """A ViT's fields for the side that its images have, where some pixels behind the last whole
    patch are not seen: So400m/14 takes 384, which are 27 patches and 6 pixels."""
    patch, seen = fields["vision.patch_size"], fields["vision.image_resolution"]
    if side is None or side // patch != seen // patch:
        return fields
    return fields | {"vision.image_resolution": side}


# The ViT of arXiv 2010.11929, where it differs from CLIP's.
PLAIN_VIT: Fields = {
    "vision.patch_bias": True,
    "vision.pre_norm": False,
    "vision.projection": False,
}


# SigLIP's towers (arXiv 2303.15343).
SIGLIP_VIT: Fields = PLAIN_VIT | {
    "vision.class_token": False,
    "vision.pooling": "attention",
    "vision.norm_eps": 1e-6,
    "mean": HALF,
    "std": HALF,
    "resize": "squash",
}


def check_features(of_texts: int, of_images: int) -> None:
    """Raises UserError if the features of texts and images have not as many channels."""
    if of_texts != of_images:
        raise UserError(
            f"its texts' features have {of_texts} channels and its images' {of_images}: these "
            "towers do not belong together"
        )


def siglip_text(
    width: int, layers: int, mlp: int, context_length: int, vocab_size: int, features: int, own: int
) -> Fields:
    """The fields of SigLIP's text tower that shapes tell.

    Args:
      width, layers, mlp, context_length, vocab_size: as shapes tell them.
      features: channels of the texts' features.
      own: channels of the images' features.

    Raises:
      UserError: if the features' channels differ.
    """
    check_features(features, own)
    return {
        "text.width": width,
        "text.layers": layers,
        "text.context_length": context_length,
        "text.vocab_size": vocab_size,
        "text.mlp_width": None if mlp == 4 * width else mlp,
        "text.norm_eps": 1e-6,
        "text.causal": False,
        "text.pooling": "last",
        "text.projection_bias": True,
        "logit_bias": True,
    }


def text_tower(width: int, layers: int, mlp: int, context_length: int, vocab_size: int) -> Fields:
    """The fields of a text tower that shapes tell, with heads of 64 channels if they can be."""
    heads = {"text.heads": width // 64} if width % 64 == 0 else {}
    return heads | {
        "text.width": width,
        "text.layers": layers,
        "text.context_length": context_length,
        "text.vocab_size": vocab_size,
        "text.mlp_width": None if mlp == 4 * width else mlp,
    }


def supervised_resnet(width: int, blocks: Sequence[int]) -> Fields:
    """The fields of a ResNet trained on ImageNet, with `width` channels after the stem."""
    return {
        "embed_dim": 4 * width * 2 ** (len(blocks) - 1),
        "vision.kind": "resnet",
        "vision.image_resolution": 224,  # any will do; these were trained at 224
        "vision.blocks": tuple(blocks),
        "vision.width": width,
        "vision.heads": 0,
        "vision.stem": "imagenet",
        "vision.antialias": False,
        "vision.pooling": "mean",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }


def vit_heads(width: int, layers: int, patch: int) -> Fields:
    """Attention heads of a public ViT, else 64 channels each (OpenAI's rule); {} if neither.

    Public ViTs of 1280 channels and more have wider heads, each its own.
    """
    known = width % 64 == 0 and width < 1280
    heads = VISION_HEADS.get((width, layers, patch), width // 64 if known else None)
    return {} if heads is None else {"vision.heads": heads}


def pixel_statistics(values: dict[str, Any], mean: str, std: str) -> Fields:
    """The fields `mean` and `std`, if a config has them."""
    if not values.get(mean) or not values.get(std):
        return {}
    both = {"mean": values[mean], "std": values[std]}
    return {k: tuple(v) if isinstance(v, list | tuple) else (v,) * 3 for k, v in both.items()}

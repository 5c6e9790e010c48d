"""Configs of towers: their names for users, their JSON, and what they refuse."""

import dataclasses
import json

import pytest

from tests.conftest import TINY
from vprompt_jax.clip.config import CLIPConfig, ResNetConfig, TextConfig, ViTConfig
from vprompt_jax.clip.variants import VARIANTS

# What earlier versions wrote beside a converted checkpoint and into result.json.
ONE_LEVEL = {
    "ViT-B/32": dict(
        embed_dim=512, image_resolution=224, vision_layers=12, vision_width=768, vision_heads=12,
        vision_patch_size=32, context_length=77, vocab_size=49408, text_width=512, text_heads=8,
        text_layers=12, activation="quick_gelu", vision_mlp_width=None, text_mlp_width=None,
        layer_norm_eps=1e-5, mean=[0.48145466, 0.4578275, 0.40821073],
        std=[0.26862954, 0.26130258, 0.27577711], supervised=False, pre_logits=0, classes=0,
    ),
    "OpenCLIP ViT-bigG-14": dict(
        embed_dim=1280, image_resolution=224, vision_layers=48, vision_width=1664, vision_heads=16,
        vision_patch_size=14, context_length=77, vocab_size=49408, text_width=1280, text_heads=20,
        text_layers=32, activation="gelu", vision_mlp_width=8192,
    ),
    "RN50": dict(
        embed_dim=1024, image_resolution=224, vision_layers=[3, 4, 6, 3], vision_width=64,
        vision_heads=32, vision_patch_size=None, context_length=77, vocab_size=49408,
        text_width=512, text_heads=8, text_layers=12, activation="quick_gelu",
    ),
    "supervised ViT-B/16": dict(
        embed_dim=768, image_resolution=224, vision_layers=12, vision_width=768, vision_heads=12,
        vision_patch_size=16, context_length=0, vocab_size=0, text_width=0, text_heads=0,
        text_layers=0, activation="gelu", layer_norm_eps=1e-6, mean=[0.5, 0.5, 0.5],
        std=[0.5, 0.5, 0.5], supervised=True, classes=1000,
    ),
    "supervised ResNet-50": dict(
        embed_dim=2048, image_resolution=224, vision_layers=[3, 4, 6, 3], vision_width=64,
        vision_heads=0, vision_patch_size=None, context_length=0, vocab_size=0, text_width=0,
        text_heads=0, text_layers=0, activation="quick_gelu", vision_mlp_width=None,
        text_mlp_width=None, layer_norm_eps=1e-5, mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225], supervised=True, pre_logits=0, classes=1000,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_LEVEL)
def test_the_json_of_earlier_versions_is_read(name):
    assert CLIPConfig.from_json(json.loads(json.dumps(ONE_LEVEL[name]))) == VARIANTS[name]


@pytest.mark.parametrize("name", VARIANTS)
def test_json_gives_the_same_config_back(name):
    config = VARIANTS[name]
    text = json.dumps(dataclasses.asdict(config))
    again = CLIPConfig.from_json(json.loads(text))
    assert again == config
    assert type(again.vision) is type(config.vision)


def test_towers_may_differ_in_activation_and_eps():
    config = TINY.with_fields({"text.activation": "gelu", "vision.norm_eps": 1e-6})
    assert (config.vision.activation, config.text.activation) == ("quick_gelu", "gelu")
    assert (config.vision.norm_eps, config.text.norm_eps) == (1e-6, 1e-5)
    assert CLIPConfig.from_json(dataclasses.asdict(config)) == config


def test_users_names_of_fields():
    short = TINY.with_fields({"vision_heads": 4, "activation": "gelu", "context_length": 9})
    long = TINY.with_fields(
        {
            "vision.heads": 4,
            "vision.activation": "gelu",
            "text.activation": "gelu",
            "text.context_length": 9,
        }
    )
    assert short == long
    assert (short.vision.heads, short.text.context_length) == (4, 9)
    resnet = VARIANTS["RN50"].with_fields({"vision_layers": (1, 1), "vision_heads": 2})
    assert resnet.vision.blocks == (1, 1)
    # A ResNet has no activation of this kind: the text tower's alone is meant.
    assert VARIANTS["RN50"].with_fields({"activation": "gelu"}).text.activation == "gelu"


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("ViT-B/32", {"heads": 3}, r"unknown fields \['heads'\]: choose from activation"),
        ("ViT-B/32", {"vision.stem": "clip"}, "unknown fields"),
        ("RN50", {"vision_patch_size": 8}, "unknown fields"),
        ("supervised ViT-B/16", {"text_heads": 3}, "unknown fields"),
        ("supervised ResNet-50", {"activation": "gelu"}, "unknown fields"),
        ("ViT-B/32", {"vision_heads": 7}, "7 heads do not divide 768 channels"),
        ("RN50", {"vision_heads": 7}, "7 heads do not divide 2048 channels"),
        ("ViT-B/32", {"text_width": 0}, "text.width must be a whole number over 0"),
        ("ViT-B/32", {"activation": "relu"}, "must be one of"),
        ("ViT-B/32", {"vision.pooling": "max"}, "must be one of"),
        ("ViT-B/32", {"vision.class_token": False}, "needs a class token"),
        ("ViT-B/32", {"vision.positions": "registers"}, "must be one of"),
        ("SigLIP ViT-B/16", {"vision.positions": "class"}, "positions 'class' needs a class token"),
        ("ViT-B/32", {"vision.qkv_bias": "key"}, "must be one of"),
        ("ViT-B/32", {"vision.rope": "axial"}, "must be one of"),
        ("ViT-B/32", {"vision.rope": "pairs", "vision.rope_base": 1}, "a rope_base over 1"),
        ("ViT-B/32", {"vision.rope": "halves", "vision.heads": 128}, "a multiple of 4 channels"),
        ("ViT-B/32", {"std": (1.0, 0.0, 1.0)}, "std > 0"),
        ("supervised ViT-B/16", {"embed_dim": 512}, "the tower's features have 768"),
    ],
)
def test_fields_that_cannot_be_are_refused(name, fields, message):
    with pytest.raises(ValueError, match=message):
        VARIANTS[name].with_fields(fields)


def test_what_a_tower_says_of_itself():
    vit = ViTConfig(8, 2, 1, patch_size=4, image_resolution=32, registers=3)
    assert (vit.prefix, vit.grid, vit.placed, vit.pooled) == (4, 8, 4, 1)
    bare = dataclasses.replace(vit, class_token=False, registers=0, pooling="mean")
    assert (bare.prefix, bare.placed, bare.pooled) == (0, 0, None)
    placed = {"all": 4, "class": 1, "patches": 0, "none": 0}
    assert {p: dataclasses.replace(vit, positions=p).placed for p in placed} == placed
    resnet = ResNetConfig(8, (1, 2), image_resolution=32, heads=2)
    assert (resnet.depth, resnet.downscale, resnet.grid, resnet.channels) == (3, 8, 4, 64)
    config = CLIPConfig(8, resnet, TextConfig(8, 1, 1, 8, 99))
    assert (config.depth, config.downscale, config.image_resolution) == (3, 8, 32)
    assert config.has_text
    assert not dataclasses.replace(config, text=None).has_text

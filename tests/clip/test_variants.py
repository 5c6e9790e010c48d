"""The table of variants against published sizes; shapes only, nothing is allocated."""

import functools

import numpy as np
import pytest

from vprompt_jax.clip.checkpoints.load import variable_shapes
from vprompt_jax.clip.config import CLIPConfig
from vprompt_jax.clip.variants import VARIANTS, VISION_HEADS, variant_name

pytestmark = pytest.mark.fast

# Parameters without the statistics of batch normalisation. OpenAI's totals are those of its
# checkpoints, SigLIP's and DINO's those of transformers' classes (tests/clip/test_siglip_live.py,
# test_dino_live.py; without the mask token), the ResNets' and supervised ViTs' those of torchvision
# and timm (1000 classes), those of the other CLIPs of OpenCLIP's models (test_open_clip_live.py;
# CoCa's without what writes captions).
PUBLISHED = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
    "OpenCLIP ViT-B-32": 151_277_313,
    "OpenCLIP ViT-B-16": 149_620_737,
    "OpenCLIP ViT-L-14": 427_616_513,
    "OpenCLIP ViT-L-14-CLIPA": 414_210_561,
    "OpenCLIP ViT-L-14-CLIPA-336": 414_538_241,
    "OpenCLIP ViT-H-14-CLIPA": 968_235_009,
    "OpenCLIP ViT-H-14-CLIPA-336": 968_644_609,
    "OpenCLIP ViT-bigG-14-CLIPA": 2_517_223_937,
    "OpenCLIP ViT-bigG-14-CLIPA-336": 2_517_756_417,
    "OpenCLIP EVA01-g-14": 1_136_435_841,
    "OpenCLIP EVA01-g-14-plus": 1_366_621_569,
    "OpenCLIP EVA02-B-16": 149_691_137,
    "OpenCLIP EVA02-L-14": 427_755_457,
    "OpenCLIP EVA02-L-14-336": 428_083_137,
    "OpenCLIP PE-Core-T-16-384": 69_546_113,
    "OpenCLIP PE-Core-S-16-384": 87_188_225,
    "OpenCLIP PE-Core-B-16": 447_660_545,
    "OpenCLIP PE-Core-L-14-336": 671_138_817,
    "OpenCLIP PE-Core-bigG-14-448": 2_419_267_841,
    "OpenCLIP coca_ViT-B-32": 152_462_081,
    "OpenCLIP coca_ViT-L-14": 430_180_097,
    "OpenCLIP EVA02-E-14": 4_704_589_569,
    "OpenCLIP EVA02-E-14-plus": 5_044_889_089,
    "SigLIP ViT-B/16": 203_155_970,
    "SigLIP ViT-B/16@256px": 203_202_050,
    "SigLIP ViT-B/16@384px": 203_447_810,
    "SigLIP ViT-B/16@512px": 203_791_874,
    "SigLIP ViT-L/16@256px": 652_150_786,
    "SigLIP ViT-L/16@384px": 652_478_466,
    "SigLIP So400m/14@384px": 877_960_498,
    "SigLIP 2 ViT-B/32@256px": 376_856_066,
    "SigLIP 2 ViT-B/16": 375_187_970,
    "SigLIP 2 ViT-B/16@256px": 375_234_050,
    "SigLIP 2 ViT-B/16@384px": 375_479_810,
    "SigLIP 2 ViT-B/16@512px": 375_823_874,
    "SigLIP 2 ViT-L/16@256px": 881_526_786,
    "SigLIP 2 ViT-L/16@384px": 881_854_466,
    "SigLIP 2 ViT-L/16@512px": 882_313_218,
    "SigLIP 2 So400m/14": 1_135_463_602,
    "SigLIP 2 So400m/14@384px": 1_136_008_498,
    "SigLIP 2 So400m/16@256px": 1_135_670_962,
    "SigLIP 2 So400m/16@384px": 1_136_039_602,
    "SigLIP 2 So400m/16@512px": 1_136_555_698,
    "SigLIP 2 giant-opt/16@256px": 1_871_393_906,
    "SigLIP 2 giant-opt/16@384px": 1_871_885_426,
    "DINOv2 ViT-S/14": 22_056_192,
    "DINOv2 ViT-B/14": 86_579_712,
    "DINOv2 ViT-L/14": 304_367_616,
    "DINOv2 ViT-g/14": 1_136_479_232,
    "DINOv2 ViT-S/14 with registers": 22_057_728,
    "DINOv2 ViT-B/14 with registers": 86_582_784,
    "DINOv2 ViT-L/14 with registers": 304_371_712,
    "DINOv2 ViT-g/14 with registers": 1_136_485_376,
    "DINOv3 ViT-S/16": 21_596_160,
    "DINOv3 ViT-S+/16": 28_692_480,
    "DINOv3 ViT-B/16": 85_659_648,
    "DINOv3 ViT-L/16": 303_128_576,
    "DINOv3 ViT-H+/16": 840_591_360,
    "DINOv3 ViT-7B/16": 6_716_030_976,
    "supervised ViT-B/16": 86_567_656,
    "supervised ViT-L/16": 304_326_632,
    "supervised ResNet-50": 25_557_032,
    "supervised ResNet-101": 44_549_160,
}
# Millions: of all, of the image tower, of the text tower (open_clip, docs/model_profile.csv).
PUBLISHED_MILLIONS = {
    "OpenCLIP ViT-H-14": (986.11, 632.08, 354.03),
    "OpenCLIP ViT-g-14": (1366.68, 1012.65, 354.03),
    "OpenCLIP ViT-bigG-14": (2539.57, 1844.91, 694.66),
}


shapes = functools.cache(variable_shapes)  # tracing a large model takes seconds


def parameters(config: CLIPConfig, under: str | None = None) -> int:
    return sum(
        int(np.prod(shape))
        for path, shape in shapes(config).items()
        if path[0] == "params" and under in (None, path[1])
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_number_of_parameters(name):
    assert parameters(VARIANTS[name]) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED_MILLIONS)
def test_number_of_parameters_of_the_large_ones(name):
    whole, image, text = PUBLISHED_MILLIONS[name]
    config = VARIANTS[name]
    assert round(parameters(config) / 1e6, 2) == whole
    assert round(parameters(config, "visual") / 1e6, 2) == image
    assert round(parameters(config, "text") / 1e6, 2) == text


def test_every_variant_has_its_number_checked():
    assert set(VARIANTS) == set(PUBLISHED) | set(PUBLISHED_MILLIONS)


def test_heads_that_are_not_64_channels_wide_are_in_the_table():
    of_open_clip = {(1280, 32, 14): 16, (1408, 40, 14): 16, (1664, 48, 14): 16}
    of_siglip = {(1152, 27, 14): 16, (1152, 27, 16): 16, (1536, 40, 16): 16}
    others = {(1536, 50, 14): 16, (4096, 40, 16): 32, (1792, 64, 14): 16}
    assert of_open_clip | of_siglip | others == VISION_HEADS


def test_variants_are_told_apart():
    assert all(variant_name(config) == name for name, config in VARIANTS.items())
    other = VARIANTS["RN50"].with_fields({"vision_width": 128})
    assert variant_name(other) is None

"""Live against transformers' DINOv2 and DINOv3 with random weights; needs the extra `parity`."""

import jax
import numpy as np
import pytest

import vprompt_jax as vp
from tests.clip.test_libraries import check, moved, to_torch
from tests.clip.test_variants import parameters
from vprompt_jax.clip.variants import VARIANTS
from vprompt_jax.process.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = dict(
    hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=8
)


def images(side):
    return np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)


def agree(folder, theirs, side=32, **options):
    clip, variables = vp.clip.load(folder, **options)
    assert clip.config.image_resolution == side
    x = images(side)
    with torch.no_grad():
        expected = theirs(pixel_values=to_torch(x)).pooler_output
    check(jax.jit(lambda v: clip.apply(v, x, method="encode_image"))(variables), expected)
    return clip.config.vision


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_attention_heads": 6, "mlp_ratio": 3, "layer_norm_eps": 1e-2},
        {"hidden_act": "gelu_new", "use_mask_token": False},
        {"use_swiglu_ffn": True, "hidden_act": "relu"},
        {"image_size": 37},
    ],
)
def test_dinov2(tmp_path, change):
    config = transformers.Dinov2Config(**SIZES | change)
    theirs = moved(transformers.Dinov2Model(config))
    theirs.save_pretrained(tmp_path)
    agree(tmp_path, theirs, change.get("image_size", 32))


@pytest.mark.parametrize("change", [{}, {"use_swiglu_ffn": True, "num_register_tokens": 5}])
def test_dinov2_with_registers(tmp_path, change):
    config = transformers.Dinov2WithRegistersConfig(**SIZES | change)
    theirs = moved(transformers.Dinov2WithRegistersModel(config))
    theirs.save_pretrained(tmp_path)
    agree(tmp_path, theirs)
    agree(tmp_path, theirs, 48, image_resolution=48)  # its positions are antialiased as ours are


def dinov3(**change):
    config = transformers.DINOv3ViTConfig(
        **SIZES | dict(intermediate_size=80, num_register_tokens=2) | change
    )
    theirs = transformers.DINOv3ViTModel(config)
    waves = theirs.rope_embeddings.inv_freq.clone()
    moved(theirs).rope_embeddings.inv_freq.copy_(waves)  # follow from the config
    return theirs


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_register_tokens": 4, "layer_norm_eps": 1e-2, "rope_theta": 20.0},
        {"num_register_tokens": 1, "use_gated_mlp": True, "hidden_act": "silu"},
        {"use_gated_mlp": True, "hidden_act": "gelu"},
        {"key_bias": True, "num_attention_heads": 4},
        {"query_bias": False, "value_bias": False},
        {"image_size": 36},
    ],
)
def test_dinov3(tmp_path, change):
    theirs = dinov3(**change)
    theirs.save_pretrained(tmp_path)
    vision = agree(tmp_path, theirs, change.get("image_size", 32))
    biases = [change.get(f"{word}_bias", word != "key") for word in ("query", "key", "value")]
    assert vision.qkv_bias == {3: "all", 2: "no_key", 0: "none"}[sum(biases)]
    agree(tmp_path, theirs, 56, image_resolution=56)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"query_bias": False}, "queries, keys and values, value have a bias"),
        ({"proj_bias": False}, "proj_bias=False, which is not supported"),
        ({"mlp_bias": False}, "mlp_bias=False, which is not supported"),
    ],
)
def test_another_dinov3_is_refused(tmp_path, change, message):
    dinov3(**change).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        vp.clip.load(tmp_path)


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters"])
def test_the_classifier_is_refused(tmp_path, kind):
    config = getattr(transformers, f"{kind}Config")(**SIZES, num_labels=5)
    getattr(transformers, f"{kind}ForImageClassification")(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="a classifier of the class token beside the patches' mean"):
        vp.clip.load(tmp_path)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("DINO")])
def test_number_of_parameters(name):
    c = VARIANTS[name].vision
    sizes = dict(
        hidden_size=c.width, num_hidden_layers=c.layers, num_attention_heads=c.heads,
        image_size=c.image_resolution, patch_size=c.patch_size, num_register_tokens=c.registers,
    )  # fmt: skip
    with torch.device("meta"):
        if name.startswith("DINOv3"):
            sizes |= dict(intermediate_size=c.mlp_width or 4 * c.width, use_gated_mlp=c.gated_mlp)
            theirs = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**sizes))
        elif c.registers:
            config = transformers.Dinov2WithRegistersConfig(**sizes, use_swiglu_ffn=c.gated_mlp)
            theirs = transformers.Dinov2WithRegistersModel(config)
        else:
            del sizes["num_register_tokens"]
            config = transformers.Dinov2Config(**sizes, use_swiglu_ffn=c.gated_mlp)
            theirs = transformers.Dinov2Model(config)
    count = sum(p.numel() for n, p in theirs.named_parameters() if not n.endswith("mask_token"))
    assert parameters(VARIANTS[name]) == count
    config = theirs.config
    assert config.layer_norm_eps == c.norm_eps
    assert getattr(config, "rope_theta", 100.0) == c.rope_base

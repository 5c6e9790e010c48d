"""Live against transformers' DINOv2 and DINOv3 and timm's DINOv3 with random weights.

Needs the extras `parity` and `parity-towers`; what is missing of them is skipped.
"""

import re

import jax
import numpy as np
import pytest

import vprompt_jax as vp
from tests.clip.test_dino import meta_dinov3
from tests.clip.test_libraries import check, moved, to_torch, write_timm
from tests.clip.test_variants import parameters
from vprompt_jax.clip.checkpoints import timm_keys
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
            sizes |= {f"{word}_bias": c.qkv_bias != "none" for word in ("query", "value")}
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


# timm


def timm_dinov3(name, **arguments):
    create = pytest.importorskip("timm").create_model
    theirs = create(name, **arguments)
    computed = {n: b for n, b in theirs.named_buffers() if n not in theirs.state_dict()}
    constants = {n: b.clone() for n, b in computed.items()}  # wavelengths, and keys' bias of 0
    moved(theirs)
    for buffer, value in constants.items():
        computed[buffer].copy_(value)
    return theirs


@pytest.mark.parametrize(
    "name, change",
    [
        ("vit_small_patch16_dinov3", {}),
        ("vit_small_patch16_dinov3", {"global_pool": "token", "num_classes": 5}),
        ("vit_base_patch16_dinov3_qkvb", {"rope_temperature": 20.0, "mlp_ratio": 1.5}),
        ("vit_small_plus_patch16_dinov3_qkvb", {"num_reg_tokens": 2, "mlp_ratio": 2.1}),
        ("vit_7b_patch16_dinov3", {"num_heads": None, "embed_dim": 128 * 4, "mlp_ratio": 2}),
    ],
)
def test_dinov3_of_timm(tmp_path, name, change):
    side = 40
    arguments = dict(img_size=side, patch_size=8, embed_dim=96, depth=2, num_heads=6, num_classes=0)
    arguments = {k: v for k, v in (arguments | change).items() if v is not None}
    theirs = timm_dinov3(name, **arguments)
    write_timm(theirs, name, arguments, tmp_path)
    clip, variables = vp.clip.load(tmp_path)
    assert clip.config.image_resolution == side
    x = images(side)
    with torch.no_grad():
        image = jax.jit(lambda v: clip.apply(v, x, method="encode_image"))(variables)
        check(image, theirs.forward_head(theirs.forward_features(to_torch(x)), pre_logits=True))
        if clip.config.classes:
            check(clip.apply(variables, x), theirs(to_torch(x)))
    larger = images(56)
    clip, variables = vp.clip.load(tmp_path, image_resolution=56)
    with torch.no_grad():
        out = theirs.forward_features(to_torch(larger))
        check(
            clip.apply(variables, larger, method="encode_image"),
            theirs.forward_head(out, pre_logits=True),
        )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rope_rotate_half": False}, "rope_rotate_half=False, which is not supported"),
        ({"use_abs_pos_emb": True}, "use_abs_pos_emb=True, which is not supported"),
        ({"scale_mlp": True, "swiglu_mlp": True}, "scale_mlp=True, which is not supported"),
        ({"use_fc_norm": True}, "use_fc_norm=True, which is not supported"),
        ({"global_pool": "max"}, "global_pool='max', which is not supported"),
    ],
)
def test_another_dinov3_of_timm_is_refused(tmp_path, change, message):
    name = "vit_small_patch16_dinov3"
    arguments = dict(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3) | change
    write_timm(timm_dinov3(name, **arguments), name, arguments, tmp_path)
    with pytest.raises(UserError, match=message):
        vp.clip.load(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"swiglu_mlp": True}, "swiglu_mlp True, the weights have False"),
        ({"qkv_bias": True}, "qkv_bias True, the weights have False"),
        ({"num_reg_tokens": 2}, "num_reg_tokens 2, the weights have 4"),
        ({"mlp_ratio": 2}, "mlp_ratio . embed_dim 96, the weights have 192"),
    ],
)
def test_a_config_of_another_dinov3_of_timm_is_refused(tmp_path, change, message):
    name = "vit_small_patch16_dinov3"
    arguments = dict(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
    write_timm(timm_dinov3(name, **arguments), name, arguments | change, tmp_path)
    with pytest.raises(UserError, match=message):
        vp.clip.load(tmp_path)


def test_what_timms_names_of_dinov3_tell():
    timm = pytest.importorskip("timm")
    used = set()
    for name in timm.list_models("*dinov3*"):
        found = [p for p in timm_keys.DINOV3S if re.fullmatch(p, name)]
        if "convnext" in name:
            assert not found
            continue
        [pattern] = found
        used.add(pattern)
        with torch.device("meta"):
            theirs = timm.create_model(name, depth=1)
        args = timm_keys.EVA_ARGS.values(timm_keys.DINOV3S[pattern])
        block = theirs.blocks[0]
        assert (args["num_heads"] or theirs.embed_dim // 64) == block.attn.num_heads, name
        assert args["qkv_bias"] == (block.attn.q_bias is not None), name
        assert (args["global_pool"], block.norm1.eps) == (theirs.global_pool, 1e-5), name
        gated = type(block.mlp).__name__ == "SwiGLU"
        assert args["swiglu_mlp"] == gated, name
        assert block.mlp.fc2.in_features % (args["swiglu_align_to"] or 1) == 0, name
        assert theirs.rope.temperature == args["rope_temperature"], name
        assert (theirs.rope.rotate_half, theirs.pos_embed) == (True, None), name
    assert used == set(timm_keys.DINOV3S)


def test_dinov3_in_metas_layout_is_what_timm_reads_in_it(tmp_path):
    """timm converts Meta's names as it loads them."""
    create = pytest.importorskip("timm").create_model
    from safetensors.numpy import save_file
    from timm.models.eva import checkpoint_filter_fn

    tensors = {n: t.astype(np.float32) for n, t in meta_dinov3().items()}
    save_file(tensors, tmp_path / "meta.safetensors")
    theirs = create(
        "vit_small_plus_patch16_dinov3_qkvb", img_size=28, patch_size=7, embed_dim=32, depth=2,
        num_heads=4, mlp_ratio=1.25, num_reg_tokens=2, num_classes=0, global_pool="token",
    ).eval()  # fmt: skip
    converted = {n: torch.from_numpy(t) for n, t in tensors.items()}
    theirs.load_state_dict(checkpoint_filter_fn(converted, theirs))
    clip, variables = vp.clip.load(
        tmp_path / "meta.safetensors", fields={"vision_heads": 4, "image_resolution": 28}
    )
    x = images(28)
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(to_torch(x)), True)
    check(clip.apply(variables, x, method="encode_image"), expected)

"""DINOv2 and DINOv3 in Hugging Face's layouts, against recorded outputs of the transformers library
(torch); both in Meta's layouts, which hold the same.

The recorded models have random weights of 16 bits, all of them moved, registers, gates, and no eps
or wavelength that is a default. Larger images are recorded beside those of the models' own size.
"""

import json
import re
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import vprompt_jax as vp
from tests.conftest import GOLDEN
from vprompt_jax.clip import class_texts
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast

NAMES = ("dinov2_tiny", "dinov3_tiny")
WEIGHTS = "model.safetensors"


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours, np.float32) - theirs).max() / np.abs(theirs).max()


def recorded(name):
    io = np.load(GOLDEN / f"{name}.io.npz")
    return {key: x.transpose(0, 2, 3, 1) if key.endswith("nchw") else x for key, x in io.items()}


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


def features(model, variables, images):
    return jax.jit(lambda v, x: model.apply(v, x, method="encode_image"))(variables, images)


def tensors_of(name):
    return {n: np.array(t) for n, t in load_file(GOLDEN / name / WEIGHTS).items()}


def changed(tmp_path, name, tensors=None, config=None):
    """A copy of a recorded model with other tensors, and with a changed config; {}: none."""
    folder = tmp_path / "changed"
    shutil.copytree(GOLDEN / name, folder)
    if tensors is not None:
        save_file(tensors, folder / WEIGHTS)
    path = folder / "config.json"
    if config == {}:
        path.unlink()
    elif config:
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def test_it_agrees_with_transformers(name):
    io = recorded(name)
    model, variables = vp.clip.load(GOLDEN / name)
    assert (
        relative_error(features(model, variables, io["images_nchw"]), io["image_features"]) < 1e-4
    )


def test_larger_images_agree_with_transformers(name):
    """Learned positions are interpolated, a rotation follows the grid."""
    io = recorded(name)
    model, variables = vp.clip.load(GOLDEN / name, image_resolution=42)
    assert model.config.vision.grid == 6
    ours = features(model, variables, io["larger_nchw"])
    assert relative_error(ours, io["larger_features"]) < 1e-4


def test_bfloat16_points_the_same_way(name):
    io = recorded(name)
    model, variables = vp.clip.load(GOLDEN / name, dtype="bfloat16")
    ours = np.asarray(features(model, variables, io["images_nchw"]), np.float32)
    theirs = io["image_features"]
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() > 0.999


def test_what_the_files_say_is_in_the_config():
    c = vp.clip.load(GOLDEN / "dinov2_tiny")[0].config
    vision = c.vision
    assert (vision.registers, vision.positions, vision.rope, vision.qkv_bias) == (
        3,
        "class",
        "none",
        "all",
    )
    assert (vision.gated_mlp, vision.activation, vision.mlp_width) == (True, "silu", 48)
    assert (c.image_resolution, vision.grid, c.resize, vision.norm_eps) == (30, 4, "shortest", 1e-3)
    c = vp.clip.load(GOLDEN / "dinov3_tiny")[0].config
    vision = c.vision
    assert (vision.registers, vision.positions, vision.rope, vision.qkv_bias) == (
        2,
        "none",
        "halves",
        "no_key",
    )
    assert (vision.gated_mlp, vision.activation, vision.mlp_width) == (True, "silu", 40)
    assert (vision.rope_base, c.image_resolution, c.resize) == (50.0, 28, "squash_bilinear")
    assert not c.has_text
    assert c.embed_dim == 32


def test_positions_meet(name):
    io = recorded(name)
    clip, variables = vp.clip.load(GOLDEN / name)
    whole = clip.apply(variables, io["images_nchw"], method="encode_image")
    for position in range(clip.config.depth + 1):
        x = clip.apply(variables, io["images_nchw"], stop=position, method="encode_image")
        x = clip.apply(variables, x, start=position, method="encode_image")
        np.testing.assert_array_equal(x, whole)


def test_texts_are_refused_in_one_line(name):
    clip, variables = vp.clip.load(GOLDEN / name)
    with pytest.raises(UserError, match="no text tower, so it cannot encode texts") as error:
        class_texts.encode_classes(clip, variables, [["a cat"]])
    assert "\n" not in str(error.value)


def test_without_a_config_the_heads_are_asked_for(tmp_path, name):
    """They have 64 channels in the published models, of which 32 are no multiple."""
    folder = changed(tmp_path, name, config={})
    with pytest.raises(UserError, match="say vision_heads: put the config"):
        vp.clip.load(folder)
    c = vp.clip.load(folder, fields={"vision_heads": 4})[0].config.vision
    assert c.norm_eps == {"dinov2_tiny": 1e-6, "dinov3_tiny": 1e-5}[name]
    assert c.image_resolution == {"dinov2_tiny": 28, "dinov3_tiny": 224}[name]


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("dinov2_tiny", {"model_type": "dinov2"}, "weights are of 'dinov2_with_registers'"),
        ("dinov2_tiny", {"num_register_tokens": 4}, "num_register_tokens 4, the weights have 3"),
        ("dinov2_tiny", {"use_swiglu_ffn": False}, "use_swiglu_ffn False, the weights have True"),
        ("dinov2_tiny", {"mlp_ratio": 4}, "intermediate_size 88, the weights have 48"),
        ("dinov2_tiny", {"qkv_bias": False}, "qkv_bias=False, which is not supported"),
        ("dinov2_tiny", {"image_size": 224}, "image_size 224, the weights have 28"),
        ("dinov2_tiny", {"image_size": [28, 35]}, "images that are not square"),
        ("dinov2_tiny", {"depths": [2]}, r"depths=\[2\], which is not known here"),
        ("dinov3_tiny", {"model_type": "dinov3_convnext"}, "the weights are of 'dinov3_vit'"),
        ("dinov3_tiny", {"key_bias": True}, "key_bias True, the weights have False"),
        ("dinov3_tiny", {"use_gated_mlp": False}, "use_gated_mlp False, the weights have True"),
        ("dinov3_tiny", {"hidden_size": 64}, "hidden_size 64, the weights have 32"),
        ("dinov3_tiny", {"hidden_act": "relu"}, "hidden_act 'relu' is not supported"),
        ("dinov3_tiny", {"mlp_bias": False}, "mlp_bias=False, which is not supported"),
        ("dinov3_tiny", {"num_attention_heads": 16}, "heads of a multiple of 4 channels"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, name, change, message):
    with pytest.raises(UserError, match=message) as error:
        vp.clip.load(changed(tmp_path, name, config=change))
    assert "\n" not in str(error.value)


def test_a_rotation_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="a rope_base over 1"):
        vp.clip.load(GOLDEN / "dinov3_tiny", fields={"vision_rope_base": 0.5})


@pytest.mark.parametrize(
    "name, left_out, message",
    [
        ("dinov2_tiny", "embeddings.position_embeddings", "position_embeddings is missing"),
        ("dinov2_tiny", "encoder.layer.1.mlp.weights_in.bias", r"- encoder\.layer\.1\.mlp\.gate"),
        ("dinov2_tiny", "encoder.layer.1.layer_scale2.lambda1", "layer_scale2.lambda1 is missing"),
        ("dinov3_tiny", "layer.1.mlp.gate_proj.weight", "gate_proj.weight is missing"),
        ("dinov3_tiny", "layer.1.attention.v_proj.bias", "v_proj.bias is missing"),
        ("dinov3_tiny", "layer.0.attention.v_proj.bias", "query have a bias, which is not suppo"),
    ],
)
def test_missing_tensors_are_named(tmp_path, name, left_out, message):
    tensors = {n: t for n, t in tensors_of(name).items() if n != left_out}
    with pytest.raises(UserError, match=message):
        vp.clip.load(changed(tmp_path, name, tensors))


@pytest.mark.parametrize(
    "name, extra, message",
    [
        ("dinov2_tiny", "classifier.weight", "DINOv2 with a classifier of the class token beside"),
        ("dinov2_tiny", "encoder.layer.0.norm3.weight", "norm3.weight is not part of the model"),
        ("dinov3_tiny", "layer.1.attention.k_proj.bias", "k_proj.bias, .* has shape"),
    ],
)
def test_other_tensors_are_named(tmp_path, name, extra, message):
    tensors = tensors_of(name) | {extra: np.zeros(32, np.float16)}
    with pytest.raises(UserError, match=message):
        vp.clip.load(changed(tmp_path, name, tensors))


def meta(name="dinov2_tiny"):
    """The recorded DINOv2 under the names of Meta's own file."""
    theirs, out = tensors_of(name), {}
    renames = {
        "embeddings.cls_token": "cls_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.register_tokens": "register_tokens",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "encoder.layer.": "blocks.",
        "layernorm": "norm",
        "attention.output.dense": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "mlp.weights_in": "mlp.w12",
        "mlp.weights_out": "mlp.w3",
    }
    for name, tensor in theirs.items():
        if "attention.attention" not in name:
            for old, new in renames.items():
                name = name.replace(old, new)
            out[name] = tensor
        elif "query" in name:
            three = [theirs[name.replace("query", word)] for word in ("query", "key", "value")]
            name = name.replace("encoder.layer", "blocks").replace(
                "attention.attention.query", "attn.qkv"
            )
            out[name] = np.concatenate(three)
    return out


def test_metas_layout_holds_the_same(tmp_path):
    save_file(meta(), tmp_path / "dinov2_vits14_reg4_pretrain.safetensors")
    fields = {"vision_heads": 4, "layer_norm_eps": 1e-3, "image_resolution": 30}
    clip, variables = vp.clip.load(
        tmp_path / "dinov2_vits14_reg4_pretrain.safetensors", fields=fields
    )
    expected = vp.clip.load(GOLDEN / "dinov2_tiny")
    assert clip.config == expected[0].config
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])


def meta_dinov3(key_bias=0.0):
    """The recorded DINOv3 under the names of Meta's own file, and what else that holds."""
    theirs, out = tensors_of("dinov3_tiny"), {}
    renames = {
        "embeddings.cls_token": "cls_token",
        "embeddings.register_tokens": "storage_tokens",
        "embeddings.patch_embeddings": "patch_embed.proj",
        "layer.": "blocks.",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "mlp.gate_proj": "mlp.w1",
        "mlp.up_proj": "mlp.w2",
        "mlp.down_proj": "mlp.w3",
    }
    for name, tensor in theirs.items():
        if not re.search(r"\.[qkv]_proj|mask_token|inv_freq", name):
            for old, new in renames.items():
                name = name.replace(old, new)
            out[name] = tensor
    for i in range(2):
        [q, k, v] = [theirs[f"layer.{i}.attention.{w}_proj.weight"] for w in "qkv"]
        out[f"blocks.{i}.attn.qkv.weight"] = np.concatenate([q, k, v])
        [q, v] = [theirs[f"layer.{i}.attention.{w}_proj.bias"] for w in "qv"]
        # A masked number may be any.
        out[f"blocks.{i}.attn.qkv.bias"] = np.concatenate([q, np.full_like(q, 7), v])
        mask = np.ones(3 * q.size, np.float16)
        mask[q.size : 2 * q.size] = key_bias
        out[f"blocks.{i}.attn.qkv.bias_mask"] = mask
    periods = (100 ** np.arange(0, 1, 0.5)).astype(ml_dtypes.bfloat16)
    out |= {"mask_token": np.zeros((1, 32), np.float16), "rope_embed.periods": periods}
    return out | {"local_cls_norm.weight": np.ones(32, np.float16)}


# What Meta's layout does not say of the recorded DINOv3.
UNSAID = {"vision_heads": 4, "layer_norm_eps": 1e-3, "image_resolution": 28}
UNSAID["vision_rope_base"] = 50.0


def test_metas_layout_of_dinov3_holds_the_same(tmp_path):
    save_file(meta_dinov3(), tmp_path / "dinov3_vits16plus_pretrain_lvd1689m.pth.safetensors")
    clip, variables = vp.clip.load(
        tmp_path / "dinov3_vits16plus_pretrain_lvd1689m.pth.safetensors", fields=UNSAID
    )
    expected = vp.clip.load(GOLDEN / "dinov3_tiny")
    assert clip.config == expected[0].config
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])


def test_metas_dinov3_of_satellites_has_their_pixels(tmp_path):
    save_file(meta_dinov3(), tmp_path / "dinov3_vitl16_pretrain_sat493m.safetensors")
    clip, _ = vp.clip.load(tmp_path / "dinov3_vitl16_pretrain_sat493m.safetensors", fields=UNSAID)
    assert (clip.config.mean[0], clip.config.std[0]) == (0.43, 0.213)


@pytest.mark.parametrize("name, kind", [("bias_mask", "all"), ("bias", "none")])
def test_metas_dinov3_with_other_biases(tmp_path, name, kind):
    """Without a mask all have one; and the largest of them has none at all."""
    tensors = {n: t for n, t in meta_dinov3().items() if f".qkv.{name}" not in n}
    save_file(tensors, tmp_path / "w.safetensors")
    clip, variables = vp.clip.load(tmp_path / "w.safetensors", fields=UNSAID)
    assert clip.config.vision.qkv_bias == kind
    layer = variables["params"]["visual"]["resblocks_1"]["attn"]["in_proj"]
    assert ("bias" in layer) == (kind == "all")
    if kind == "all":
        np.testing.assert_array_equal(layer["bias"], tensors["blocks.1.attn.qkv.bias"])


@pytest.mark.parametrize(
    "change, message",
    [
        (meta_dinov3(key_bias=1.0), "a qkv.bias_mask leaves keys a bias"),
        (meta_dinov3(key_bias=np.nan), "a qkv.bias_mask leaves keys a bias"),
        ({"rope_embed.periods": np.float32([1, 5])}, "other wavelengths than those of the base"),
        ({"blocks.1.attn.qkv.bias": np.zeros((), np.float32)}, "blocks.1.attn.qkv.bias has shape"),
        ({"cls_norm.weight": np.float32([1, 5])}, "cls_norm.weight is not part of the model"),
    ],
)
def test_another_dinov3_of_metas_is_refused(tmp_path, change, message):
    save_file(meta_dinov3() | change, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=message):
        vp.clip.load(tmp_path / "w.safetensors", fields=UNSAID)


def test_the_packages_own_format_keeps_it(tmp_path, name):
    from vprompt_jax.clip import __main__ as main_lib

    out = tmp_path / "w.safetensors"
    args = ["convert", str(GOLDEN / name), str(out), "--dtype", "float32"]
    main_lib.convert(main_lib.parser().parse_args(args))
    clip, variables = vp.clip.load(out)
    expected = vp.clip.load(GOLDEN / name)
    assert clip.config == expected[0].config
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])

"""A config beside the weights is believed as a whole: honoured, or refused by name."""

import json
import pickle
import shutil
import zipfile

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

import vprompt_jax as vp
from tests.adapters.conftest import RESNET
from tests.clip.test_load import open_clip_config
from tests.clip.test_supervised import (
    HALF,
    HEADS,
    IMAGES,
    npz_arrays,
    outputs,
    reference,
    timm_tensors,
)
from tests.conftest import GOLDEN, TINY, random_tensors
from vprompt_jax.clip import class_texts, preprocess_batch
from vprompt_jax.clip.checkpoints import formats, recognise
from vprompt_jax.clip.checkpoints.tower_fields import vit_heads
from vprompt_jax.clip.preprocess import normalize, resize_and_crop
from vprompt_jax.process.errors import UserError


def write(folder, tensors, name="model.safetensors", **configs):
    """A folder of weights with configs beside them, by the start of their names."""
    formats.write_safetensors(folder / name, tensors, {})
    for config, values in configs.items():
        (folder / f"{config}.json").write_text(json.dumps(values))
    return folder


def changed(folder, source, **changes):
    """A copy of a golden folder whose config.json has changes, by part ("" for the top)."""
    shutil.copytree(GOLDEN / source, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    for part, values in changes.items():
        (config[part] if part != "top" else config).update(values)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# timm


def timm_config(**arguments):
    return {
        "architecture": "vit_base_patch16_224",
        "model_args": {"num_heads": HEADS, "act_layer": "gelu_tanh"} | arguments,
        "pretrained_cfg": {"mean": HALF, "std": HALF, "input_size": [3, 32, 32]},
    }


def test_timms_arguments_count(tmp_path):
    """Heads and activation that neither the name nor the shapes tell."""
    arrays = npz_arrays(False)
    write(tmp_path, timm_tensors(arrays), config=timm_config())
    model, variables = vp.clip.load(tmp_path)
    for ours, theirs in zip(outputs(model, variables), reference(arrays, IMAGES), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_timms_way_to_a_square_counts(tmp_path):
    for crop_mode, resize in (("center", "shortest"), ("squash", "squash")):
        config = timm_config()
        config["pretrained_cfg"]["crop_mode"] = crop_mode
        write(tmp_path, timm_tensors(npz_arrays(False)), config=config)
        assert vp.clip.load(tmp_path)[0].config.resize == resize


def test_timms_pooling_counts(tmp_path):
    tensors = timm_tensors(npz_arrays(False))
    write(tmp_path, tensors, config=timm_config(global_pool="avg", fc_norm=False))
    vision = vp.clip.load(tmp_path)[0].config.vision
    assert (vision.pooling, vision.final_norm) == ("mean", "before")
    after = {name.replace("norm.", "fc_norm.", 1) if name.startswith("norm.") else name: tensor
             for name, tensor in tensors.items()}  # fmt: skip
    write(tmp_path, after, config=timm_config(global_pool="avg"))
    vision = vp.clip.load(tmp_path)[0].config.vision
    assert (vision.pooling, vision.final_norm) == ("mean", "after")
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="fc_norm"):
        vp.clip.load(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_args": {"num_heads": 3, "act_layer": "relu"}}, "act_layer='relu'"),
        ({"model_args": {"global_pool": "max"}}, "global_pool='max'"),
        ({"model_args": {"global_pool": "avg"}}, "hold norm: it belongs to another"),
        ({"global_pool": "avg"}, "global_pool='avg'"),
        ({"model_args": {"reg_tokens": 4}}, "reg_tokens 4, the weights have 0"),
        ({"model_args": {"class_token": False}}, "class_token False, the weights have True"),
        ({"model_args": {"no_embed_class": True}}, "17 positions, which are not a square grid"),
        ({"model_args": {"qkv_bias": False}}, "qkv_bias False, the weights have True"),
        ({"model_args": {"qk_norm": True}}, "qk_norm=True"),
        ({"model_args": {"rope": True}}, "rope=True, which is not known here"),
        ({"model_args": {"embed_dim": 48}}, "embed_dim 48, the weights have 24"),
        ({"model_args": {"img_size": [16, 64]}}, r"img_size=\[16, 64\].*not square"),
        ({"pretrained_cfg": {"input_size": [3, 16, 64]}}, "input_size.*not square"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode='border'"),
        ({"new_key": 1}, "new_key=1, which is not known here"),
        ({"architecture": "deit3_small_patch16_224"}, "17 positions, which are not a square grid"),
        ({"architecture": "vit_giant_patch14_dinov2"}, "mlp_layer SwiGLUPacked, the weights have"),
        (
            {"architecture": "vit_dlittle_patch16_reg1_gap_256"},
            "'vit_dlittle_patch16_reg1_gap_256'",
        ),
        ({"architecture": None}, "architecture None, which is not supported"),
    ],
)
def test_what_timms_config_must_not_say(tmp_path, change, message):
    write(tmp_path, timm_tensors(npz_arrays(False)), config=timm_config() | change)
    with pytest.raises(UserError, match=message):
        vp.clip.load(tmp_path)


def test_other_vits_of_timm_are_named(tmp_path):
    tensors = timm_tensors(npz_arrays(False))
    distilled = tensors | {"dist_token": tensors["cls_token"]}
    with pytest.raises(UserError, match="distillation token"):
        vp.clip.load(write(tmp_path, distilled))
    del tensors["cls_token"]
    tensors["pos_embed"] = np.ascontiguousarray(tensors["pos_embed"][:, 1:])
    with pytest.raises(UserError, match=r"no class token, so .*: put the config\.json"):
        vp.clip.load(write(tmp_path, tensors))
    with pytest.raises(UserError, match="class_token True, the weights have False"):
        vp.clip.load(write(tmp_path, tensors, config=timm_config(no_embed_class=True)))


def test_which_tokens_of_timm_have_positions(tmp_path):
    """The number of positions tells; the class token's are the first."""
    open_fields = {"vision_heads": HEADS, "mean": HALF, "std": HALF}
    tensors = timm_tensors(npz_arrays(False))
    vision = vp.clip.load(write(tmp_path, tensors), fields=open_fields)[0].config.vision
    assert (vision.positions, vision.registers) == ("all", 0)
    own = tensors["pos_embed"]
    tensors["pos_embed"] = np.ascontiguousarray(own[:, 1:])
    clip, variables = vp.clip.load(write(tmp_path, tensors), fields=open_fields)
    assert clip.config.vision.positions == "patches"
    table = variables["params"]["visual"]["positional_embedding"]
    np.testing.assert_array_equal(table, own[0, 1:])
    tensors["reg_token"] = np.ascontiguousarray(own[:, :3])
    vision = vp.clip.load(write(tmp_path, tensors), fields=open_fields)[0].config.vision
    assert (vision.positions, vision.registers, vision.prefix) == ("patches", 3, 4)
    tensors["pos_embed"] = np.concatenate([own[:, :3], own], axis=1)
    vision = vp.clip.load(write(tmp_path, tensors), fields=open_fields)[0].config.vision
    assert (vision.positions, vision.registers, vision.grid) == ("all", 3, 4)


RESNET50 = {
    "conv1.weight": np.zeros((8, 3, 7, 7), np.float32),
    "layer1.0.conv1.weight": np.zeros((8, 8, 1, 1), np.float32),
    "layer1.0.conv3.weight": np.zeros((32, 8, 1, 1), np.float32),
}


@pytest.mark.parametrize(
    "arguments",
    [
        {"output_stride": 16},
        {"act_layer": "silu"},
        {"aa_layer": "avg"},
        {"global_pool": "max"},
        {"stem_type": "deep"},
    ],
)
def test_what_timms_resnets_must_not_say(tmp_path, arguments):
    config = {"architecture": "resnet50", "model_args": arguments}
    with pytest.raises(UserError, match=next(iter(arguments))):
        vp.clip.load(write(tmp_path, RESNET50, config=config))


@pytest.mark.parametrize("name", ["resnetaa50", "resnetblur50", "seresnet50", "resnet50d"])
def test_a_name_that_tells_another_resnet_is_refused(tmp_path, name):
    write(tmp_path, RESNET50, f"{name}_a1-abc.safetensors")
    with pytest.raises(UserError, match="names a ResNet of another kind"):
        vp.clip.load(tmp_path / f"{name}_a1-abc.safetensors")


def test_blocks_of_two_convolutions_are_named(tmp_path):
    tensors = {name: t for name, t in RESNET50.items() if "conv3" not in name}
    with pytest.raises(UserError, match="two convolutions"):
        vp.clip.load(write(tmp_path, tensors))


# transformers


@pytest.mark.parametrize(
    "key, value",
    [
        ("downsample_in_first_stage", True),
        ("downsample_in_bottleneck", True),
        ("hidden_act", "gelu"),
        ("layer_type", "basic"),
        ("depths", [2]),
    ],
)
def test_what_a_resnets_config_must_not_say(tmp_path, key, value):
    tensors = {
        "embedder.embedder.convolution.weight": np.zeros((8, 3, 7, 7), np.float32),
        "encoder.stages.0.layers.0.layer.0.convolution.weight": np.zeros((8, 8, 1, 1), np.float32),
    }
    with pytest.raises(UserError, match=key):
        vp.clip.load(write(tmp_path, tensors, config={"model_type": "resnet", key: value}))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_size": [16, 64]}, r"image_size=\[16, 64\].*not square"),
        ({"image_size": 64}, "image_size 64, the weights have 32"),
        ({"qkv_bias": False}, "qkv_bias=False"),
        ({"num_attention_heads": 5}, "5 heads do not divide 48"),
        ({"use_swiglu": True}, "use_swiglu=True, which is not known here"),
        ({"is_decoder": True}, "is_decoder"),
    ],
)
def test_what_a_vits_config_must_not_say(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        vp.clip.load(changed(tmp_path, "hf_vit_tiny", top=change))


def test_the_end_of_text_token_is_the_configs(tmp_path):
    plain = vp.clip.load(GOLDEN / "hf_clip_tiny")
    model, variables = vp.clip.load(
        changed(tmp_path, "hf_clip_tiny", text_config={"eos_token_id": 50})
    )
    tokens = np.random.default_rng(0).integers(1, 49, (3, 12)).astype(np.int32)
    tokens[:, 5], tokens[:, 8], tokens[:, 10] = 50, 63, 50
    got = model.apply(variables, tokens, method="encode_text")
    # A causal tower sees nothing behind the token, which is the largest before it.
    expected = plain[0].apply(plain[1], tokens[:, :6], method="encode_text")
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    changed(tmp_path, "hf_clip_tiny", text_config={"eos_token_id": 2})
    assert vp.clip.load(tmp_path)[0].config.text.end_token is None
    with pytest.raises(UserError, match="eos_token_id="):
        vp.clip.load(changed(tmp_path, "hf_clip_tiny", text_config={"eos_token_id": [1, 2]}))


def test_towers_of_their_own_activation_and_eps(tmp_path):
    text = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-3}
    c = vp.clip.load(changed(tmp_path, "hf_clip_tiny", text_config=text))[0].config
    assert (c.vision.activation, c.text.activation) == ("gelu", "quick_gelu")
    assert (c.vision.norm_eps, c.text.norm_eps) == (1e-5, 1e-3)


def test_a_second_copy_of_a_towers_config_takes_its_place(tmp_path):
    sizes = {"hidden_size": 48, "intermediate_size": 100, "num_attention_heads": 2}
    c = vp.clip.load(changed(tmp_path, "hf_clip_tiny", top={"vision_config_dict": sizes}))[0].config
    assert (c.vision.heads, c.vision.activation) == (2, "quick_gelu")  # the library's default


PROCESSOR = {"image_mean": [0.5, 0.25, 0.5], "image_std": [0.25] * 3}


def test_the_processors_config_is_read(tmp_path):
    folder = changed(tmp_path, "hf_clip_tiny")
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR}))
    c = vp.clip.load(folder)[0].config
    assert (c.mean, c.std, c.resize) == ((0.5, 0.25, 0.5), (0.25, 0.25, 0.25), "shortest")
    bad = {"image_processor": PROCESSOR | {"do_rescale": False}}
    (folder / "processor_config.json").write_text(json.dumps(bad))
    with pytest.raises(UserError, match=r": processor_config\.json asks for do_rescale=False"):
        vp.clip.load(folder)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR}))
    # As transformers does, the older file counts where the newer says nothing.
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3}))
    assert vp.clip.load(folder)[0].config.mean == (0.5, 0.25, 0.5)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    assert vp.clip.load(folder)[0].config.std == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"resample": 2}, "resample=2"),
        ({"do_normalize": False}, "do_normalize=False"),
        ({"rescale_factor": 1.0}, "rescale_factor=1.0"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order=True, which is not known"),
        ({"do_center_crop": False, "size": {"shortest_edge": 32}}, "do_center_crop=False"),
        ({"size": {"shortest_edge": 64}, "crop_size": 32}, "size=64 and crops crop_size=32"),
        ({"crop_size": {"height": 32, "width": 16}}, "crop_size.*not square"),
    ],
)
def test_what_a_clips_processor_must_not_say(tmp_path, change, message):
    folder = changed(tmp_path, "hf_clip_tiny")
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | change))
    with pytest.raises(UserError, match=message):
        vp.clip.load(folder)


def test_a_processor_that_squashes(tmp_path):
    folder = changed(tmp_path, "hf_clip_tiny")
    size = {"do_center_crop": False, "size": {"height": 32, "width": 32}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | size))
    assert vp.clip.load(folder)[0].config.resize == "squash"


# OpenCLIP


def open_clip_folder(folder, config, tower=TINY):
    return write(
        folder, random_tensors(tower), "open_clip_model.safetensors", open_clip_config=config
    )


def test_head_width_of_an_open_clip_resnet(tmp_path):
    config = open_clip_config(vision_cfg={"layers": [1, 2], "width": 8, "head_width": 32})
    del config["model_cfg"]["vision_cfg"]["patch_size"]
    open_clip_folder(tmp_path, config, RESNET)
    assert vp.clip.load(tmp_path)[0].config.vision.heads == 8


@pytest.mark.parametrize(
    "part, change, message",
    [
        ("vision_cfg", {"image_size": [32, 16]}, "image_size.*not square"),
        ("vision_cfg", {"image_size": 64}, "image_resolution 64, the weights have 32"),
        ("vision_cfg", {"no_ln_pre": True}, "no_ln_pre True, the weights have False"),
        ("vision_cfg", {"qk_norm": True}, "qk_norm=True"),
        ("vision_cfg", {"rope": True}, "rope=True, which is not known here"),
        ("text_cfg", {"tokenizer_mode": "clips"}, "tokenizer_mode='clips'"),
        ("text_cfg", {"context_length": 20}, "text.context_length 20"),
    ],
)
def test_what_an_open_clip_config_must_not_say(tmp_path, part, change, message):
    open_clip_folder(tmp_path, open_clip_config(**{part: change}))
    with pytest.raises(UserError, match=message):
        vp.clip.load(tmp_path)


def test_preprocessing_of_open_clip(tmp_path):
    config = open_clip_config()
    config["preprocess_cfg"] |= {"resize_mode": "squash", "interpolation": "bicubic"}
    assert vp.clip.load(open_clip_folder(tmp_path, config))[0].config.resize == "squash"
    config["preprocess_cfg"]["interpolation"] = "bilinear"  # as CLIPA and PE-Core are published
    assert vp.clip.load(open_clip_folder(tmp_path, config))[0].config.resize == "squash_bilinear"
    for key, value, message in (
        ("resize_mode", "longest", "resize_mode='longest'"),
        ("resize_mode", "shortest", "interpolation='bilinear' with resize_mode='shortest'"),
        ("interpolation", "nearest", "interpolation='nearest' with resize_mode='squash'"),
    ):
        config["preprocess_cfg"] |= {"resize_mode": "squash", key: value}
        open_clip_folder(tmp_path, config)
        with pytest.raises(UserError, match=message):
            vp.clip.load(tmp_path)


def test_squashed_pixels_are_pillows():
    # Smooth, since versions of Pillow differ in which axis comes first, and so in what is clipped.
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8))
    picture = np.asarray(noise.resize((33, 57), Image.Resampling.BILINEAR))
    expected = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize_and_crop(picture, 32, mode="squash"), expected)
    compiled = preprocess_batch(picture[None], 32, mode="squash")[0]
    levels = np.abs(np.asarray(compiled) - np.asarray(normalize(expected))).max(axis=(0, 1))
    assert (levels < 1.01 / 255 / np.array([0.26, 0.26, 0.27])).all()
    assert (resize_and_crop(picture, 32) != expected).any()
    with pytest.raises(ValueError, match="mode must be"):
        resize_and_crop(picture, 32, mode="longest")


@pytest.mark.parametrize(
    "prefix, name",
    [
        ("module.", "epoch_3.safetensors"),
        ("state_dict.module._orig_mod.", "epoch_3.safetensors"),
        ("", "open_clip_pytorch_model.safetensors"),
    ],
)
def test_what_openai_never_published_must_say_its_activation_and_heads(tmp_path, prefix, name):
    tensors = {prefix + key: tensor for key, tensor in random_tensors(TINY).items()}
    formats.write_safetensors(tmp_path / name, tensors, {})
    with pytest.raises(UserError, match=r"say vision_heads, text_heads, activation.*quick_gelu"):
        vp.clip.load(tmp_path / name)
    fields = {"vision_heads": 4, "text_heads": 2}
    c = vp.clip.load(tmp_path / name, activation="gelu", fields=fields)[0].config
    assert (c.vision.heads, c.text.heads, c.vision.activation) == (4, 2, "gelu")


def test_a_repository_of_both_libraries_prefers_what_has_texts(tmp_path):
    write(tmp_path, timm_tensors(npz_arrays(False)), config=timm_config())
    assert not vp.clip.load(tmp_path)[0].config.has_text
    open_clip_folder(tmp_path, open_clip_config())
    assert vp.clip.load(tmp_path)[0].config.has_text


# All of them


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_that_are_not_finite_are_named(tmp_path, dtype):
    path = tmp_path / "openai.safetensors"
    for value in (np.nan, np.inf, -np.inf, -np.nan):
        tensors = {name: t.astype(dtype) for name, t in random_tensors(TINY).items()}
        tensors["visual.proj"][3, 2] = np.finfo(np.float16).max
        formats.write_safetensors(path, tensors, {})
        vp.clip.load(path)
        tensors["visual.proj"][3, 2] = value
        formats.write_safetensors(path, tensors, {})
        with pytest.raises(UserError, match=r"visual\.proj holds 1 of 1024 values that are NaN"):
            vp.clip.load(path)


@pytest.mark.parametrize("width", [1280, 1408, 1792])
def test_heads_of_wide_towers_are_not_guessed(width):
    assert vit_heads(width, 32, 16) == {}
    assert vit_heads(1280, 32, 14) == {"vision.heads": 16}
    assert vit_heads(768, 12, 16) == {"vision.heads": 12}


def test_another_vocabulary_cannot_embed_class_names(tmp_path):
    model, variables = vp.clip.load(GOLDEN / "hf_clip_tiny")
    with pytest.raises(UserError, match="knows 64 tokens, CLIP's tokenizer has 49408"):
        class_texts.encode_classes(model, variables, [["a"]])


def test_a_long_text_names_no_option_of_python(tiny):
    with pytest.raises(UserError, match="too long for this checkpoint") as error:
        class_texts.encode_classes(*tiny, [["word " * 40]])
    assert "truncate" not in str(error.value)
    with pytest.raises(ValueError, match="pass truncate=True"):
        vp.clip.tokenize("word " * 40, 16)


@pytest.mark.parametrize(
    "names, tower",
    [
        (["text_model.a", "text_projection.weight"], "CLIPTextModelWithProjection"),
        (["visual.trunk.stem.0.weight"], "image tower is one of timm's"),
        (["stem.0.weight", "stages.0.blocks.0.conv_dw.weight"], r"ConvNeXt \(timm\)"),
        (["blocks.0.attn.q_bias", "patch_embed.proj.weight", "cls_token"], "EVA"),
        (["visual.blocks.0.attn.q_bias"], "EVA-CLIP"),
        (["image_encoder.model.a"], "MobileCLIP"),
        (["text_decoder.a", "visual_encoder.b"], "BLIP"),
    ],
)
def test_other_towers_are_named(tmp_path, names, tower):
    assert recognise.tower_of(names)
    tensors = dict.fromkeys(names, np.zeros(2, np.float32))
    with pytest.raises(UserError, match=rf"holds .*{tower}.*which is not supported \(supported"):
        vp.clip.load(write(tmp_path, tensors))


class Namespace:
    pass


def test_a_pickle_of_more_than_weights_says_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"args": Namespace()}))
    with pytest.raises(
        UserError, match=r"asks for .*Namespace, which weights do not need.*state_dict\(\)"
    ) as error:
        vp.clip.load(tmp_path / "w.pt")
    assert "fetch it again" not in str(error.value)

"""Hugging Face's layouts, against recorded outputs of the transformers library (torch)."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import vprompt_jax as vp
from tests.conftest import GOLDEN
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def recorded(name):
    io = np.load(GOLDEN / f"{name}.io.npz")
    return io, io["images_nchw"].transpose(0, 2, 3, 1)


@functools.partial(jax.jit, static_argnums=0)
def outputs(model, variables, images, tokens):
    """Features of both and logits, in one program."""
    image = model.apply(variables, images, method="encode_image")
    text = model.apply(variables, tokens, method="encode_text")
    return image, text, model.apply(variables, images, tokens)


@pytest.fixture(scope="module")
def clip():
    return vp.clip.load(GOLDEN / "hf_clip_tiny")


def test_clip_agrees_with_transformers(clip):
    model, variables = clip
    io, images = recorded("hf_clip_tiny")
    c = model.config
    # None of these can be read off the shapes.
    assert (c.vision.activation, c.text.activation) == ("gelu", "gelu")
    assert (c.vision.heads, c.text.heads) == (3, 4)
    assert (c.vision.mlp_width, c.text.mlp_width) == (100, 80)
    image, text, logits = outputs(model, variables, images, io["tokens"])
    assert relative_error(image, io["image_features"]) < 1e-4
    assert relative_error(text, io["text_features"]) < 1e-4
    assert relative_error(logits, io["logits_per_image"]) < 1e-4


def test_clip_in_bfloat16_points_the_same_way():
    model, variables = vp.clip.load(GOLDEN / "hf_clip_tiny", dtype=jnp.bfloat16)
    io, images = recorded("hf_clip_tiny")
    features = outputs(model, variables, images, io["tokens"])[:2]
    for ours, theirs in zip(features, (io["image_features"], io["text_features"]), strict=True):
        ours = np.asarray(ours, np.float32)
        cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1)
        assert (cosine / np.linalg.norm(theirs, axis=1)).min() > 0.999


def test_dtype_none_is_as_stored():
    model, variables = vp.clip.load(GOLDEN / "hf_clip_tiny", dtype=None)
    assert model.dtype == np.float16
    block = variables["params"]["visual"]["resblocks_0"]
    assert block["mlp"]["c_fc"]["kernel"].dtype == np.float16
    assert block["ln_1"]["scale"].dtype == np.float32


def test_vit_agrees_with_transformers():
    model, variables = vp.clip.load(GOLDEN / "hf_vit_tiny")
    io, images = recorded("hf_vit_tiny")
    assert model.config.mean == (0.5, 0.5, 0.5)
    assert model.config.vision.norm_eps == 1e-12
    features = jax.jit(lambda v, x: model.apply(v, x, method="encode_image"))(variables, images)
    assert relative_error(features, io["image_features"]) < 1e-4
    logits = model.apply(variables, features, method="source_logits")
    assert relative_error(logits, io["logits"]) < 1e-4


def test_a_tower_without_text_says_so():
    model, variables = vp.clip.load(GOLDEN / "hf_vit_tiny")
    assert not model.config.has_text
    with pytest.raises(UserError, match="no text tower"):
        model.apply(variables, np.zeros((1, 8), np.int32), method="encode_text")


def sharded(source, folder):
    """The same tensors in two files and an index, as transformers cuts them."""
    tensors = load_file(source / "model.safetensors")
    names = sorted(tensors)
    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    places = {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{i:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def test_shards_hold_the_same(clip, tmp_path):
    index = sharded(GOLDEN / "hf_clip_tiny", tmp_path / "cut")
    for path in (index, index.parent):
        model, variables = vp.clip.load(path)
        assert model.config == clip[0].config
        jax.tree.map(np.testing.assert_array_equal, variables, clip[1])


def test_a_missing_or_foreign_shard_is_refused(tmp_path):
    index = sharded(GOLDEN / "hf_clip_tiny", tmp_path / "cut")
    (index.parent / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"no weights at .*model-00002-of-00002"):
        vp.clip.load(index)
    index.write_text(json.dumps({"weight_map": {"logit_scale": "../else.safetensors"}}))
    with pytest.raises(UserError, match="not a file beside it"):
        vp.clip.load(index)


def test_weights_without_their_config_ask_for_what_is_open(tmp_path):
    shutil.copy(GOLDEN / "hf_clip_tiny" / "model.safetensors", tmp_path)
    with pytest.raises(
        UserError, match=r"say vision_heads, text_heads, activation: put the config.json"
    ):
        vp.clip.load(tmp_path)
    fields = {"vision_heads": 3, "text_heads": 4}
    told, _ = vp.clip.load(tmp_path, activation="gelu", fields=fields)
    assert told.config == vp.clip.load(GOLDEN / "hf_clip_tiny")[0].config
    with pytest.raises(UserError, match=r"unknown fields \['heads'\]"):
        vp.clip.load(tmp_path, fields={"heads": 3})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "siglip"}, "model_type 'siglip'.*belongs to another"),
        ({"text_config": {"hidden_act": "relu"}}, "hidden_act 'relu' is not supported"),
    ],
)
def test_a_config_of_another_model_is_refused(tmp_path, change, message):
    folder = tmp_path / "changed"
    shutil.copytree(GOLDEN / "hf_clip_tiny", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message):
        vp.clip.load(folder)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"folder without weights: expected one of model\.safe"):
        vp.clip.load(tmp_path)

"""EVA-CLIP and PE-Core in OpenCLIP's layout, against recorded outputs of OpenCLIP and timm (torch).

The recorded models have random weights of 16 bits, all of them moved, and other widths than their
architectures' names stand for. Larger images are recorded beside those of the models' own size.
"""

import functools

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import vprompt_jax as vp
from tests.conftest import GOLDEN
from vprompt_jax.clip.config import CLIP_MEAN, HALF
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast

NAMES = ("open_clip_eva_tiny", "open_clip_pe_tiny")
WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def recorded(name):
    io = np.load(GOLDEN / f"{name}.io.npz")
    return {key: x.transpose(0, 2, 3, 1) if key.endswith("nchw") else x for key, x in io.items()}


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours, np.float32) - theirs).max() / np.abs(theirs).max()


@functools.partial(jax.jit, static_argnums=0)
def features(model, variables, images):
    return model.apply(variables, images, method="encode_image")


@functools.partial(jax.jit, static_argnums=0)
def outputs(model, variables, images, tokens):
    text = model.apply(variables, tokens, method="encode_text")
    return text, model.apply(variables, images, tokens)


def test_it_agrees_with_open_clip(name):
    io = recorded(name)
    model, variables = vp.clip.load(GOLDEN / name)
    image = features(model, variables, io["images_nchw"])
    text, logits = outputs(model, variables, io["images_nchw"], io["tokens"])
    assert relative_error(image, io["image_features"]) < 1e-5
    assert relative_error(text, io["text_features"]) < 1e-5
    assert relative_error(logits, io["logits_per_image"]) < 1e-5


def test_larger_images_agree_with_open_clip(name):
    """Learned positions are interpolated, and places are counted on the larger grid."""
    io = recorded(name)
    model, variables = vp.clip.load(GOLDEN / name, image_resolution=48)
    assert model.config.vision.grid == 6
    ours = features(model, variables, io["larger_nchw"])
    assert relative_error(ours, io["larger_features"]) < 1e-5


def test_bfloat16_points_the_same_way(name):
    io = recorded(name)
    ours = features(*vp.clip.load(GOLDEN / name, dtype="bfloat16"), io["images_nchw"])
    ours, theirs = np.asarray(ours, np.float32), io["image_features"]
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() > 0.999


def test_what_the_files_say_is_in_the_config():
    c = vp.clip.load(GOLDEN / NAMES[0])[0].config
    vision = c.vision
    assert (vision.heads, vision.gated_mlp, vision.inner_norms) == (12, True, True)
    assert (vision.pre_norm, vision.qkv_bias, vision.norm_eps) == (False, "no_key", 1e-6)
    assert (vision.rope_reference, vision.rope_offset, vision.rope_order) == (16, 0.0, "rows")
    assert (vision.pooling, c.resize, c.mean) == ("class", "shortest", CLIP_MEAN)
    c = vp.clip.load(GOLDEN / NAMES[1])[0].config
    vision = c.vision
    assert (vision.heads, vision.gated_mlp, vision.inner_norms) == (3, False, False)
    assert (vision.pre_norm, vision.qkv_bias, vision.norm_eps) == (True, "all", 1e-5)
    assert (vision.rope_reference, vision.rope_offset, vision.rope_order) == (24, 1.0, "columns")
    assert (vision.pooling, vision.pool_heads, vision.pool_class) == ("attention", 8, True)
    assert (c.resize, c.mean) == ("squash_bilinear", HALF)


@pytest.mark.parametrize(
    "name, left_out",
    [
        (NAMES[0], "blocks.1.attn.v_proj.weight"),
        (NAMES[0], "blocks.1.mlp.norm.weight"),
        (NAMES[0], "blocks.0.mlp.fc1_g.weight"),
        (NAMES[1], "attn_pool.kv.weight"),
        (NAMES[1], "attn_pool.mlp.fc2.bias"),
        (NAMES[1], "norm_pre.bias"),
    ],
)
def test_missing_tensors_are_named(tmp_path, name, left_out):
    tensors = load_file(GOLDEN / name / WEIGHTS)
    del tensors[f"visual.trunk.{left_out}"]
    save_file(tensors, tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_bytes((GOLDEN / name / CONFIG).read_bytes())
    with pytest.raises(UserError) as error:
        vp.clip.load(tmp_path)
    assert left_out in str(error.value), error.value

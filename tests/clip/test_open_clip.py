"""SigLIP in OpenCLIP's and timm's layouts, and OpenCLIP's other text towers, without the libraries.

The weights are those of the recorded SigLIP in Hugging Face's layout, under OpenCLIP's names; what
OpenCLIP makes of them is recorded, too.
"""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

import vprompt_jax as vp
from tests.adapters.conftest import random_variables
from tests.clip.test_siglip import SIGLIP, WEIGHTS, outputs, relative_error
from tests.clip.test_towers import TOWERS, config_of
from tests.conftest import GOLDEN, TINY, random_tensors
from vprompt_jax.clip import class_texts, vocabularies
from vprompt_jax.clip.checkpoints import formats, openai
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast

ARCHITECTURE = "vit_base_patch16_siglip_224"
HALF = [0.5, 0.5, 0.5]
# Of the weights: `SIGLIP`'s config says it in transformers' words.
TEXT = dict(
    context_length=24, width=32, heads=4, layers=2, mlp_ratio=1.875, no_causal_mask=True,
    proj_bias=True, pool_type="last", norm_kwargs={"eps": 1e-6}, hf_tokenizer_name="some/siglip",
    tokenizer_kwargs={"clean": "canonicalize"},
)  # fmt: skip
# What transformers' config of these weights says, and OpenCLIP's architecture does not.
THEIRS = {
    "activation": "gelu_tanh",
    "vision_heads": 3,
    "vision_norm_eps": 1e-3,
    "text_norm_eps": 1e-4,
}


def timm_names(theirs):
    """timm's names of transformers' image tower."""
    out = {}

    def both(name, of):
        for kind in ("weight", "bias"):
            out[f"{name}.{kind}"] = theirs[f"vision_model.{of}.{kind}"]

    both("patch_embed.proj", "embeddings.patch_embedding")
    out["pos_embed"] = theirs["vision_model.embeddings.position_embedding.weight"][None]
    both("norm", "post_layernorm")
    for i in range(2):
        layer = f"encoder.layers.{i}"
        for kind in ("weight", "bias"):
            parts = [theirs[f"vision_model.{layer}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            out[f"blocks.{i}.attn.qkv.{kind}"] = np.concatenate(parts)
        both(f"blocks.{i}.attn.proj", f"{layer}.self_attn.out_proj")
        for j in (1, 2):
            both(f"blocks.{i}.norm{j}", f"{layer}.layer_norm{j}")
            both(f"blocks.{i}.mlp.fc{j}", f"{layer}.mlp.fc{j}")
            both(f"attn_pool.mlp.fc{j}", f"head.mlp.fc{j}")
    out["attn_pool.latent"] = theirs["vision_model.head.probe"]
    for kind in ("weight", "bias"):
        whole = theirs[f"vision_model.head.attention.in_proj_{kind}"]
        out[f"attn_pool.q.{kind}"], out[f"attn_pool.kv.{kind}"] = np.split(whole, [48])
    both("attn_pool.proj", "head.attention.out_proj")
    both("attn_pool.norm", "head.layernorm")
    return out


def open_clip_names():
    """The recorded weights under OpenCLIP's names."""
    theirs = load_file(SIGLIP / WEIGHTS)
    out = {f"visual.trunk.{name}": tensor for name, tensor in timm_names(theirs).items()}
    for name in ("logit_scale", "logit_bias"):
        out[name] = theirs[name].reshape(())
    out["text.token_embedding.weight"] = theirs["text_model.embeddings.token_embedding.weight"]
    position = theirs["text_model.embeddings.position_embedding.weight"]
    out["text.positional_embedding"] = position
    for kind in ("weight", "bias"):
        out[f"text.ln_final.{kind}"] = theirs[f"text_model.final_layer_norm.{kind}"]
        out[f"text.text_projection.{kind}"] = theirs[f"text_model.head.{kind}"]
        for i in range(2):
            of, name = f"text_model.encoder.layers.{i}", f"text.transformer.resblocks.{i}"
            parts = [theirs[f"{of}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            out[f"{name}.attn.in_proj_{kind}"] = np.concatenate(parts)
            out[f"{name}.attn.out_proj.{kind}"] = theirs[f"{of}.self_attn.out_proj.{kind}"]
            for j in (1, 2):
                out[f"{name}.ln_{j}.{kind}"] = theirs[f"{of}.layer_norm{j}.{kind}"]
            out[f"{name}.mlp.c_fc.{kind}"] = theirs[f"{of}.mlp.fc1.{kind}"]
            out[f"{name}.mlp.c_proj.{kind}"] = theirs[f"{of}.mlp.fc2.{kind}"]
    return out


def model_config(text=None, **vision):
    tower = dict(image_size=34, timm_model_name=ARCHITECTURE, timm_pool="map", timm_proj="none")
    return dict(
        embed_dim=48, init_logit_bias=-10, custom_text=True, vision_cfg=tower | vision,
        text_cfg=TEXT | {"vocab_size": 460} | (text or {}),
    )  # fmt: skip


def write(folder, tensors=None, files=("tokenizer.json", "tokenizer_config.json"), **parts):
    """A folder as OpenCLIP's repositories are; `parts` are changes of the config's."""
    folder.mkdir(exist_ok=True)
    save_file(tensors or open_clip_names(), folder / "open_clip_model.safetensors")
    model = model_config(parts.get("text_cfg"), **parts.get("vision_cfg", {}))
    preprocess = {"mean": HALF, "std": HALF, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": model | parts.get("model_cfg", {}), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    for name in files:
        shutil.copy(SIGLIP / name, folder)
    return folder


@pytest.fixture(scope="module")
def recorded():
    images = np.load(GOLDEN / "siglip_tiny.io.npz")["images_nchw"].transpose(0, 2, 3, 1)
    tokens = np.load(GOLDEN / "siglip_tiny.io.npz")["tokens"]
    out = np.load(GOLDEN / "open_clip_siglip_tiny.io.npz")
    return dict(out) | {"images": images, "inputs": tokens}


def test_it_agrees_with_open_clip(tmp_path, recorded):
    model, variables = vp.clip.load(write(tmp_path))
    image, text, logits = outputs(model, variables, recorded["images"], recorded["inputs"])
    assert relative_error(image, recorded["image_features"]) < 1e-4
    assert relative_error(text, recorded["text_features"]) < 1e-4
    assert relative_error(logits, recorded["logits_per_image"]) < 1e-4
    c = model.config
    assert (c.vision.heads, c.vision.activation, c.image_resolution) == (12, "gelu", 34)
    assert (c.text.activation, c.text.tokenizer, c.resize) == ("gelu", "canonical", "squash")


def test_it_holds_what_transformers_layout_does(tmp_path, recorded):
    """The same weights: OpenCLIP's architectures differ in heads, GELU and epsilon alone."""
    model, variables = vp.clip.load(write(tmp_path), fields=THEIRS)
    theirs, expected = vp.clip.load(SIGLIP)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    of_preprocessing = {"resize": "squash_bilinear", "text.tokenizer": "gemma"}
    assert model.config.with_fields(of_preprocessing) == theirs.config
    for ours, other in zip(
        outputs(model, variables, recorded["images"], recorded["inputs"]),
        outputs(theirs, expected, recorded["images"], recorded["inputs"]),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, other)


def test_texts_become_the_ids_of_open_clip(tmp_path, recorded):
    clip, _ = vp.clip.load(write(tmp_path))
    texts = [str(text) for text in recorded["texts"]]
    ids = vocabularies.token_ids(clip.config.text, clip.vocabulary, texts)
    np.testing.assert_array_equal(ids, recorded["tokens"])
    assert vocabularies.open_clip_canonical(" Snake_case,  it's&amp; ") == "snake case its"
    # The sigma stands inside a word once the comma is gone, and at the end of one before a space.
    assert vocabularies.open_clip_canonical("ΟΔΟΣ,ΔΥΟ ΟΔΟΣ, ΔΥΟ") == "οδοσδυο οδος δυο"


@pytest.mark.parametrize("files", [(), ("tokenizer.json",)])
def test_without_the_tokenizers_files_it_says_what_to_put_where(tmp_path, files):
    clip, variables = vp.clip.load(write(tmp_path, files=files))
    assert clip.config.text.tokenizer is None
    with pytest.raises(UserError, match=r"put tokenizer.json .* beside the weights, or train a li"):
        class_texts.encode_classes(clip, variables, [["a cat"]])


def test_a_tokenizer_that_is_not_supported_is_named(tmp_path, caplog):
    text = {"hf_tokenizer_name": "some/xlm", "tokenizer_kwargs": {}}
    clip, variables = vp.clip.load(write(tmp_path, text_cfg=text))
    assert "tokenizer 'some/xlm', which is not supported" in caplog.text
    assert "head.kind=linear" in caplog.text
    with pytest.raises(UserError, match="or train a linear head"):
        class_texts.encode_classes(clip, variables, [["a cat"]])


def test_a_tokenizer_that_adds_other_tokens_is_refused(tmp_path):
    folder = write(tmp_path)
    said = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(said | {"post_processor": None}))
    clip, _ = vp.clip.load(folder)
    with pytest.raises(
        UserError, match=r"adds the tokens \[\] to a text, .* the end token 1 alone"
    ):
        class_texts.tokens_of(clip, [["a cat"]])


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"vision_cfg": {"timm_model_name": "vit_base_mci_224"}}, "timm_model_name='vit_base_mci"),
        ({"vision_cfg": {"timm_model_name": None}}, "timm_model_name=None, which is not supported"),
        (
            {"vision_cfg": {"timm_pool": "avg"}},
            "timm_pool='avg' with vit_base_patch16_siglip_224, which is not",
        ),
        (
            {"vision_cfg": {"timm_proj": "linear"}},
            "timm_proj='linear' with vit_base_patch16_siglip_224, which",
        ),
        ({"vision_cfg": {"image_size": [34, 42]}}, "images that are not square"),
        ({"vision_cfg": {"image_size": 64}}, "image_size 64, the weights have 32"),
        ({"vision_cfg": {"rope": 1}}, "has rope=1, which is not known here"),
        ({"text_cfg": {"width": 64}}, "says text.width 64, the weights have 32"),
        ({"text_cfg": {"ls_init_value": 0.1}}, "says ls_init_value True, the weights have False"),
        ({"text_cfg": {"proj_bias": False}}, "says proj_bias False, the weights have True"),
        ({"text_cfg": {"proj_type": "none"}}, "says proj_type none, the weights have linear"),
        ({"text_cfg": {"pool_type": "first"}}, "pool_type='first', which is not supported"),
        ({"text_cfg": {"hf_tokenizer_name": ""}}, "tokenizer_kwargs={'clean': 'canonicalize'} of"),
        ({"model_cfg": {"multimodal_cfg": {}}}, "multimodal_cfg={}, which is not supported"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, parts, message):
    with pytest.raises(UserError, match=message) as error:
        vp.clip.load(write(tmp_path, **parts))
    assert "\n" not in str(error.value)


def test_without_its_config_it_asks_for_it(tmp_path):
    folder = write(tmp_path)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(UserError, match=r"only open_clip_config\.json says which: put the one"):
        vp.clip.load(folder)


@pytest.mark.parametrize("gone", ["visual.trunk.attn_pool.kv.bias", "text.ln_final.weight"])
def test_missing_tensors_are_named(tmp_path, gone):
    tensors = open_clip_names()
    del tensors[gone]
    with pytest.raises(UserError, match=gone.removeprefix("text.")):
        vp.clip.load(write(tmp_path, tensors))


def test_texts_of_another_width_are_refused(tmp_path):
    tensors = open_clip_names()
    for kind in ("weight", "bias"):
        whole = tensors[f"text.text_projection.{kind}"]
        tensors[f"text.text_projection.{kind}"] = np.ascontiguousarray(whole[:40])
    with pytest.raises(UserError, match="have 40 channels and its images' 48: these towers do not"):
        vp.clip.load(write(tmp_path, tensors, model_cfg={"embed_dim": 40}))


# timm's image tower alone


def timm_folder(folder, **config):
    folder.mkdir(exist_ok=True)
    save_file(timm_names(load_file(SIGLIP / WEIGHTS)), folder / WEIGHTS)
    statistics = {"mean": HALF, "std": HALF, "input_size": [3, 34, 34]}
    said = {"architecture": ARCHITECTURE, "global_pool": "map", "pretrained_cfg": statistics}
    (folder / "config.json").write_text(json.dumps(said | config))
    return folder


def test_the_image_tower_of_timm(tmp_path, recorded):
    clip, variables = vp.clip.load(timm_folder(tmp_path))
    assert (clip.config.has_text, clip.config.resize) == (False, "shortest")
    image = clip.apply(variables, recorded["images"])
    assert relative_error(image, recorded["image_features"]) < 1e-4


@pytest.mark.parametrize(
    "change, message",
    [
        ({"global_pool": "avg"}, "says global_pool avg, the weights have map"),
        ({"model_args": {"class_token": True}}, "class_token=True, which is not supported"),
        ({"model_args": {"depth": 3}}, "says depth 3, the weights have 2"),
        ({"model_args": {"reg_tokens": 4}}, "reg_tokens=4, which is not supported"),
        ({"model_args": {"act_layer": "relu"}}, "act_layer='relu', which is not supported"),
        ({"architecture": "vit_base_patch16_224"}, "architecture 'vit_base_patch16_224', which"),
    ],
)
def test_a_config_of_timm_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        vp.clip.load(timm_folder(tmp_path, **change))


def test_without_timms_config_it_asks_for_what_is_open(tmp_path):
    (timm_folder(tmp_path) / "config.json").unlink()
    with pytest.raises(UserError, match="say vision_heads, activation: put the config"):
        vp.clip.load(tmp_path)


def test_without_its_pooling_the_config_has_to_tell(tmp_path, recorded):
    name = "vit_base_patch16_siglip_gap_224"
    folder = timm_folder(tmp_path, architecture=name, global_pool="avg")
    tensors = load_file(folder / WEIGHTS)
    kept = {n: t for n, t in tensors.items() if not n.startswith("attn_pool.")}
    save_file(kept, folder / WEIGHTS)
    clip, variables = vp.clip.load(folder)
    whole, others = vp.clip.load(timm_folder(tmp_path / "whole"))
    assert clip.config.vision.pooling == "mean"
    inside = [
        model.apply(weights, recorded["images"], stop=1, method="encode_image")
        for model, weights in ((clip, variables), (whole, others))
    ]
    np.testing.assert_array_equal(*inside)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no class token, so .*: put the config\.json"):
        vp.clip.load(folder)


# OpenAI's names under OpenCLIP's `custom_text`


def test_custom_text_holds_the_same(tmp_path, tiny_path):
    tensors = random_tensors(TINY)
    images = ("visual.", "logit_scale")
    custom = {n if n.startswith(images) else f"text.{n}": t for n, t in tensors.items()}
    path = tmp_path / "custom.safetensors"
    formats.write_safetensors(path, custom, {})
    told = {"activation": "quick_gelu", "vision_heads": 1, "text_heads": 1}
    _, variables = vp.clip.load(path, fields=told)
    _, expected = vp.clip.load(tiny_path)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    formats.write_safetensors(path, custom | tensors, {})
    with pytest.raises(UserError, match="two text towers, not one"):
        vp.clip.load(path)


@pytest.mark.parametrize("name", ["counted places, norms inside, a gate",
                                  "attention to the class token, columns first",
                                  "what a query finds in all tokens",
                                  "norms behind attention and perceptron"])  # fmt: skip
def test_the_packages_own_format_keeps_other_towers(tmp_path, name):
    config = config_of(TOWERS[name])
    variables = random_variables(config, seed=1)
    flat = {path: np.asarray(a) for path, a in traverse_util.flatten_dict(variables).items()}
    formats.write_safetensors(tmp_path / "w.safetensors", openai.to_state_dict(flat), {})
    said = {"clip": dataclasses.asdict(config)}
    (tmp_path / "w.json").write_text(json.dumps(said))
    clip, loaded = vp.clip.load(tmp_path / "w.safetensors")
    assert clip.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_pe_spatial_base_patch16"])
def test_other_towers_of_timm_are_named(tmp_path, name):
    tensors = open_clip_names() | {"visual.trunk.blocks.0.attn.q_bias": np.zeros(48, np.float32)}
    with pytest.raises(UserError, match=f"timm_model_name='{name}', which is not supported"):
        vp.clip.load(write(tmp_path, tensors, vision_cfg={"timm_model_name": name}))


def test_an_eva_asks_for_its_own_pooling(tmp_path):
    vision = {"timm_model_name": "eva02_base_patch16_clip_224", "timm_proj": None}
    with pytest.raises(UserError, match=r"timm_pool='map' with eva02_base.*\(supported: 'token'\)"):
        vp.clip.load(write(tmp_path, vision_cfg=vision))

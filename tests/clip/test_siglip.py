"""SigLIP in Hugging Face's layout, against recorded outputs of the transformers library (torch).

The recorded model has random weights of 16 bits, all of them moved, 34 pixels of which two behind
the last whole patch are not seen, and a vocabulary trained on a few sentences.
"""

import functools
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import vprompt_jax as vp
from tests.conftest import GOLDEN
from vprompt_jax.clip import class_texts, vocabularies
from vprompt_jax.clip.checkpoints.processors import pixel_fields
from vprompt_jax.clip.checkpoints.vocabularies import file_beside
from vprompt_jax.clip.model import image_tower_alone
from vprompt_jax.clip.preprocess import preprocess_batch, resize_and_crop
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast

SIGLIP = GOLDEN / "siglip_tiny"
WEIGHTS = "model.safetensors"


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="module")
def recorded():
    io = dict(np.load(GOLDEN / "siglip_tiny.io.npz"))
    return io | {"images": io["images_nchw"].transpose(0, 2, 3, 1)}


@pytest.fixture(scope="module")
def siglip():
    return vp.clip.load(SIGLIP)


@functools.partial(jax.jit, static_argnums=0)
def outputs(model, variables, images, tokens):
    image = model.apply(variables, images, method="encode_image")
    text = model.apply(variables, tokens, method="encode_text")
    return image, text, model.apply(variables, images, tokens)


def changed(tmp_path, tensors=None, **files):
    """A copy of the recorded model with other tensors, and with changed JSON files; None: gone."""
    folder = tmp_path / "changed"
    shutil.copytree(SIGLIP, folder)
    if tensors is not None:
        save_file(tensors, folder / WEIGHTS)
    for name, change in files.items():
        path = folder / f"{name}.json"
        if change is None:
            path.unlink()
        else:
            path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder


def image_tensors():
    tensors = load_file(SIGLIP / WEIGHTS)
    return {n: np.array(t) for n, t in tensors.items() if n.startswith("vision_model.")}


def test_it_agrees_with_transformers(siglip, recorded):
    image, text, logits = outputs(*siglip, recorded["images"], recorded["tokens"])
    assert relative_error(image, recorded["image_features"]) < 1e-4
    assert relative_error(text, recorded["text_features"]) < 1e-4
    assert relative_error(logits, recorded["logits_per_image"]) < 1e-4


def test_what_the_files_say_is_in_the_config(siglip):
    c = siglip[0].config
    assert (c.vision.heads, c.vision.norm_eps, c.image_resolution, c.vision.grid) == (
        3,
        1e-3,
        34,
        4,
    )
    assert (c.vision.pooling, c.vision.prefix, c.embed_dim) == ("attention", 0, 48)
    assert (c.text.heads, c.text.norm_eps, c.text.activation) == (4, 1e-4, "gelu_tanh")
    assert (c.text.tokenizer, c.text.end_token, c.text.pad_token) == ("gemma", 1, 0)
    assert (c.resize, c.mean, c.logit_bias) == ("squash_bilinear", (0.5, 0.5, 0.5), True)


def test_positions_meet(siglip, recorded):
    clip, variables = siglip
    whole = clip.apply(variables, recorded["images"], method="encode_image")
    for position in range(clip.config.depth + 1):
        x = clip.apply(variables, recorded["images"], stop=position, method="encode_image")
        x = clip.apply(variables, x, start=position, method="encode_image")
        np.testing.assert_array_equal(x, whole)


def test_the_bias_moves_all_logits_alike(siglip, recorded):
    _, variables = siglip
    image, text, logits = map(np.asarray, outputs(*siglip, recorded["images"], recorded["tokens"]))
    image, text = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (image, text))
    scale = np.exp(variables["params"]["logit_scale"])
    bias = variables["params"]["logit_bias"]
    assert bias == -1.5
    np.testing.assert_allclose(logits, scale * image @ text.T + bias, atol=1e-4)


def test_texts_become_the_ids_of_transformers(siglip, recorded):
    clip, _ = siglip
    texts = [str(text) for text in recorded["texts"]]
    np.testing.assert_array_equal(class_texts.tokens_of(clip, [texts])[0], recorded["tokens"])
    assert class_texts.without_padding(recorded["tokens"], clip.config.text).shape == (7, 24)


def test_a_text_that_is_too_long_is_named(siglip):
    with pytest.raises(UserError, match="class text too long for this checkpoint"):
        class_texts.tokens_of(siglip[0], [["many words " * 20]])
    tower, file = siglip[0].config.text, siglip[0].vocabulary
    cut = vocabularies.token_ids(tower, file, ["many words " * 20], truncate=True)
    assert (cut.shape, cut[0, -1]) == ((1, 24), 1)


def test_names_that_were_never_learned_are_found(siglip):
    clip, variables = siglip
    known = class_texts.tokens_of(clip, [["cat"]])[0, 0]
    table = np.zeros_like(variables["params"]["text"]["token_embedding"]["embedding"])
    table[[*known, 0, 1]] = 1
    text = {**variables["params"]["text"], "token_embedding": {"embedding": table}}
    variables = {"params": {**variables["params"], "text": text}}
    assert class_texts.unlearned(clip, variables, ["Cat", "ship"]) == ["ship"]


def test_canonical_texts_of_the_first_siglip():
    assert vocabularies.canonical("  A photo,  of a\tCAT!_ ") == "a photo of a cat"
    assert vocabularies.canonical("ÄÖ — 猫…") == "äö — 猫…"  # ASCII's punctuation alone
    assert vocabularies.canonical("ΟΔΟΣ,ΔΥΟ") == "οδοςδυο"  # lower case comes first


@pytest.mark.parametrize("alone", [False, True])
def test_the_image_tower_alone(tmp_path, siglip, recorded, alone):
    """As SiglipVisionModel keeps it, with and without a prefix."""
    cut = len("vision_model.") if alone else 0
    tensors = {name[cut:]: tensor for name, tensor in image_tensors().items()}
    config = json.loads((SIGLIP / "config.json").read_text())["vision_config"]
    folder = changed(tmp_path, tensors)
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "siglip_vision_model"}))
    clip, variables = vp.clip.load(folder)
    assert not clip.config.has_text
    assert clip.config == image_tower_alone(*siglip)[0].config
    features = clip.apply(variables, recorded["images"], method="encode_image")
    assert relative_error(features, recorded["image_features"]) < 1e-4
    with pytest.raises(UserError, match="no text tower, so it cannot encode texts"):
        class_texts.encode_classes(clip, variables, [["a"]])


def test_without_its_config_it_asks_for_what_is_open(tmp_path):
    with pytest.raises(UserError, match="say vision_heads, text_heads, activation: put the config"):
        vp.clip.load(changed(tmp_path, config=None))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "clip"}, "model_type 'clip', the weights are of 'siglip'"),
        ({"vision_config": {"image_size": 64}}, "vision_config says image_size 64, the weights"),
        ({"vision_config": {"image_size": [34, 42]}}, "images that are not square"),
        ({"vision_config": {"image_size": 34, "hidden_size": 64}}, "hidden_size 64, the weights"),
        ({"text_config": {"vocab_size": 9}}, "text_config says vocab_size 9, the weights have"),
        ({"text_config": {"projection_size": 9}}, "says projection_size 9, the weights have 48"),
        ({"text_config": {"hidden_act": "relu"}}, "hidden_act 'relu' is not supported"),
        ({"text_config": {"use_cache_of": 1}}, "has use_cache_of=1, which is not known here"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message) as error:
        vp.clip.load(changed(tmp_path, config=change))
    assert "\n" not in str(error.value)


def test_naflex_is_refused_by_name(tmp_path):
    tensors = {n: np.array(t) for n, t in load_file(SIGLIP / WEIGHTS).items()}
    name = "vision_model.embeddings.patch_embedding.weight"
    tensors[name] = tensors[name].reshape(48, -1)
    for config in ({"model_type": "siglip2"}, {}):
        folder = changed(tmp_path, tensors, config=config)
        with pytest.raises(UserError, match=r"images of any shape \(NaFlex\), which is not supp"):
            vp.clip.load(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "left_out, message",
    [
        ("vision_model.head.probe", "head.probe is missing: a SigLIP without its pooling head"),
        ("vision_model.head.mlp.fc1.bias", "- vision_model.head.mlp.fc1.bias is missing"),
        ("logit_bias", "- logit_bias is missing"),
    ],
)
def test_missing_tensors_are_named(tmp_path, left_out, message):
    tensors = {n: np.array(t) for n, t in load_file(SIGLIP / WEIGHTS).items() if n != left_out}
    with pytest.raises(UserError, match=message):
        vp.clip.load(changed(tmp_path, tensors))


def test_towers_of_two_models_are_refused(tmp_path):
    tensors = {n: np.array(t) for n, t in load_file(SIGLIP / WEIGHTS).items()}
    tensors["text_model.head.weight"] = tensors["text_model.head.weight"][:40]
    with pytest.raises(UserError, match="have 40 channels and its images' 48: these towers do not"):
        vp.clip.load(changed(tmp_path, tensors))


@pytest.mark.parametrize("gone", ["tokenizer", "tokenizer_config"])
def test_a_missing_tokenizer_says_what_to_put_where(tmp_path, recorded, gone):
    clip, variables = vp.clip.load(changed(tmp_path, **{gone: None, "config": {}}))
    image, text, _ = outputs(clip, variables, recorded["images"], recorded["tokens"])
    assert relative_error(image, recorded["image_features"]) < 1e-4
    assert relative_error(text, recorded["text_features"]) < 1e-4
    way_out = (
        r"put tokenizer.json \(or spiece.model\) and tokenizer_config.json .* beside the weights"
    )
    with pytest.raises(UserError, match=way_out) as error:
        class_texts.encode_classes(clip, variables, [["a cat"]])
    assert "or train a linear head" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"padding_side": "left"}, "asks for padding_side='left', which is not supported"),
        ({"padding_side": None}, "asks for padding_side='left'"),  # as the library takes it
        ({"truncation_side": "left"}, "asks for truncation_side='left'"),
        ({"do_lower_case": False}, "asks for do_lower_case=False"),
        ({"eos_token": "<end>"}, "says which id eos_token '<end>' has"),
        ({"added_tokens_decoder": ["<eos>"]}, "added_tokens_decoder is no list of tokens"),
    ],
)
def test_another_tokenizer_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        vp.clip.load(changed(tmp_path, tokenizer_config=change))


def test_what_is_added_to_texts_the_vocabulary_says(tmp_path, recorded):
    """As in transformers, where a tokenizer.json outweighs these words (test_siglip_live.py)."""
    said = {"add_bos_token": True, "add_eos_token": False}
    folder = changed(tmp_path, tokenizer_config=said)
    clip, _ = vp.clip.load(folder)
    texts = [str(text) for text in recorded["texts"]]
    np.testing.assert_array_equal(class_texts.tokens_of(clip, [texts])[0], recorded["tokens"])
    ids = {"1": {"content": "<eos>"}, "0": {"content": "<pad>"}}
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"added_tokens_decoder": ids})
    )
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    with pytest.raises(UserError, match="asks for add_bos_token=True, which is not supported"):
        vp.clip.load(folder)


def test_a_vocabulary_that_fills_up_from_the_left_is_refused(tmp_path):
    folder = changed(tmp_path, tokenizer_config={"padding_side": None})
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    for direction in ("Right", "Left"):
        padding = {
            "strategy": {"Fixed": 24}, "direction": direction, "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
        }  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(vocabulary | {"padding": padding}))
        if direction == "Right":
            clip, _ = vp.clip.load(folder)
            assert class_texts.tokens_of(clip, [["a cat"]])[0, 0, -1] == 0
    with pytest.raises(UserError, match="asks for padding_side='left'"):
        vp.clip.load(folder)


def test_a_tokenizer_of_another_class_is_not_used(tmp_path):
    clip, _ = vp.clip.load(changed(tmp_path, tokenizer_config={"tokenizer_class": "T5Tokenizer"}))
    assert clip.config.text.tokenizer is None
    assert clip.vocabulary == ""


def test_a_damaged_or_foreign_vocabulary_is_refused(tmp_path):
    ids = {"1": {"content": "<eos>"}, "0": {"content": "<pad>"}}
    folder = changed(tmp_path, tokenizer_config={"added_tokens_decoder": ids})
    clip, _ = vp.clip.load(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json is not a readable tokenizer"):
        class_texts.tokens_of(clip, [["a cat"]])
    small = clip.clone(
        config=clip.config.with_fields({"text.vocab_size": 50}),
        vocabulary=str(SIGLIP / "tokenizer.json"),
    )
    with pytest.raises(
        UserError, match=r"this text tower knows 50 tokens: the file belongs to anot"
    ):
        class_texts.tokens_of(small, [["a cat"]])


def test_the_packages_own_format_keeps_the_vocabulary(tmp_path, siglip, recorded):
    from vprompt_jax.clip import __main__ as main_lib

    out = tmp_path / "new" / "w.safetensors"
    args = main_lib.parser().parse_args(["convert", str(SIGLIP), str(out), "--dtype", "float32"])
    main_lib.convert(args)
    assert sorted(p.name for p in out.parent.iterdir()) == [
        "w.json", "w.safetensors", "w.tokenizer.json"
    ]  # fmt: skip
    clip, variables = vp.clip.load(out)
    assert clip.config == siglip[0].config
    jax.tree.map(np.testing.assert_array_equal, variables, siglip[1])
    texts = [str(text) for text in recorded["texts"]]
    np.testing.assert_array_equal(class_texts.tokens_of(clip, [texts])[0], recorded["tokens"])
    assert file_beside(out, clip.config.text) == str(out.with_name("w.tokenizer.json"))
    assert "attention" in main_lib.inspect(main_lib.parser().parse_args(["inspect", str(out)]))


def test_spiece_model_without_its_library_names_what_to_install(tmp_path, siglip, monkeypatch):
    (tmp_path / "spiece.model").write_bytes(b"pieces")
    clip = siglip[0].clone(vocabulary=str(tmp_path / "spiece.model"))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r'pip install "vprompt_jax\[sentencepiece\]", or put'):
        class_texts.tokens_of(clip, [["a cat"]])


def test_a_damaged_spiece_model_is_refused(tmp_path, siglip):
    pytest.importorskip("sentencepiece")
    (tmp_path / "spiece.model").write_bytes(b"pieces")
    clip = siglip[0].clone(vocabulary=str(tmp_path / "spiece.model"))
    with pytest.raises(UserError, match=r"spiece\.model is not a readable tokenizer"):
        class_texts.tokens_of(clip, [["a cat"]])


def test_a_vocabulary_that_comes_later_is_found(tmp_path, recorded):
    from vprompt_jax.clip import __main__ as main_lib

    folder = changed(tmp_path, tokenizer_config=None)
    out = tmp_path / "w.safetensors"
    main_lib.convert(main_lib.parser().parse_args(["convert", str(folder), str(out)]))
    clip, _ = vp.clip.load(out)
    assert (clip.config.text.tokenizer, clip.vocabulary) == (None, "")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SIGLIP / name, tmp_path)
    clip, _ = vp.clip.load(out)
    texts = [str(text) for text in recorded["texts"]]
    np.testing.assert_array_equal(class_texts.tokens_of(clip, [texts])[0], recorded["tokens"])


def test_another_resolution(siglip, recorded):
    clip, variables = vp.clip.load(SIGLIP, image_resolution=48)
    assert variables["params"]["visual"]["positional_embedding"].shape == (36, 48)
    x = np.zeros((1, 48, 48, 3), np.float32)
    assert clip.apply(variables, x, method="encode_image").shape == (1, 48)


def test_bfloat16_points_the_same_way(recorded):
    model, variables = vp.clip.load(SIGLIP, dtype="bfloat16")
    for ours, key in zip(
        outputs(model, variables, recorded["images"], recorded["tokens"]),
        ("image_features", "text_features"),
        strict=False,
    ):
        ours, theirs = np.asarray(ours, np.float32), recorded[key]
        cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1)
        assert (cosine / np.linalg.norm(theirs, axis=1)).min() > 0.999


@pytest.mark.parametrize(
    "processor, resize",
    [
        ({"size": {"height": 34, "width": 34}}, "squash"),
        ({"size": {"height": 34, "width": 34}, "resample": 3}, "squash"),
        ({"size": {"height": 34, "width": 34}, "resample": 2}, "squash_bilinear"),
    ],
)
def test_how_images_become_square(processor, resize):
    fields = pixel_fields(processor, "preprocessor_config.json", decides=True, crops=False)
    assert fields["resize"] == resize


@pytest.mark.parametrize(
    "processor, message",
    [
        ({"size": {"height": 34, "width": 30}}, "images that are not square"),
        ({"size": {"height": 34, "width": 34}, "resample": 0}, "resample=0, which is not supp"),
        ({"size": {"shortest_edge": 34}}, "the tower takes square images only"),
    ],
)
def test_other_ways_to_resize_are_refused(processor, message):
    with pytest.raises(UserError, match=message):
        pixel_fields(processor, "preprocessor_config.json", decides=True, crops=False)
    if "resample" in processor:
        with pytest.raises(UserError, match="resample=0"):
            pixel_fields(processor, "preprocessor_config.json", decides=True)


@pytest.mark.parametrize("height, width", [(50, 70), (20, 90), (34, 34), (100, 34)])
def test_bilinear_agrees_with_pillow(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    host = resize_and_crop(image, 34, mode="squash_bilinear")
    pillow = Image.fromarray(image).resize((34, 34), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(host, np.asarray(pillow))
    device = preprocess_batch(image[None], 34, (0, 0, 0), (1, 1, 1), mode="squash_bilinear")[0]
    assert np.abs(np.asarray(device) * 255 - host).max() < 1.01
    bicubic = resize_and_crop(image, 34, mode="squash")
    assert (height, width) == (34, 34) or np.abs(bicubic.astype(int) - host).max() > 5


def big_vision(stacked=False, **other):
    """The recorded weights as big_vision lays them out."""
    theirs = {n: t.astype(np.float32) for n, t in load_file(SIGLIP / WEIGHTS).items()}
    out = {"params/t": theirs["logit_scale"], "params/b": theirs["logit_bias"]}

    def attention(name, q, k, v, proj, heads):
        name = f"{name}/MultiHeadDotProductAttention_0"
        width = q[1].size
        for word, (weight, bias) in (("query", q), ("key", k), ("value", v)):
            out[f"{name}/{word}/kernel"] = weight.T.reshape(width, heads, -1)
            out[f"{name}/{word}/bias"] = bias.reshape(heads, -1)
        out[f"{name}/out/kernel"] = proj[0].T.reshape(heads, -1, width)
        out[f"{name}/out/bias"] = proj[1]

    def both(name):
        return theirs[f"{name}.weight"], theirs[f"{name}.bias"]

    def norm(name, of):
        out[f"{name}/scale"], out[f"{name}/bias"] = both(of)

    def dense(name, of):
        weight, out[f"{name}/bias"] = both(of)
        out[f"{name}/kernel"] = weight.T

    for tower, encoder, their, heads in (
        ("params/img", "Transformer", "vision_model", 3),
        ("params/txt", "Encoder_0", "text_model", 4),
    ):
        position = theirs[f"{their}.embeddings.position_embedding.weight"]
        out[f"{tower}/pos_embedding"] = position[None]
        for i in range(2):
            name, of = f"{tower}/{encoder}/encoderblock_{i}", f"{their}.encoder.layers.{i}"
            projections = (both(f"{of}.self_attn.{word}_proj") for word in ("q", "k", "v", "out"))
            attention(name, *projections, heads)
            for j in (0, 1):
                norm(f"{name}/LayerNorm_{j}", f"{of}.layer_norm{j + 1}")
                dense(f"{name}/MlpBlock_0/Dense_{j}", f"{of}.mlp.fc{j + 1}")
        if stacked:
            first = f"{tower}/{encoder}/encoderblock_0/"
            for name in [name for name in out if name.startswith(first)]:
                blocks = [out.pop(name), out.pop(name.replace("block_0/", "block_1/"))]
                out[name.replace("block_0/", "block/")] = np.stack(blocks)
    norm("params/img/Transformer/encoder_norm", "vision_model.post_layernorm")
    norm("params/txt/Encoder_0/encoder_norm", "text_model.final_layer_norm")
    dense("params/txt/head", "text_model.head")
    table = theirs["text_model.embeddings.token_embedding.weight"]
    out["params/txt/Embed_0/embedding"] = table
    weight, bias = both("vision_model.embeddings.patch_embedding")
    out["params/img/embedding/kernel"] = weight.transpose(2, 3, 1, 0)
    out["params/img/embedding/bias"] = bias
    pool = "params/img/MAPHead_0"
    out[f"{pool}/probe"] = theirs["vision_model.head.probe"]
    weights, biases = (np.split(theirs[f"vision_model.head.attention.in_proj_{x}"], 3)
                       for x in ("weight", "bias"))  # fmt: skip
    three = zip(weights, biases, strict=True)
    attention(pool, *three, both("vision_model.head.attention.out_proj"), 3)
    norm(f"{pool}/LayerNorm_0", "vision_model.head.layernorm")
    for j in (0, 1):
        dense(f"{pool}/MlpBlock_0/Dense_{j}", f"vision_model.head.mlp.fc{j + 1}")
    return out | other


@pytest.mark.parametrize("stacked", [False, True])
def test_big_visions_layout_holds_the_same(tmp_path, siglip, stacked):
    np.savez(tmp_path / "siglip.npz", **big_vision(stacked))
    clip, variables = vp.clip.load(tmp_path / "siglip.npz", fields={"image_resolution": 34})
    jax.tree.map(np.testing.assert_array_equal, variables, siglip[1])
    c = clip.config
    assert (c.vision.heads, c.text.heads, c.vision.activation) == (3, 4, "gelu_tanh")
    assert (c.resize, c.vision.norm_eps, c.text.tokenizer) == ("squash", 1e-6, None)
    shutil.copy(SIGLIP / "tokenizer.json", tmp_path)
    shutil.copy(SIGLIP / "tokenizer_config.json", tmp_path)
    clip, _ = vp.clip.load(tmp_path / "siglip.npz")
    assert class_texts.tokens_of(clip, [["a cat"]]).shape == (1, 1, 24)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"params/img/embedding/kernel": np.zeros((192, 48))}, "images of any shape"),
        ({"params/b": None}, "only SigLIP's are supported"),
        ({"params/img/head/kernel": np.zeros((48, 48))}, "img/head/kernel is not part of the mo"),
        ({"params/txt/Encoder_0/pos_embedding": np.zeros(2)}, "pos_embedding is not part of the"),
    ],
)
def test_other_pairs_of_towers_of_big_vision_are_refused(tmp_path, change, message):
    tensors = {n: t for n, t in big_vision(**change).items() if t is not None}
    np.savez(tmp_path / "other.npz", **tensors)
    with pytest.raises(UserError, match=message):
        vp.clip.load(tmp_path / "other.npz")

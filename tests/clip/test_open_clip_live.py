"""Live against OpenCLIP and timm: CLIP's relatives in their layouts, with random weights, and every
public config of OpenCLIP's.

Needs the extras `parity` and `parity-towers`; what is missing of them is skipped.
"""

import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import vprompt_jax as vp
from tests.clip.test_libraries import IMAGES, SIDE, TOKENS, check, features, moved, save, to_torch
from tests.conftest import GOLDEN, ROOT
from vprompt_jax.clip import vocabularies
from vprompt_jax.clip.checkpoints import formats, timm_eva
from vprompt_jax.clip.checkpoints.load import open_checkpoint, variable_shapes
from vprompt_jax.clip.variants import VARIANTS, variant_name
from vprompt_jax.process.errors import UserError

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")

TEXT = dict(context_length=9, vocab_size=99, width=32, heads=4, layers=2)
VISION = dict(layers=2, width=48, head_width=16, patch_size=8, image_size=SIDE)


def write(folder, theirs, model, **preprocess):
    save(theirs, folder / "open_clip_model.safetensors")
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "text",
    [
        {},
        {"ls_init_value": 0.1},
        {"proj_bias": True, "pool_type": "last", "no_causal_mask": True},
        {"norm_kwargs": {"eps": 1e-2}, "act_kwargs": {"approximate": "tanh"}},
    ],
)
@pytest.mark.parametrize("vision", [{}, {"ls_init_value": 0.1}])
@pytest.mark.parametrize("custom", [False, True])
def test_text_towers(tmp_path, text, vision, custom):
    model = dict(
        embed_dim=16, vision_cfg=VISION | vision, text_cfg=TEXT | text, init_logit_bias=-3.0
    )
    kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    theirs = moved(kind(**model))
    write(tmp_path, theirs, model | {"custom_text": custom})
    clip, image, of_texts, _ = features(tmp_path)
    assert clip.config.logit_bias
    with torch.no_grad():
        check(image, theirs.encode_image(to_torch(IMAGES)))
        check(of_texts, theirs.encode_text(torch.from_numpy(TOKENS).long()))


@pytest.mark.parametrize("positions", ["learnable", "sin_cos_2d"])
def test_clipa(tmp_path, caplog, positions):
    vision = VISION | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
    bert = {"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"strip_sep_token": True}}
    text = TEXT | {"pool_type": "last", "no_causal_mask": True} | bert
    vision["pos_embed_type"] = positions
    model = dict(embed_dim=16, vision_cfg=vision, text_cfg=text)
    theirs = moved(open_clip.model.CLIP(**model))
    write(tmp_path, theirs, model)
    clip, image, of_texts, _ = features(tmp_path)
    assert clip.config.text.tokenizer is None
    assert "tokenizer 'bert-base-uncased', which is not supported" in caplog.text
    with torch.no_grad():
        check(image, theirs.encode_image(to_torch(IMAGES)))
        check(of_texts, theirs.encode_text(torch.from_numpy(TOKENS).long()))


SIGLIP = "vit_base_patch16_siglip_224"
SMALL = dict(img_size=SIDE, patch_size=8, embed_dim=48, depth=2, num_heads=12)


@pytest.mark.parametrize(
    "name, pool, options",
    [
        ("eva02_base_patch16_clip_224", "token", {}),
        ("eva02_base_patch16_clip_224", "token", {"mlp_ratio": 1.75, "img_size": 40}),
        ("eva_giant_patch14_224", "token", {"embed_dim": 64, "num_heads": 16}),
        ("eva02_enormous_patch14_clip_224", "token", {"embed_dim": 64, "num_heads": 16}),
        ("vit_pe_core_base_patch16_224", "map", {}),
        ("vit_pe_core_base_patch16_224", "map", {"img_size": 40, "mlp_ratio": 2.5}),
        ("vit_pe_core_gigantic_patch14_448", "map", {"embed_dim": 64, "num_heads": 16}),
    ],
)
def test_eva_and_pe(tmp_path, monkeypatch, name, pool, options):
    create = timm.create_model
    small = SMALL | dict(embed_dim=96) | options
    monkeypatch.setattr(timm, "create_model", lambda name, **more: create(name, **small | more))
    side = small["img_size"]
    vision = dict(image_size=side, timm_model_name=name, timm_pool=pool, timm_proj=None)
    model = dict(embed_dim=24, vision_cfg=vision, text_cfg=TEXT)
    theirs = open_clip.model.CustomTextCLIP(**model)
    computed = {n: b for n, b in theirs.named_buffers() if n not in theirs.state_dict()}
    constants = {n: b.clone() for n, b in computed.items()}  # angles, and keys' bias of 0
    moved(theirs)
    for buffer, value in constants.items():
        computed[buffer].copy_(value)
    write(tmp_path, theirs, model)
    clip, variables = vp.clip.load(tmp_path)
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    image = jax.jit(lambda v: clip.apply(v, images, method="encode_image"))(variables)
    with torch.no_grad():
        check(image, theirs.encode_image(to_torch(images)))
    for position in range(clip.config.depth + 1):
        x = clip.apply(variables, images, stop=position, method="encode_image")
        x = clip.apply(variables, x, start=position, method="encode_image")
        np.testing.assert_allclose(x, image, rtol=0, atol=1e-5 * np.abs(image).max())


@pytest.mark.parametrize(
    "name, trunk",
    [
        (
            "open_clip_eva_tiny",
            {"patch_size": 8, "embed_dim": 96, "depth": 2, "num_heads": 12, "mlp_ratio": 0.75},
        ),
        ("open_clip_pe_tiny", {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}),
    ],
)
def test_recorded_outputs_are_the_libraries(monkeypatch, name, trunk):
    create, io = timm.create_model, np.load(GOLDEN / f"{name}.io.npz")
    model = json.loads((GOLDEN / name / "open_clip_config.json").read_text())["model_cfg"]
    weights = load_file(GOLDEN / name / "open_clip_model.safetensors")
    weights = {n: torch.from_numpy(np.array(w, np.float32)) for n, w in weights.items()}
    tokens = torch.from_numpy(io["tokens"]).long()
    for side, images, expected in (
        (32, "images_nchw", "image_features"),
        (48, "larger_nchw", "larger_features"),
    ):
        small = trunk | {"img_size": side}
        monkeypatch.setattr(timm, "create_model", lambda n, **more: create(n, **more | small))  # noqa: B023
        theirs = open_clip.model.CustomTextCLIP(
            **{k: v for k, v in model.items() if k != "custom_text"}
        )
        place = "visual.trunk.pos_embed"
        resized = timm.layers.resample_abs_pos_embed(weights[place], [side // 8] * 2)
        theirs.load_state_dict(weights | {place: resized})
        with torch.no_grad():
            check(io[expected], theirs.eval().encode_image(torch.from_numpy(io[images])))
            check(io["text_features"], theirs.encode_text(tokens))


def test_what_timms_names_of_eva_and_pe_tell():
    """Heads, epsilon and how places are counted, of all of them."""
    names = timm.list_models(["eva*clip*", "vit_pe_core*"])
    assert len(names) > 8
    for name in names:
        with torch.device("meta"):
            theirs = timm.create_model(name, depth=1, num_classes=8)
        shapes = {n: tuple(value.shape) for n, value in theirs.state_dict().items()}
        held = {n: formats.Tensor(s, np.dtype(np.float32), lambda: None) for n, s in shapes.items()}
        fields = (timm_eva.pe if "pe_core" in name else timm_eva.eva)(held, name)
        assert fields["vision.heads"] == theirs.blocks[0].attn.num_heads, name
        assert fields["vision.norm_eps"] == theirs.blocks[0].norm1.eps, name
        post_norm = type(theirs.blocks[0]).__name__ == "EvaBlockPostNorm"
        assert fields.get("vision.post_norm", False) == post_norm, name
        assert fields.get("vision.pool_heads", 8) == getattr(theirs.attn_pool, "num_heads", 8), name
        rope = theirs.rope
        assert ("vision.rope" in fields) == (rope is not None), name
        if rope is not None:
            assert tuple(rope.ref_feat_shape) == (fields["vision.rope_reference"],) * 2, name
            assert rope.grid_offset == fields.get("vision.rope_offset", 0.0), name
            columns = fields.get("vision.rope_order") == "columns"
            assert rope.grid_indexing == ("xy" if columns else "ij"), name


SIGLIP_TEXT = TEXT | dict(
    norm_kwargs={"eps": 1e-6}, no_causal_mask=True, proj_bias=True, pool_type="last"
)


@pytest.fixture
def small_trunk(monkeypatch):
    """timm's towers with few channels."""
    create = timm.create_model

    def small(name, **options):
        return create(name, **SMALL | options)

    monkeypatch.setattr(timm, "create_model", small)
    return small


def siglip(name=SIGLIP, **text):
    vision = dict(image_size=SIDE, timm_model_name=name, timm_pool="map", timm_proj="none")
    return dict(embed_dim=48, init_logit_bias=-3.0, vision_cfg=vision, text_cfg=SIGLIP_TEXT | text)


@pytest.mark.parametrize(
    "name, text",
    [
        (SIGLIP, {}),
        (SIGLIP, {"act_kwargs": {"approximate": "tanh"}, "mlp_ratio": 2.5}),
        (SIGLIP, {"proj_type": "none", "proj_bias": False, "width": 48}),
        ("vit_base_patch32_siglip_256", {}),  # tanh's GELU
    ],
)
def test_siglip(tmp_path, small_trunk, name, text):
    model = siglip(name, **text)
    theirs = moved(open_clip.model.CustomTextCLIP(**model))
    write(tmp_path, theirs, model, mean=[0.5] * 3, std=[0.5] * 3, resize_mode="squash")
    clip, variables = vp.clip.load(tmp_path)
    assert (clip.config.resize, clip.config.std) == ("squash", (0.5, 0.5, 0.5))
    tokens = torch.from_numpy(TOKENS).long()
    with torch.no_grad():
        pixels = to_torch(IMAGES)
        check(clip.apply(variables, IMAGES, method="encode_image"), theirs.encode_image(pixels))
        check(clip.apply(variables, TOKENS, method="encode_text"), theirs.encode_text(tokens))
        check(clip.apply(variables, IMAGES, TOKENS), theirs.get_logits(pixels, tokens)[0])


@pytest.mark.parametrize(
    "name, arguments",
    [
        (SIGLIP, {}),
        (SIGLIP, {"num_classes": 5, "act_layer": "gelu_tanh", "mlp_ratio": 2.5}),
        (SIGLIP, {"img_size": 37, "num_heads": 6}),
        ("vit_so400m_patch16_siglip_256", {"num_heads": None, "embed_dim": 64}),
        ("vit_base_patch16_siglip_gap_224", {"num_classes": 5}),
    ],
)
def test_siglip_of_timm(tmp_path, name, arguments):
    arguments = {k: v for k, v in (SMALL | {"num_classes": 0} | arguments).items() if v is not None}
    theirs = moved(timm.create_model(name, **arguments))
    side = arguments["img_size"]
    save(theirs, tmp_path / "model.safetensors")
    pool = "avg" if "gap" in name else "map"
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, side, side]}
    config = {"architecture": name, "global_pool": pool, "pretrained_cfg": statistics}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": arguments}))
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    clip, variables = vp.clip.load(tmp_path)
    assert clip.config.image_resolution == side
    with torch.no_grad():
        out = theirs.forward_features(to_torch(images))
        image = clip.apply(variables, images, method="encode_image")
        check(image, theirs.forward_head(out, pre_logits=True))
        if arguments["num_classes"]:
            check(clip.apply(variables, images), theirs(to_torch(images)))


@pytest.mark.parametrize("name", ["T5Tokenizer", "GemmaTokenizer"])
def test_texts_as_open_clip_cleans_them(tmp_path, small_trunk, name):
    """With vocabularies of both SigLIPs' kinds, trained on this repository's README."""
    from open_clip.tokenizer import HFTokenizer

    from tests.clip.test_siglip_live import hard_texts

    transformers = pytest.importorskip("transformers")
    lines = (ROOT / "README.md").read_text().lower().split("\n")
    if name == "T5Tokenizer":
        trained = Tokenizer(models.Unigram())
        trained.pre_tokenizer = pre_tokenizers.Metaspace()
        special = ["<pad>", "</s>", "<unk>"]
        trainer = trainers.UnigramTrainer(
            vocab_size=500, special_tokens=special, unk_token="<unk>", show_progress=False
        )
        trained.train_from_iterator(lines, trainer)
        vocab = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"]]
        options = dict(vocab=vocab, extra_ids=0, pad_token="</s>")
    else:
        trained = Tokenizer(models.BPE(fuse_unk=True, unk_token="<unk>", byte_fallback=True))
        trained.normalizer = normalizers.Replace(" ", "\u2581")
        trained.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=special, show_progress=False)
        trained.train_from_iterator(lines, trainer)
        learned = json.loads(trained.to_str())["model"]
        merges = [tuple(pair) for pair in learned["merges"]]
        options = dict(vocab=learned["vocab"], merges=merges, add_bos_token=False)
        options |= dict(add_eos_token=True, padding_side="right")
    getattr(transformers, name)(**options).save_pretrained(tmp_path)
    text = dict(hf_tokenizer_name="some/siglip", tokenizer_kwargs={"clean": "canonicalize"})
    model = siglip(**text, context_length=64, vocab_size=900)
    write(tmp_path, moved(open_clip.model.CustomTextCLIP(**model)), model)
    clip, _ = vp.clip.load(tmp_path)
    texts = hard_texts()
    ours = vocabularies.token_ids(clip.config.text, clip.vocabulary, texts, truncate=True)
    theirs = HFTokenizer(str(tmp_path), context_length=64, clean="canonicalize")(texts).numpy()
    different = [t for t, a, b in zip(texts, ours, theirs, strict=True) if (a != b).any()]
    assert not different
    assert len({row.tobytes() for row in ours}) > 150


# Every public config

REFUSED = {
    "coca_roberta": "text tower is one of Hugging Face's",
    "roberta": "text tower is one of Hugging Face's",
    "xlm-roberta": "text tower is one of Hugging Face's",
    "mt5": "text tower is one of Hugging Face's",
    "nllb": "text tower is one of Hugging Face's",
    "convnext": "image tower is one of timm's",
    "MobileCLIP": "image tower is one of timm's",
    "ViTamin": "image tower is one of timm's",
    "swin": "image tower is one of timm's",
    "vit_medium": "image tower is one of timm's",
    "vit_relpos": "image tower is one of timm's",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", open_clip.list_models())
def test_every_public_config_loads_or_is_refused_by_name(tmp_path, monkeypatch, name):
    """Names and shapes alone: nothing is allocated, and no vocabulary is asked for.

    Those that are variants here are read as the table has them, pixels included.
    """
    from open_clip import coca_model

    model = open_clip.get_model_config(name)
    tensors = {}
    if model["text_cfg"].get("hf_model_name"):  # the library would download its config
        tensors["text.transformer.embeddings.word_embeddings.weight"] = (9, 9)
        tensors["visual.conv1.weight"] = (9, 3, 9, 9)
        if "multimodal_cfg" in model:
            tensors["text_decoder.ln_final.weight"] = (9,)
    else:
        whole = {k: v for k, v in model.items() if k != "custom_text"}
        kind = open_clip.model.CustomTextCLIP if "custom_text" in model else open_clip.model.CLIP
        kind = coca_model.CoCa if "multimodal_cfg" in model else kind
        with torch.device("meta"):
            theirs = kind(**json.loads(json.dumps(whole))).state_dict()
        tensors = {name: tuple(value.shape) for name, value in theirs.items()}
    held = {n: formats.Tensor(s, np.dtype(np.float32), lambda: None) for n, s in tensors.items()}
    monkeypatch.setattr(formats, "read_tensors", lambda path: held)
    (tmp_path / "open_clip_model.safetensors").touch()
    tags = open_clip.list_pretrained_tags_by_model(name)
    published = open_clip.get_pretrained_cfg(name, tags[0]) if tags else {}
    pixels = {k: published[k] for k in ("mean", "std", "interpolation", "resize_mode") if tags}
    config = {"model_cfg": model, "preprocess_cfg": pixels}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    refused = [message for start, message in REFUSED.items() if name.startswith(start)]
    if refused:
        with pytest.raises(UserError) as error:
            open_checkpoint(tmp_path)
        assert refused[0] in str(error.value)
        return
    config = open_checkpoint(tmp_path).config
    ours = [np.prod(shape) for shape in variable_shapes(config).values()]
    left_out = r"num_batches_tracked$|^text_decoder\."
    theirs = [np.prod(s) for n, s in tensors.items() if not re.search(left_out, n)]
    if "visual.attn_pool.query" in tensors:  # of the queries, only captions read the others
        queries, channels = tensors["visual.attn_pool.query"]
        theirs.append(-(queries - 1) * channels)
    assert sum(ours) == sum(theirs)
    found = variant_name(config)
    if f"OpenCLIP {name}" in VARIANTS:
        assert found == f"OpenCLIP {name}"
        assert config == VARIANTS[found]
    elif found is not None:  # another activation, or other pixels
        assert variable_shapes(config) == variable_shapes(VARIANTS[found])

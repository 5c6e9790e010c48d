"""Live against transformers' SigLIP and SigLIP 2, with random weights and tiny vocabularies; needs
the extra `parity` (and sentencepiece for the first SigLIP's tokenizer).

Real vocabularies are not at hand: those of the tests are trained on this repository's README.
"""

import json
import random
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import vprompt_jax as vp
from tests.clip.test_libraries import check, moved, to_torch
from tests.conftest import GOLDEN, ROOT
from vprompt_jax.clip import vocabularies
from vprompt_jax.clip.checkpoints.load import variable_shapes
from vprompt_jax.clip.variants import VARIANTS
from vprompt_jax.heads.sigmoid import SigmoidHead
from vprompt_jax.process.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VISION = dict(
    hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=100,
    image_size=32, patch_size=8,
)  # fmt: skip
TEXT = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=72,
    max_position_embeddings=9, vocab_size=60, projection_size=48,
    bos_token_id=None, eos_token_id=1,
)  # fmt: skip
IMAGES = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(0, 60, (3, 9)).astype(np.int32)


def features_of(output):
    return getattr(output, "pooler_output", output)


@pytest.mark.parametrize(
    "vision, text",
    [
        ({}, {}),
        ({"layer_norm_eps": 1e-2, "hidden_act": "gelu"}, {"layer_norm_eps": 1e-3}),
        ({"image_size": 37}, {"hidden_act": "quick_gelu"}),
        ({"num_attention_heads": 6, "intermediate_size": 192}, {"num_attention_heads": 2}),
    ],
)
def test_both_towers_and_the_logits(tmp_path, vision, text):
    vision, text = VISION | vision, TEXT | text
    config = transformers.SiglipConfig(vision_config=vision, text_config=text)
    theirs = moved(transformers.SiglipModel(config))
    theirs.logit_bias.data.fill_(-3.0)
    theirs.save_pretrained(tmp_path)
    clip, variables = vp.clip.load(tmp_path)
    assert clip.config.image_resolution == vision["image_size"]
    side = vision["image_size"]
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    tokens = torch.from_numpy(TOKENS).long()
    with torch.no_grad():
        image = features_of(theirs.get_image_features(pixel_values=to_torch(images)))
        of_texts = features_of(theirs.get_text_features(input_ids=tokens))
        logits = theirs(input_ids=tokens, pixel_values=to_torch(images)).logits_per_image
        loss = theirs(tokens[:2], to_torch(images), return_loss=True).loss
    check(jax.jit(lambda v: clip.apply(v, images, method="encode_image"))(variables), image)
    check(jax.jit(lambda v: clip.apply(v, TOKENS, method="encode_text"))(variables), of_texts)
    check(jax.jit(clip.apply)(variables, images, TOKENS), logits)
    pairs = jax.jit(clip.apply)(variables, images, TOKENS[:2])
    check(SigmoidHead.losses(pairs, np.arange(2)).mean(), loss)


def test_the_image_tower_alone(tmp_path):
    theirs = moved(transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)))
    theirs.save_pretrained(tmp_path)
    clip, variables = vp.clip.load(tmp_path)
    with torch.no_grad():
        check(clip.apply(variables, IMAGES), theirs(to_torch(IMAGES)).pooler_output)


def test_the_classifier(tmp_path):
    config = transformers.SiglipConfig(vision_config=VISION, text_config=TEXT, num_labels=5)
    theirs = moved(transformers.SiglipForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    clip, variables = vp.clip.load(tmp_path)
    assert (clip.config.vision.pooling, clip.config.classes) == ("mean", 5)
    with torch.no_grad():
        check(clip.apply(variables, IMAGES), theirs(to_torch(IMAGES)).logits)


def test_naflex_is_refused(tmp_path):
    vision = {k: v for k, v in VISION.items() if k != "image_size"} | {"num_patches": 16}
    config = transformers.Siglip2Config(vision_config=vision, text_config=TEXT)
    transformers.Siglip2Model(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"holds a SigLIP 2 for images of any shape \(NaFlex\)"):
        vp.clip.load(tmp_path)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("SigLIP")])
def test_number_of_parameters(name):
    c = VARIANTS[name]

    def sizes(tower):
        return dict(
            hidden_size=tower.width,
            num_hidden_layers=tower.layers,
            num_attention_heads=tower.heads,
            intermediate_size=tower.mlp_width or 4 * tower.width,
        )

    side, patch, text = c.image_resolution, c.vision.patch_size, c.text
    config = transformers.SiglipConfig(
        vision_config=sizes(c.vision) | dict(image_size=side, patch_size=patch),
        text_config=sizes(text)
        | dict(
            vocab_size=text.vocab_size,
            max_position_embeddings=text.context_length,
            projection_size=c.embed_dim,
            bos_token_id=None,
            eos_token_id=text.end_token,
        ),
    )
    with torch.device("meta"):
        theirs = sum(p.numel() for p in transformers.SiglipModel(config).parameters())
    assert sum(int(np.prod(shape)) for shape in variable_shapes(c).values()) == theirs


HARD = [
    "", " ", "a", "A photo of a CAT.", "  two  spaces\tand\na line ", "it's the dog's 2nd bone!",
    "ÄÖÜ naïve façade", "ΣΊΣΥΦΟΣ ΟΔΟΣ", "İstanbul ISPARTA \u0131", "猫と犬", "🐈‍⬛ 👩‍👩‍👧",
    "a\u00a0b\u2009c",
    "x\u200by", "ﬁne ﬂow №5 ½", "e\u0301 é", "\u2581under_score\u2581", "!!!???...", "<b>bold</b>",
    "{}", "under_score-and-hyphen", "C++ & C#", "100% 3.14 1,000", "\\back/slash",
    "“quotes” \u2018too\u2019",
    "ẞ ß", "Ǆ ǅ ǆ", "\ufeffmark", "a\x00b",
    "\U0001d518\U0001d52b\U0001d526", "한국어", "עברית", "مرحبا", "ไทย",
]  # fmt: skip


def hard_texts(count=300):
    """Hand-picked texts, and random mixtures of pieces of them and of words."""
    rng = random.Random(0)
    words = (ROOT / "README.md").read_text().split()
    texts = list(HARD)
    while len(texts) < count:
        parts = rng.choices(
            [*HARD, *rng.sample(words, 20), " ", ",", "-", "\n"], k=rng.randint(1, 6)
        )
        texts.append(rng.choice(["", " "]).join(parts))
    return texts


@pytest.fixture(scope="module")
def model():
    """A SigLIP for texts of 64 tokens and a vocabulary of at most 900."""
    text = TEXT | dict(max_position_embeddings=64, vocab_size=900)
    return transformers.SiglipModel(
        transformers.SiglipConfig(vision_config=VISION, text_config=text)
    )


def compare(folder, theirs, texts):
    """Token ids of texts against transformers'."""
    clip, _ = vp.clip.load(folder)
    ours = vocabularies.token_ids(clip.config.text, clip.vocabulary, texts, truncate=True)
    expected = theirs(
        texts, padding="max_length", max_length=64, truncation=True, return_tensors="np"
    )["input_ids"]
    different = [t for t, a, b in zip(texts, ours, expected, strict=True) if (a != b).any()]
    assert not different
    assert len({row.tobytes() for row in ours}) > 200


def sentence_pieces(folder):
    spm = pytest.importorskip("sentencepiece")
    lines = (ROOT / "README.md").read_text().lower().split("\n")
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "spiece"), vocab_size=500,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.vocab").unlink()
    return folder / "spiece.model"


def test_tokens_of_siglip(model, tmp_path):
    pytest.importorskip("google.protobuf")
    file = sentence_pieces(tmp_path)
    theirs = transformers.SiglipTokenizer(str(file))
    model.save_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    compare(tmp_path, theirs, hard_texts())
    # The same vocabulary as a tokenizer.json, which comes before the other file.
    from transformers.convert_slow_tokenizer import SpmConverter

    SpmConverter(theirs).converted().save(str(tmp_path / "tokenizer.json"))
    assert vp.clip.load(tmp_path)[0].vocabulary.endswith("tokenizer.json")
    compare(tmp_path, theirs, hard_texts())


def test_tokens_of_siglip_2(model, tmp_path):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(fuse_unk=True, unk_token="<unk>", byte_fallback=True))
    bpe.normalizer = normalizers.Replace(" ", "\u2581")
    bpe.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=800, show_progress=False,
        special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)],
    )  # fmt: skip
    bpe.train_from_iterator((ROOT / "README.md").read_text().lower().split("\n"), trainer)
    learned = json.loads(bpe.to_str())["model"]
    theirs = transformers.Siglip2Tokenizer(
        vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]],
        add_bos_token=False, add_eos_token=True, padding_side="right",
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    compare(tmp_path, theirs, [*hard_texts(), "an <eos> and <EOS>", "<pad><bos> x"])


@pytest.mark.parametrize("name", ["Siglip2Tokenizer", "GemmaTokenizer"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"add_bos_token": True},
        {"add_bos_token": True, "add_eos_token": False},
        {"add_bos_token": False, "add_eos_token": True},
        {"padding_side": "left"},
        {"padding_side": None},
    ],
)
def test_settings_count_as_in_transformers(tmp_path, name, change):
    """Of the recorded vocabulary: the ids are the library's, or the settings are refused."""
    shutil.copytree(GOLDEN / "siglip_tiny", tmp_path / "siglip")
    file = tmp_path / "siglip" / "tokenizer_config.json"
    said = json.loads(file.read_text()) | {"tokenizer_class": name} | change
    file.write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
    (tmp_path / "siglip" / "config.json").rename(tmp_path / "config.json")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "siglip")
    (tmp_path / "config.json").rename(tmp_path / "siglip" / "config.json")
    text = "a cat on a mat"
    expected = theirs([text], padding="max_length", max_length=24)["input_ids"]
    if theirs.padding_side == "left":
        with pytest.raises(UserError, match="asks for padding_side='left'"):
            vp.clip.load(tmp_path / "siglip")
    else:
        clip, _ = vp.clip.load(tmp_path / "siglip")
        assert (
            vocabularies.token_ids(clip.config.text, clip.vocabulary, [text]).tolist() == expected
        )


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("height, width", [(50, 70), (20, 90), (200, 34)])
def test_images_are_resized_alike(tmp_path, model, resample, height, width):
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    theirs = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=resample)
    model.save_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    c = vp.clip.load(tmp_path)[0].config
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = theirs(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
    ours = vp.clip.preprocess(image, c.image_resolution, c.mean, c.std, mode=c.resize)
    np.testing.assert_allclose(ours.transpose(2, 0, 1), expected, atol=1e-5)

"""CoCa in OpenCLIP's layout, against recorded outputs of OpenCLIP, and what else is made of it.

The recorded model has random weights of 16 bits, all of them moved, and no number of heads or eps
that is a default.
"""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import vprompt_jax as vp
from tests.adapters.conftest import random_variables
from tests.conftest import GOLDEN, TINY
from vprompt_jax.clip import CLIP, class_texts
from vprompt_jax.clip.text import seen
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast

COCA = GOLDEN / "coca_tiny"
WEIGHTS = "open_clip_model.safetensors"


def texts(pad=0, full=9):
    """Ids of texts of several lengths; the first fills all places, one holds the padding's id."""
    tokens = np.random.default_rng(1).integers(8, 90, (6, full)).astype(np.int32)
    for row, length in enumerate((full, full - 1, 5, 5, 2, 1)):
        tokens[row, length - 1] = 98
        tokens[row, length:] = pad
    tokens[3, 2] = pad
    return tokens


@pytest.fixture(scope="module")
def recorded():
    return dict(np.load(GOLDEN / "coca_tiny.io.npz"))


@pytest.fixture(scope="module")
def coca():
    return vp.clip.load(COCA)


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours, np.float32) - theirs).max() / np.abs(theirs).max()


def test_it_agrees_with_open_clip(coca, recorded):
    clip, variables = coca
    images = recorded["images_nchw"].transpose(0, 2, 3, 1)
    got = jax.jit(lambda v: clip.apply(v, images, method="encode_image"))(variables)
    assert relative_error(got, recorded["image_features"]) < 1e-4
    got = jax.jit(lambda v: clip.apply(v, recorded["tokens"], method="encode_text"))(variables)
    for ours, theirs in zip(got, recorded["text_features"], strict=True):
        assert relative_error(ours, theirs) < 1e-4


def test_bfloat16_points_the_same_way(recorded):
    clip, variables = vp.clip.load(COCA, dtype="bfloat16")
    images = recorded["images_nchw"].transpose(0, 2, 3, 1)
    pairs = (
        (clip.apply(variables, images, method="encode_image"), recorded["image_features"]),
        (
            clip.apply(variables, recorded["tokens"], method="encode_text"),
            recorded["text_features"],
        ),
    )
    for ours, theirs in pairs:
        ours = np.asarray(ours, np.float32)
        sizes = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        assert ((ours * theirs).sum(1) / sizes).min() > 0.999


def test_what_the_files_say_is_in_the_config(coca):
    c = coca[0].config
    vision, text = c.vision, c.text
    assert (vision.pooling, vision.final_norm, vision.pool_class) == ("query", "after", True)
    assert (vision.heads, vision.pool_heads, c.embed_dim, vision.width) == (3, 4, 16, 24)
    assert (text.pooling, text.context_length, text.pad_token) == ("class", 9, 0)
    assert text.tokenizer == "clip"


def test_what_writes_captions_is_left_out_and_said(caplog):
    from vprompt_jax.clip import __main__ as main_lib

    clip, variables = vp.clip.load(COCA)
    assert clip.config.has_text
    message = (
        "the weights that write captions (text_decoder.*) are left out, as are the 2 of 3 queries "
        "in visual.attn_pool.query that only they read"
    )
    assert message in caplog.text
    shown = main_lib.inspect(main_lib.parser().parse_args(["inspect", str(COCA)]))
    assert message in shown
    names = load_file(COCA / WEIGHTS)
    decoder = sum(t.size for n, t in names.items() if n.startswith("text_decoder."))
    whole = sum(t.size for t in names.values())
    assert sum(x.size for x in jax.tree.leaves(variables)) == whole - decoder - 2 * 16


def test_positions_meet(coca, recorded):
    clip, variables = coca
    images = recorded["images_nchw"].transpose(0, 2, 3, 1)
    whole = clip.apply(variables, images, method="encode_image")
    for position in range(clip.config.depth + 1):
        x = clip.apply(variables, images, stop=position, method="encode_image")
        x = clip.apply(variables, x, start=position, method="encode_image")
        np.testing.assert_array_equal(x, whole)


def changed(folder, tensors=None, **parts):
    """A copy of the recorded model with other tensors, and with changes of its config's parts."""
    folder = folder / "changed"
    shutil.copytree(COCA, folder)
    if tensors is not None:
        save_file(tensors, folder / WEIGHTS)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    for part, change in parts.items():
        target = config["model_cfg"] if part == "model" else config["model_cfg"][part]
        target |= change
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "parts, message",
    [
        (
            {"vision_cfg": {"attentional_pool": False}},
            "attentional_pool False, the weights have Tr",
        ),
        (
            {"vision_cfg": {"attentional_pool": "cascade"}},
            "attentional_pool='cascade', which is no",
        ),
        ({"vision_cfg": {"pool_type": "avg"}}, "pool_type='avg' of what attentional_pool gives"),
        ({"vision_cfg": {"attn_pooler_heads": 3}}, "3 pool_heads do not divide 16"),
        ({"text_cfg": {"embed_cls": False}}, "embed_cls False, the weights have True"),
        ({"text_cfg": {"context_length": 10}}, "text.context_length 10, the weights have 9"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, parts, message):
    with pytest.raises(UserError, match=message) as error:
        vp.clip.load(changed(tmp_path, **parts))
    assert "\n" not in str(error.value)


def test_without_its_config_it_says_what_to_put_where(tmp_path):
    folder = changed(tmp_path)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(UserError, match=r"only open_clip_config\.json says how many heads"):
        vp.clip.load(folder)


@pytest.mark.parametrize("left_out", ["cls_emb", "attn_pool.ln_k.bias", "attn.q_proj_weight"])
def test_missing_tensors_are_named(tmp_path, left_out):
    tensors = {n: t for n, t in load_file(COCA / WEIGHTS).items() if not n.endswith(left_out)}
    message = "context_length 9, the weights have 10" if left_out == "cls_emb" else left_out
    with pytest.raises(UserError, match=message):
        vp.clip.load(changed(tmp_path, tensors))


def test_the_packages_own_format_keeps_it(tmp_path, coca):
    from vprompt_jax.clip import __main__ as main_lib

    out = tmp_path / "w.safetensors"
    args = ["convert", str(COCA), str(out), "--dtype", "float32"]
    main_lib.convert(main_lib.parser().parse_args(args))
    clip, variables = vp.clip.load(out)
    assert clip.config == coca[0].config
    jax.tree.map(np.testing.assert_array_equal, variables, coca[1])


def test_what_a_texts_own_token_sees():
    """All but what follows padding: the first padding, and itself behind a full text alone."""
    tokens = np.array([[5, 6, 7, 8], [5, 6, 7, 0], [5, 0, 0, 0]])
    expected = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]
    np.testing.assert_array_equal(seen(tokens, 0), np.array(expected, bool))


# Texts of CLIP's own vocabulary, whose text tower has a token of its own.

OWN = TINY.with_fields({"text.pooling": "class"})


def test_texts_are_given_whole():
    """Where a text's own token stands and what it sees depends on the padding."""
    clip, variables = CLIP(OWN), random_variables(OWN)
    sentences = [["a cat"], ["a photo of a dog"]]
    tokens = class_texts.tokens_of(clip, sentences)[:, 0]
    assert tokens.shape[1] == OWN.text.context_length
    np.testing.assert_array_equal(class_texts.without_padding(tokens, OWN.text), tokens)
    got = class_texts.encode_texts(clip, variables, sentences)[:, 0]
    expected = vp.clip.unit_norm(clip.apply(variables, tokens, method="encode_text"))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)

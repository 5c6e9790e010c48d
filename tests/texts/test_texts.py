"""Learned context and low-rank additions in the text tower, against a loop over tokens by hand."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.adapters.conftest import random_variables
from tests.conftest import TINY
from vprompt_jax.adaptation import adapt
from vprompt_jax.clip import CLIP
from vprompt_jax.clip.class_texts import tokens_of
from vprompt_jax.config import default_config, resolve
from vprompt_jax.evaluate import elsewhere
from vprompt_jax.export import files as export
from vprompt_jax.inference import adapted as inference
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit

NAMES = ("seven", "polar bear", "u.s. flag")
WIDTH, TOKENS = 64, 5


@pytest.fixture(scope="module")
def tower():
    return CLIP(TINY), random_variables(TINY)


@pytest.fixture(scope="module", params=["end", "class"])
def either_tower(request):
    """CLIP's, and one whose texts have a token of their own behind them, as CoCa's."""
    config = TINY.with_fields({"text.pooling": request.param})
    return CLIP(config), random_variables(config)


def adaptation(tower, **keys):
    config = default_config()
    config.method.name = "tp"
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
    return adapt(resolve(config), *tower, NAMES, ("a {}",))


def by_hand(tower, rows):
    """Features of unit length of sequences of embeddings [C, N, D], whose ends are given."""
    clip, variables = tower
    features = []
    for embeddings, tokens in rows:

        def tap(position, x, embeddings=embeddings):
            return embeddings[None] if position == "embeddings" else x

        found = clip.apply(variables, tokens[None], tap=tap, method="encode_text")[0]
        features.append(found / np.linalg.norm(found))
    return np.stack(features)


PLACES = {"end": (5, 0), "middle": (2, 3), "front": (0, 5)}


@pytest.mark.parametrize("kind", ["unified", "class"])
@pytest.mark.parametrize("position", PLACES)
def test_context_stands_around_the_class_name(either_tower, kind, position):
    """Each text is put together token by token: start, vectors, name, vectors, full stop, end."""
    clip, variables = tower = either_tower
    made = adaptation(tower, context__kind=kind, context__tokens=TOKENS, context__position=position)
    shape = (TOKENS, WIDTH) if kind == "unified" else (3, TOKENS, WIDTH)
    assert {k: v.shape for k, v in made.initial_params()["context"].items()} == {"vectors": shape}
    vectors = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    params = {"context": {"vectors": jnp.asarray(vectors)}}
    table = variables["params"]["text"]["token_embedding"]["embedding"]
    bare = tokens_of(clip, [[f"{name}."] for name in NAMES])[:, 0]
    before, after = PLACES[position]
    rows = []
    for c, ids in enumerate(bare):
        own = vectors if kind == "unified" else vectors[c]
        length = int(ids.argmax())  # of the start and the name with its full stop
        name, stop = table[ids[1 : length - 1]], table[ids[length - 1 : length]]
        first, last = table[ids[:1]], table[ids[length : length + 1]]
        parts = [first, own[:before], name, own[before : before + after], stop, last]
        rest = table[np.zeros(16 - sum(map(len, parts)), int)]
        tokens = np.zeros(16, np.int32)
        tokens[: length + TOKENS] = 1  # any but the padding
        tokens[length + TOKENS] = ids.max()
        rows.append((np.concatenate([*parts, rest]), tokens))
    _, inferred = made.at_inference(params, {})
    found = inferred["constants"]["text_features"]
    np.testing.assert_allclose(found, by_hand(tower, rows), rtol=1e-4, atol=1e-5)


def test_low_rank_additions_are_those_of_changed_kernels(tower):
    clip, variables = tower
    keys = dict(text_lora__rank=2, text_lora__alpha=3.0, text_lora__targets=("q", "v", "proj"))
    made = adaptation(tower, **keys)
    fresh = made.initial_params()
    sizes = {k: v.shape for k, v in fresh["text_lora"]["additions"].items()}
    assert sum(np.prod(shape) for shape in sizes.values()) == 2 * (2 * 2 * WIDTH + 5 * WIDTH)
    plain = made.frozen["constants"]["text_features"]
    first = made.at_inference(fresh, {})[1]["constants"]["text_features"]
    np.testing.assert_allclose(first, plain, rtol=1e-5, atol=1e-6)

    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: rng.normal(0, 0.2, p.shape).astype(np.float32), fresh)
    given = params["text_lora"]["additions"]
    changed = jax.tree.map(np.array, variables)
    block = changed["params"]["text"]["resblocks_0"]
    for target, kernel, columns in [
        ("q", block["attn"]["in_proj"]["kernel"], slice(0, 64)),
        ("v", block["attn"]["in_proj"]["kernel"], slice(128, 192)),
        ("proj", block["mlp"]["c_proj"]["kernel"], slice(None)),
    ]:
        added = given[f"resblocks_0_{target}_a"] @ given[f"resblocks_0_{target}_b"]
        kernel[:, columns] += 1.5 * added
    tokens = tokens_of(clip, [[f"a {name}"] for name in NAMES])[:, 0]
    expected = clip.apply(changed, tokens, method="encode_text")
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    found = made.at_inference(params, {})[1]["constants"]["text_features"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - plain).max() > 1e-2


REFUSED = [
    (dict(context__kind="unified", context__tokens=13), "leaves no room for a class name"),
    (
        dict(context__kind="unified", context__tokens=4, head__kind="linear"),
        "config.context acts on the classes' texts",
    ),
    (dict(text_lora__rank=65), "over the tower's width 64"),
    (dict(text_lora__rank=2, text_lora__targets=("w",)), "choose from q, k, v"),
]


@pytest.mark.parametrize("keys, message", REFUSED)
def test_what_does_not_fit_is_refused(tower, keys, message):
    with pytest.raises(UserError, match=message):
        adaptation(tower, **keys)


def test_a_checkpoint_without_a_text_tower_is_refused(tower):
    bare = CLIP(dataclasses.replace(TINY, text=None))
    off = {"config.context.kind=none": "unified", "config.text_lora.rank=0": 2}
    for remedy, value in off.items():
        keys = {remedy.removeprefix("config.").split("=")[0].replace(".", "__"): value}
        with pytest.raises(UserError, match=f"has no text tower: set {re.escape(remedy)}"):
            adaptation((bare, tower[1]), **keys)


def trained(config, folder, **keys):
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
    config.context.tokens, config.context.learning_rate = 4, 0.1
    config.data.few_shot, config.optim.batch_size = 8, 40
    return fit(config, folder)


def test_a_run_with_learned_texts_trains_on_cached_features_and_is_used(
    tiny_config, tmp_path, capsys
):
    result = trained(tiny_config, tmp_path / "run", method__name="coop")
    assert result["trainable_parameters"] == 4 * WIDTH
    assert "activations at position 2" in capsys.readouterr().err  # the features
    model = inference.load(tmp_path / "run")
    images = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    export.write(model, tmp_path / "export")
    np.testing.assert_allclose(
        export.load(tmp_path / "export").logits(images), model.logits(images), rtol=1e-5
    )
    # Other classes are recognised with the same context.
    other, labels = elsewhere.fitted(model, ("cat", "dog"))
    assert other.logits(images).shape == (4, 2)
    assert labels.tolist() == [0, 1]


def test_contexts_of_classes_know_no_others(tiny_config, tmp_path):
    keys = dict(method__name="coop", context__kind="class")
    result = trained(tiny_config, tmp_path / "run", **keys)
    assert result["trainable_parameters"] == 10 * 4 * WIDTH
    with pytest.raises(UserError, match=r"config\.context learned belongs to its own classes"):
        elsewhere.fitted(inference.load(tmp_path / "run"), ("cat", "dog"))

"""The cache of Tip-Adapter against loops in NumPy: its logits, its filling, its search."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.adapters.conftest import random_variables
from tests.conftest import TINY
from vprompt_jax.adaptation.build import build
from vprompt_jax.clip import CLIP
from vprompt_jax.config import default_config, resolve
from vprompt_jax.heads import cache, caching
from vprompt_jax.parts import Examples, Found, HeadInputs
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)
CLASSES, PER_CLASS, WIDTH = 3, 4, 5
SIZES = np.array([4, 1, 3], np.int32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


TEXTS = unit(RNG.normal(size=(CLASSES, WIDTH))).astype(np.float32)
KEYS = unit(RNG.normal(size=(CLASSES, PER_CLASS, WIDTH))).astype(np.float32)
FEATURES = (5 * RNG.normal(size=(40, WIDTH))).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, 40).astype(np.int32)


def given(alpha=1.5, beta=2.0, sizes=SIZES, **more):
    arrays = {"cache_sizes": sizes, "cache_alpha": np.float32(alpha)}
    arrays |= {"cache_beta": np.float32(beta)} | more
    return HeadInputs(
        texts=lambda: jnp.asarray(TEXTS),
        logit_scale=lambda: jnp.float32(1.0),
        logit_bias=lambda: jnp.float32(0.0),
        source_logits=lambda features: features,
        assigned=arrays,
    )


def logits_by_hand(features, alpha, beta):
    """The paper's formula in float64, a key at a time."""
    logits = np.e * unit(features.astype(np.float64)) @ TEXTS.T
    for b, c in np.ndindex(logits.shape):
        for p in range(SIZES[c]):
            cosine = unit(features[b].astype(np.float64)) @ KEYS[c, p]
            logits[b, c] += alpha * np.exp(-beta * (1 - cosine))
    return logits


@pytest.mark.parametrize("trains", [False, True])
def test_logits_are_clips_and_the_caches(trains):
    head = cache.CacheHead(CLASSES, PER_CLASS, trains)
    params = {"params": {"keys": KEYS}} if trains else {}
    arrays = {} if trains else {"cache_keys": KEYS}
    logits, out = head.apply(params, FEATURES, given(**arrays))
    np.testing.assert_allclose(logits, logits_by_hand(FEATURES, 1.5, 2.0), rtol=1e-5, atol=1e-5)
    assert out == {}
    assert logits.dtype == np.float32


def test_an_empty_cache_adds_nothing():
    head = cache.CacheHead(CLASSES, PER_CLASS, trains=False)
    inputs = given(sizes=np.zeros(CLASSES, np.int32), cache_keys=np.zeros_like(KEYS))
    logits, _ = head.apply({}, FEATURES, inputs)
    np.testing.assert_allclose(logits, np.e * unit(FEATURES) @ TEXTS.T, rtol=1e-5, atol=1e-6)


def test_missing_keys_have_no_gradient():
    head = cache.CacheHead(CLASSES, PER_CLASS, trains=True)

    def loss(keys):
        logits = head.apply({"params": {"keys": keys}}, FEATURES, given())[0]
        return -jnp.sum(jax.nn.log_softmax(logits)[jnp.arange(40), LABELS])

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(KEYS)))
    for c, size in enumerate(SIZES):
        assert (np.abs(gradient[c, :size]).max(-1) > 0).all()
        assert not gradient[c, size:].any()


def test_the_cache_keeps_the_first_images_of_a_class_in_order():
    labels = np.array([2, 0, 0, 2, 0, 2, 2, 0, 0], np.int32)  # five, none and four
    features = RNG.normal(size=(9, WIDTH)).astype(np.float32)
    keys, sizes = caching.cache_of(Examples(features, labels), CLASSES, PER_CLASS)
    assert sizes.tolist() == [4, 0, 4]
    assert keys.dtype == np.float32
    np.testing.assert_allclose(keys[0], unit(features[[1, 2, 4, 7]]), rtol=1e-6)
    np.testing.assert_allclose(keys[2], unit(features[[0, 3, 5, 6]]), rtol=1e-6)
    assert not keys[1].any()
    keys, sizes = caching.cache_of(Examples(features, labels), CLASSES, 6)
    assert sizes.tolist() == [5, 0, 4]
    assert not keys[2, 4:].any()


@pytest.mark.parametrize("kind", [caching.Cache, caching.TrainedCache])
def test_the_solver_starts_at_the_cache(kind):
    arrays = {"cache_sizes": np.zeros(CLASSES, np.int32), "cache_alpha": np.float32(3)}
    at = Found({"keys": np.zeros_like(KEYS)} if kind.before_steps else {}, arrays)
    found = kind(PER_CLASS, 3.0, 7.0).start(at, Examples(FEATURES, LABELS), None, given())
    keys, sizes = caching.cache_of(Examples(FEATURES, LABELS), CLASSES, PER_CLASS)
    where = found.params["keys"] if kind.before_steps else found.assigned["cache_keys"]
    np.testing.assert_array_equal(where, keys)
    np.testing.assert_array_equal(found.assigned["cache_sizes"], sizes)
    assert found.assigned["cache_alpha"] == 3
    facts = kind(PER_CLASS, 3.0, 7.0).facts(LABELS, found.assigned | {"cache_beta": 2.0})
    assert facts == {"cache": {"images": 12, "left_out": 28, "alpha": 3.0, "beta": 2.0}}
    assert "12 of 40 training images" in kind(PER_CLASS, 3.0, 7.0).warning(LABELS)
    assert kind(40, 3.0, 7.0).warning(LABELS) is None


def test_the_grid_is_that_of_the_authors():
    expected = [i * (7 - 0.1) / 200 + 0.1 for i in range(200)]
    np.testing.assert_allclose(caching.grid(0.1, 7, 200), expected, rtol=1e-6)


@pytest.mark.parametrize("at_once", [2**24, 7 * CLASSES * PER_CLASS])
def test_the_search_finds_what_a_loop_finds(monkeypatch, at_once):
    """In one piece, and in pieces of seven images of which the last is not full."""
    monkeypatch.setattr(caching, "_AT_ONCE", at_once)
    betas, alphas = caching.grid(0.1, 9, 15), caching.grid(0.1, 6, 10)
    hits, best = -1, None
    for beta in betas:
        for alpha in alphas:
            right = (logits_by_hand(FEATURES, alpha, beta).argmax(-1) == LABELS).sum()
            if right > hits:
                hits, best = right, (beta, alpha)
    found = caching.searched(Examples(FEATURES, LABELS), KEYS, SIZES, given(), betas, alphas)
    assert found == best
    assert hits > (logits_by_hand(FEATURES, 0.0, 1.0).argmax(-1) == LABELS).sum()


def config_of(kind, **keys):
    config = default_config()
    config.method.name = kind
    config.update_from_flattened_dict(keys)
    return config


@pytest.mark.parametrize("kind, trained", [("tip_adapter", {}), ("tip_adapter_f", {"head": 5 * 7})])
def test_the_number_of_parameters(kind, trained):
    resolved = resolve(config_of(kind, **{"head.per_class": 7}))
    parts = build(resolved, CLIP(TINY), random_variables(TINY), classes=5)
    params = parts.model.init_parts(jax.random.key(0))
    counts = {n: sum(leaf.size for leaf in jax.tree.leaves(tree)) for n, tree in params.items()}
    assert counts == {name: keys * TINY.embed_dim for name, keys in trained.items()}
    assert parts.model.entry == TINY.depth  # trains on cached features


REFUSED = [
    ({"prompt.template": "padding"}, r"the head alone.*set config\.prompt\.template=none"),
    ({"context.kind": "unified"}, r"the head alone.*set config\.context\.kind=none"),
    ({"lora.rank": 2, "ap.positions": (1,)}, r"config\.ap\.positions=\(\), config\.lora\.rank=0"),
    ({"data.augment": "flip"}, r"set config\.data\.augment=none"),
    ({"cache.mode": "off"}, r"set config\.cache\.mode=on"),
]


@pytest.mark.parametrize("kind", ["tip_adapter", "tip_adapter_f"])
@pytest.mark.parametrize("keys, message", REFUSED)
def test_what_changes_the_features_is_refused(kind, keys, message):
    with pytest.raises(UserError, match=rf"config\.head\.kind={kind} .*{message}"):
        resolve(config_of(kind, **keys))


@pytest.mark.parametrize("kind", ["tip_adapter", "tip_adapter_f"])
def test_what_the_command_line_asks_for_stays(kind):
    config = config_of(kind, **{"lora.rank": 2})
    with pytest.raises(UserError, match=r"without lora: set config\.head\.kind=clip_adapter$"):
        resolve(config, ["lora.rank"])


@pytest.mark.parametrize("key, value", [
    ("optim.label_smoothing", 0.1), ("optim.class_weights", "balanced"),
])  # fmt: skip
def test_keys_of_the_loss_are_for_keys_that_train(key, value):
    resolve(config_of("tip_adapter_f", **{key: value}))
    with pytest.raises(UserError, match=r"or config\.head\.kind=tip_adapter_f"):
        resolve(config_of("tip_adapter", **{key: value}))


@pytest.mark.parametrize("kind", ["tip_adapter", "tip_adapter_f"])
def test_a_checkpoint_without_a_text_tower_is_refused(kind):
    bare = CLIP(dataclasses.replace(TINY, text=None))
    with pytest.raises(UserError, match=rf"head\.kind={kind} .*set config\.head\.kind=linear"):
        build(resolve(config_of(kind)), bare, random_variables(TINY), classes=5)

"""Heads against loops in NumPy, and what the label map counts and assigns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vprompt_jax.heads import feature_adapter, linear, mapping, probe, sigmoid, text
from vprompt_jax.parts import HeadInputs

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(6, 5)).astype(np.float32)


def given(**assigned):
    """Three classes' texts, a scale of e^2, and a source classifier of four classes."""
    texts = RNG.normal(size=(3, 5)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=-1, keepdims=True)
    kernel = RNG.normal(size=(5, 4)).astype(np.float32)
    return HeadInputs(
        texts=lambda: texts,
        logit_scale=lambda: jnp.float32(2.0),
        logit_bias=lambda: jnp.float32(-3.0),
        source_logits=lambda features: features @ kernel,
        assigned=assigned,
    )


def test_text_head_is_the_scaled_cosine():
    inputs = given()
    logits, out = text.TextHead().apply({}, FEATURES, inputs)
    assert out == {}
    for b, c in np.ndindex(6, 3):
        cosine = FEATURES[b] @ inputs.texts()[c] / np.linalg.norm(FEATURES[b])
        assert logits[b, c] == pytest.approx(np.exp(2.0) * cosine, rel=1e-4, abs=1e-5)


def test_sigmoid_head_has_a_bias_and_decides_each_class_by_itself():
    inputs, labels = given(), np.array([0, 2, 1, 1, 0, 2], np.int32)
    head = sigmoid.SigmoidHead()
    logits, _ = head.apply({}, FEATURES, inputs)
    np.testing.assert_allclose(
        logits, text.TextHead().apply({}, FEATURES, inputs)[0] - 3.0, rtol=1e-6
    )
    for smoothing in (0.0, 0.3):
        losses = head.losses(logits, labels, smoothing)
        for b in range(6):
            expected = 0.0
            for c in range(3):
                right = float(np.log1p(np.exp(-np.float64(logits[b, c]))))
                wrong = float(np.log1p(np.exp(np.float64(logits[b, c]))))
                target = (1 - smoothing) * (c == labels[b]) + smoothing / 3
                expected += target * right + (1 - target) * wrong
            assert losses[b] == pytest.approx(expected, rel=1e-5)


def test_other_heads_lose_the_cross_entropy():
    logits = RNG.normal(size=(4, 3)).astype(np.float32)
    labels = np.array([2, 0, 1, 1], np.int32)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for smoothing in (0.0, 0.3):
        for b in range(4):
            target = (1 - smoothing) * np.eye(3)[labels[b]] + smoothing / 3
            loss = text.TextHead.losses(logits, labels, smoothing)[b]
            assert loss == pytest.approx(-(target * log_p[b]).sum(), rel=1e-5)


def test_linear_head_starts_at_zero_and_sees_features_of_unit_length():
    head = linear.LinearHead(3)
    params = head.init(jax.random.key(0), 5, method="create")
    assert {k: v.shape for k, v in params["params"]["dense"].items()} == {
        "kernel": (5, 3),
        "bias": (3,),
    }
    assert not head.apply(params, FEATURES)[0].any()
    moved = jax.tree.map(lambda p: RNG.normal(size=p.shape).astype(np.float32), params)
    dense = moved["params"]["dense"]
    unit = FEATURES / np.linalg.norm(FEATURES, axis=-1, keepdims=True)
    expected = unit @ dense["kernel"] + dense["bias"]
    for scale in (1.0, 50.0):
        logits, _ = head.apply(moved, scale * FEATURES)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_clip_adapter_is_a_share_of_a_bottleneck_without_biases():
    head = feature_adapter.FeatureAdapterHead(reduction=2, ratio=0.3)
    params = head.init(jax.random.key(0), 5, method="create")["params"]
    assert {k: v.shape for k, v in params.items()} == {"down": (5, 2), "up": (2, 5)}
    inputs = given()
    logits, _ = head.apply({"params": params}, FEATURES, inputs)
    for b in range(6):
        hidden = np.maximum(FEATURES[b] @ params["down"], 0)
        mixed = 0.3 * np.maximum(hidden @ params["up"], 0) + 0.7 * FEATURES[b]
        cosines = inputs.texts() @ mixed / np.linalg.norm(mixed)
        np.testing.assert_allclose(logits[b], np.exp(2.0) * cosines, rtol=1e-4, atol=1e-5)


def test_mapping_head_gives_the_assigned_sources_logits():
    inputs = given(label_map=np.array([2, 0, 3], np.int32))
    logits, out = mapping.MappingHead().apply({}, FEATURES, inputs)
    source = inputs.source_logits(FEATURES)
    np.testing.assert_array_equal(logits, source[:, [2, 0, 3]])
    np.testing.assert_array_equal(out["source_logits"], source)


@pytest.mark.parametrize(
    "kind, due", [("random", []), ("frequency", [0]), ("iterative", [0, 3, 6])]
)
def test_when_a_label_map_is_assigned(kind, due):
    label_map = mapping.LabelMap(kind, classes=3, sources=4)
    assert [step for step in range(9) if label_map.is_due(step, 3, 9)] == due
    first = label_map.initial(5)["label_map"]
    assert len(set(first.tolist())) == 3
    np.testing.assert_array_equal(first, mapping.random_map(5, 3, 4))


def test_a_label_map_counts_examples_and_leaves_padding_out():
    label_map = mapping.LabelMap("iterative", classes=2, sources=3)
    labels, sources, weights = [0, 0, 1, 1, 0], [2, 2, 1, 2, 0], [1.0, 1.0, 1.0, 1.0, 0.0]
    batch = {"label": jnp.array(labels), "weight": jnp.array(weights)}
    out = {"source_logits": jax.nn.one_hot(jnp.array(sources), 3)}
    counts = np.asarray(label_map.counts([(jnp.zeros(()), out)], batch))
    np.testing.assert_array_equal(counts, [[0, 0, 2], [0, 1, 1]])
    # The largest count, two of class 0 taken for source 2, decides first.
    np.testing.assert_array_equal(label_map.assigned(counts)["label_map"], [2, 1])


@pytest.mark.parametrize("classes", [2, 3])
def test_the_solved_probe_separates_classes_and_never_says_one_it_has_not_seen(classes):
    centres = np.eye(5, dtype=np.float32)[:classes]
    labels = np.arange(60) % classes
    features = centres[labels] + 0.05 * RNG.normal(size=(60, 5)).astype(np.float32)
    head = linear.LinearHead(classes + 1)
    params = head.init(jax.random.key(0), 5, method="create")["params"]
    for val in (None, (features, labels)):
        solved = probe.solved(params, (features, labels), val)
        assert jax.tree.map(np.shape, solved) == jax.tree.map(np.shape, params)
        logits, _ = head.apply({"params": solved}, features)
        np.testing.assert_array_equal(logits.argmax(-1), labels)


@pytest.mark.parametrize("mapping_kind", ["bayesian", "bayesian_top"])
def test_label_weights_against_a_loop(mapping_kind):
    """For 14 classes and so two of eight sources that count; the last example is padding."""
    classes, sources, examples = 14, 20, 50
    weights = mapping.LabelWeights(mapping_kind, classes=classes, sources=sources)
    logits = RNG.normal(size=(examples, sources)).astype(np.float32)
    labels = np.append(np.arange(classes), RNG.integers(0, classes, examples - classes))
    weight = np.append(np.ones(examples - 1, np.float32), np.float32(0))
    batch = {"label": jnp.asarray(labels), "weight": jnp.asarray(weight)}
    out = {"source_logits": jnp.asarray(logits)}
    counts = np.asarray(weights.counts([(jnp.zeros(()), out)], batch))
    expected = np.zeros((classes, sources))
    for x, label in list(zip(logits, labels, strict=True))[:-1]:
        powers = np.exp(x - x.max())
        order = np.argsort(-x)
        if mapping_kind == "bayesian":
            expected[label, order[0]] += 1
        else:
            for k in order[: int(0.15 * classes)]:
                expected[label, k] += powers[k] / powers.sum()
    np.testing.assert_allclose(counts, expected, rtol=1e-5, atol=1e-6)
    found = weights.assigned(counts)["label_weights"]
    for c in range(classes):
        shares = [expected[c, k] / (expected[:, k].sum() + 1) for k in range(sources)]
        np.testing.assert_allclose(found[c], np.array(shares) / sum(shares), rtol=1e-5, atol=1e-7)
    inputs = given(label_weights=found[:3, :4])
    logits, _ = mapping.MappingHead().apply({}, FEATURES, inputs)
    by_hand = inputs.source_logits(FEATURES) @ found[:3, :4].T
    np.testing.assert_allclose(logits, by_hand, rtol=1e-5, atol=1e-6)
    assert [step for step in range(7) if weights.is_due(step, 3, 7)] == [0, 3, 6]
    fewer = mapping.LabelWeights(mapping_kind, classes=7, sources=3).initial(5)["label_weights"]
    assert fewer.shape == (7, 3)
    assert (fewer.sum(1) == 1).all()

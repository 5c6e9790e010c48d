"""E2VPT's tokens, keys and values against a transformer in NumPy, forward and backward."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.adapters.conftest import Adapted, random_variables
from tests.conftest import TINY

D, HEADS, L = 64, 2, 2
TOWER = dataclasses.replace(TINY, vision=dataclasses.replace(TINY.vision, heads=HEADS))
VARIABLES = random_variables(TOWER)
TOKENS, PAIRS = 3, 4
KEYS = {"vpt__kind": "key_value", "vpt__tokens": TOKENS, "vpt__pairs": PAIRS}


def norm(y, weights):
    centred = y - y.mean(-1, keepdims=True)
    unit = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
    return unit * weights["scale"] + weights["bias"]


def dense(y, weights):
    return y @ weights["kernel"] + weights["bias"]


def attention(y, weights, keys, values):
    """softmax([K', K] q) [V', V], one head and one query after the other."""
    q, k, v = np.split(dense(y, weights["in_proj"]), 3, axis=-1)
    out = np.zeros_like(y)
    for b, i in np.ndindex(y.shape[:2]):
        for h in range(HEADS):
            head = slice(h * D // HEADS, (h + 1) * D // HEADS)
            scores = np.concatenate([keys[:, head], k[b, :, head]]) @ q[b, i, head]
            share = np.exp(scores * (D // HEADS) ** -0.5)
            together = np.concatenate([values[:, head], v[b, :, head]])
            out[b, i, head] = share / share.sum() @ together
    return dense(out, weights["out_proj"])


def by_hand(tower, x, learned):
    """The tower's last blocks and its pooling, with tokens, keys and values put in."""
    for i in range(L):
        block = tower[f"resblocks_{i}"]
        tokens = np.broadcast_to(learned[f"tokens_{i}"], (len(x), TOKENS, D))
        x = np.concatenate([x[:, :1], tokens, x[:, 1 if i == 0 else 1 + TOKENS :]], axis=1)
        pairs = learned[f"resblocks_{i}_attn_keys_and_values"]
        keys, values = (pairs, pairs) if pairs.shape[-1] == D else np.split(pairs, 2, axis=-1)
        x = x + attention(norm(x, block["ln_1"]), block["attn"], keys, values)
        hidden = dense(norm(x, block["ln_2"]), block["mlp"]["c_fc"])
        x = x + dense(hidden / (1 + np.exp(-1.702 * hidden)), block["mlp"]["c_proj"])
    return norm(x[:, 0], tower["ln_post"]) @ tower["proj"]


@pytest.mark.parametrize("vectors", ["shared", "separate"])
def test_features_and_gradients_are_those_of_a_transformer_in_numpy(pixels, vectors):
    adapted = Adapted(TOWER, VARIABLES, **KEYS, vpt__vectors=vectors)
    params = adapted.params(seed=16)
    clip = {"params": adapted.frozen["params"]["clip"]}
    x = np.asarray(adapted.clip.apply(clip, pixels, stop=0, method="encode_image"), np.float64)
    tower = jax.tree.map(lambda w: np.asarray(w, np.float64), clip["params"]["visual"])
    learned = {name: np.asarray(value, np.float64) for name, value in params["vpt"].items()}
    expected = by_hand(tower, x, learned)
    np.testing.assert_allclose(adapted.features(params, pixels), expected, rtol=1e-4, atol=1e-5)

    gradient = jax.grad(lambda p: adapted.features(p, pixels)[:, 0].sum())(params)["vpt"]
    rng, step = np.random.default_rng(17), 1e-5
    for name, value in learned.items():
        direction = rng.normal(size=value.shape)
        ends = [
            by_hand(tower, x, {**learned, name: value + way * step * direction})[:, 0].sum()
            for way in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float((gradient[name] * direction).sum()) == pytest.approx(slope, rel=2e-3), name


def test_the_start_is_kaimings():
    """U(-v, v), v = sqrt(6 / fan_in), fan_in = pairs * channels of a head (torch, three axes)."""
    learned = Adapted(TOWER, VARIABLES, **{**KEYS, "vpt__pairs": 50}).params()["vpt"]
    bound = np.sqrt(6 / (50 * D / HEADS))
    for i in range(L):
        values = learned[f"resblocks_{i}_attn_keys_and_values"]
        assert values.shape == (50, D)
        assert 0.99 * bound < np.abs(values).max() <= bound
        assert abs(values.mean()) < 0.05 * bound


def test_keys_and_values_are_a_site_of_other_parts(pixels):
    """What is added to them can be added to that part of the projection's output."""
    whole, part = (f"resblocks_1/attn/{layer}" for layer in ("in_proj", "keys_and_values"))
    at_projection = Adapted(TOWER, VARIABLES, ap__positions=(whole,), ap__shape="channel")
    at_site = Adapted(TOWER, VARIABLES, ap__positions=(part,), ap__shape="channel")
    delta = np.random.default_rng(18).normal(size=2 * D).astype(np.float32)
    both = {"delta_resblocks_1_attn_in_proj": np.pad(delta, (D, 0))}
    np.testing.assert_array_equal(
        at_site.features({"ap": {"delta_resblocks_1_attn_keys_and_values": delta}}, pixels),
        at_projection.features({"ap": both}, pixels),
    )

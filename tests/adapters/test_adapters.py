"""Adapters: untouched towers at the start, counts from formulas, merges, identities, refusals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.adapters.conftest import Adapted
from vprompt_jax.adaptation.variables import for_inference
from vprompt_jax.clip.sites import sites_of
from vprompt_jax.parts.adapter import acting
from vprompt_jax.process.errors import UserError

D, N, L, E = 64, 17, 2, 16  # width, tokens, blocks and feature size of the tiny ViT

# Config keys -> parameters of the tiny ViT, from the sizes alone.
VIT_COUNTS = {
    "ap": (dict(ap__positions=(1,)), N * D),
    "ap at the features": (dict(ap__positions=(L,)), E),
    "ap per channel": (dict(ap__positions=(0, "resblocks_1/ln_2"), ap__shape="channel"), 2 * D),
    "gated ap": (dict(ap__positions=(0, 1), ap__gate=-2.0), 2 * (N * D + 1)),
    "vpt shallow": (dict(vpt__kind="shallow", vpt__tokens=3), 3 * D),
    "vpt deep": (dict(vpt__kind="deep", vpt__tokens=3), L * 3 * D),
    "gated tokens": (dict(vpt__kind="gated", vpt__tokens=3), 3 * D + (L - 1) + L),
    "keys and values": (dict(vpt__kind="key_value", vpt__tokens=3, vpt__pairs=4), L * (3 + 4) * D),
    "separate keys and values": (
        dict(vpt__kind="key_value", vpt__tokens=3, vpt__pairs=4, vpt__vectors="separate"),
        L * (3 + 2 * 4) * D,
    ),
    "adapter": (dict(adapter__width=4), L * 2 * (2 * 4 * D + 4 + D)),
    "adaptformer": (dict(adaptformer__width=4), L * (2 * 4 * D + 4 + D)),
    "lora": (dict(lora__rank=3), L * 2 * 3 * (D + D)),
    "dora": (dict(dora__rank=3), L * 2 * (3 * (D + D) + D)),
    "lora everywhere": (
        dict(lora__rank=2, lora__targets=("q", "k", "v", "out", "fc", "proj")),
        L * 2 * (4 * (D + D) + 2 * (D + 4 * D)),
    ),
    # Patches, two norms around the blocks; per block two norms, 3D, D, 4D and D channels.
    "ssf": (dict(ssf__kind="all"), 2 * (3 * D + L * (2 * D + 3 * D + D + 4 * D + D))),
    "norm": (dict(tune__weights="norm"), 2 * D * (2 + 2 * L)),
    "bitfit": (dict(tune__weights="bias"), D * 2 + L * (2 * D + 3 * D + D + 4 * D + D)),
}


def count(tree) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", VIT_COUNTS)
def test_parameter_counts_of_the_vit(towers, name):
    keys, expected = VIT_COUNTS[name]
    assert count(Adapted(*towers["vit"], **keys).params()) == expected


def test_parameter_counts_of_the_resnet(towers):
    """A stem of three norms of 4, 4, 8 channels; bottlenecks of 8 and 16 planes, four norms where
    they project, else three."""
    norms = 4 + 4 + 8 + (8 + 8 + 32 + 32) + (16 + 16 + 64 + 64) + (16 + 16 + 64)
    assert count(Adapted(*towers["resnet"], tune__weights="norm").params()) == 2 * norms
    assert count(Adapted(*towers["resnet"], ssf__kind="all").params()) == 2 * norms
    full = Adapted(*towers["resnet"], tune__weights="all")
    assert count(full.params()) == count(towers["resnet"][1]["params"]["visual"])
    adapter = Adapted(*towers["resnet"], adapter__width=4)
    channels = 32 + 64 + 64
    assert count(adapter.params()) == 2 * 4 * channels + 3 * 4 + channels


START_AS_THEY_WERE = {
    "vit": (
        "ap",
        "gated ap",
        "ap at the features",
        "adapter",
        "adaptformer",
        "lora",
        "ssf",
        "norm",
        "bitfit",
    ),
    "resnet": ("ap", "ap at the features", "adapter", "ssf", "norm", "bitfit"),
}


@pytest.mark.parametrize("tower", START_AS_THEY_WERE)
def test_fresh_adapters_leave_the_tower_bit_identical(towers, pixels, tower):
    plain = Adapted(*towers[tower])
    expected = plain.features({}, pixels)
    for name in START_AS_THEY_WERE[tower]:
        adapted = Adapted(*towers[tower], **VIT_COUNTS[name][0])
        fresh = adapted.features(adapted.params(), pixels)
        np.testing.assert_array_equal(fresh, expected, name)
        moved = adapted.features(adapted.params(seed=4), pixels)
        assert np.abs(moved - expected).max() > 1e-4, name


MERGED = {
    "vit": [
        dict(lora__rank=3, lora__targets=("q", "v", "out", "fc", "proj")),
        dict(dora__rank=3, dora__targets=("q", "v", "out", "fc", "proj")),
        dict(ssf__kind="all"),
        dict(tune__weights="norm"),
        dict(ap__positions=("resblocks_0/ln_2",), ap__shape="channel"),
        dict(ap__positions=("resblocks_0/ln_2", "ln_post"), ap__shape="channel", ap__gate=1.0),
        dict(
            lora__rank=2, ssf__kind="all", tune__weights="bias",
            ap__positions=("ln_post",), ap__shape="channel",
        ),
    ],
    "resnet": [dict(ssf__kind="all"), dict(ap__positions=("layer2_1/bn2",), ap__shape="channel")],
}  # fmt: skip


@pytest.mark.parametrize(
    "tower,keys", [(tower, keys) for tower, rows in MERGED.items() for keys in rows]
)
def test_merged_weights_give_the_same_features(towers, pixels, tower, keys):
    adapted, plain = Adapted(*towers[tower], **keys), Adapted(*towers[tower])
    params = adapted.params(seed=5)
    expected = adapted.features(params, pixels)
    tower_params = adapted.frozen["params"]["clip"]["visual"]
    folded = adapted.folded(params)
    shapes = {k: np.shape(v) for k, v in traverse_util.flatten_dict(folded).items()}
    assert shapes == {k: v.shape for k, v in traverse_util.flatten_dict(tower_params).items()}
    plain.frozen["params"]["clip"] = {**plain.frozen["params"]["clip"], "visual": folded}
    got = plain.features({}, pixels)
    assert np.abs(got - expected).max() < 2e-5 * np.abs(expected).max()
    assert np.abs(expected - Adapted(*towers[tower]).features({}, pixels)).max() > 1e-3


def test_what_cannot_be_merged_is_refused(towers):
    keys_of = dict(adapter__width=4), dict(adaptformer__width=4), dict(ap__positions=(1,))
    for keys in (*keys_of, dict(vpt__kind="key_value")):
        adapted = Adapted(*towers["vit"], **keys)
        with pytest.raises(ValueError, match="cannot be folded"):
            adapted.folded(adapted.params())


@pytest.mark.parametrize(
    "tower,layer", [("vit", "resblocks_1/ln_1"), ("vit", "ln_pre"), ("resnet", "layer1_0/bn2")]
)
def test_channel_prompts_are_bias_tuning_of_a_normalisation(towers, images, tower, layer):
    """Same outputs and same gradients (AP's tie to normalisation tuning)."""
    ap = Adapted(*towers[tower], ap__positions=(layer,), ap__shape="channel")
    tune = Adapted(*towers[tower], tune__weights="norm")
    delta = ap.params(seed=6)
    (name,) = delta["ap"]
    path = (*layer.split("/"), "bias")
    flat = traverse_util.flatten_dict(tune.params()["tune"])
    moved = traverse_util.unflatten_dict({**flat, path: flat[path] + delta["ap"][name]})

    def by_prompt(d):
        return jnp.square(ap.logits({"ap": {name: d}}, images)).mean()

    def by_bias(bias):
        tree = traverse_util.unflatten_dict({**flat, path: bias})
        return jnp.square(tune.logits({"tune": tree}, images)).mean()

    np.testing.assert_allclose(
        ap.logits(delta, images), tune.logits({"tune": moved}, images), rtol=1e-4, atol=1e-5
    )
    one = jax.grad(by_prompt)(delta["ap"][name])
    other = jax.grad(by_bias)(flat[path] + delta["ap"][name])
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


def test_a_gate_is_the_factor_of_its_positions_delta(towers, images):
    """Outputs, and both gradients by the chain rule, from the same prompt without a gate."""
    gated = Adapted(*towers["vit"], ap__positions=(0, 1), ap__gate=-2.0)
    plain = Adapted(*towers["vit"], ap__positions=(0, 1))
    params = gated.params(seed=19)
    assert gated.params()["ap"]["gate_1"] == -2.0
    share = {i: 1 / (1 + np.exp(-params["ap"][f"gate_{i}"])) for i in (0, 1)}
    deltas = {f"delta_{i}": params["ap"][f"delta_{i}"] for i in (0, 1)}
    reduced = {"ap": {name: share[int(name[-1])] * delta for name, delta in deltas.items()}}
    value, gradient = jax.value_and_grad(lambda p: jnp.square(gated.logits(p, images)).mean())(
        params
    )
    expected, by_hand = jax.value_and_grad(lambda p: jnp.square(plain.logits(p, images)).mean())(
        reduced
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for i, g in share.items():
        there = by_hand["ap"][f"delta_{i}"]
        found = gradient["ap"][f"delta_{i}"]
        np.testing.assert_allclose(found, g * there, rtol=1e-3, atol=1e-4 * np.abs(found).max())
        through_gate = g * (1 - g) * (there * deltas[f"delta_{i}"]).sum()
        np.testing.assert_allclose(gradient["ap"][f"gate_{i}"], through_gate, rtol=1e-3)


def test_ap_at_the_pixels_is_vp_over_the_whole_image(towers, images):
    ap = Adapted(*towers["vit"], ap__positions=("pixels",))
    vp = Adapted(*towers["vit"], prompt__template="padding", prompt__size=16, prompt__init="zeros")
    values = np.random.default_rng(7).normal(size=(32 * 32, 3)).astype(np.float32)

    def by_ap(v):
        delta = {"ap": {"delta_pixels": v.reshape(32, 32, 3)}}
        return jnp.square(ap.logits(delta, images)).mean()

    def by_vp(v):
        return jnp.square(vp.logits({"prompt": {"values": v}}, images)).mean()

    one, other = jax.value_and_grad(by_ap)(values), jax.value_and_grad(by_vp)(values)
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_allclose(one[1], other[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("tower,position", [("vit", 1), ("resnet", 2)])
def test_gradient_against_finite_differences_in_float64(
    towers, pixels, tower, position, monkeypatch
):
    def attention(q, k, v, mask=None, is_causal=False):  # jax.nn's computes softmax in float32
        del mask, is_causal
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v)

    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    config, variables = towers[tower]
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: np.asarray(v, np.float64), variables)
        adapted = Adapted(config, wide, ap__positions=(position,))
        adapted.model = adapted.model.clone(clip=adapted.clip.clone(dtype=jnp.float64))
        x = np.asarray(pixels, np.float64)
        (name,) = adapted.params()["ap"]
        site = sites_of(adapted.clip, wide)[position]
        rng = np.random.default_rng(8)
        start, direction = rng.normal(size=(2, *site.outputs)) * 0.1

        @jax.jit
        def loss(delta):
            return jnp.square(adapted.features({"ap": {name: delta}}, x)).sum()

        slope = float((jax.grad(loss)(start) * direction).sum())
        step = 1e-5
        measured = float(loss(start + step * direction) - loss(start - step * direction))
        assert slope == pytest.approx(measured / (2 * step), rel=1e-6)


def test_vpt_against_a_tower_run_by_hand(towers, pixels):
    """Deep tokens replaced before every block, written as a loop over the blocks."""
    adapted = Adapted(*towers["vit"], vpt__kind="deep", vpt__tokens=3)
    params = adapted.params(seed=9)
    clip = {"params": adapted.frozen["params"]["clip"]}

    def run(x, **where):
        return adapted.clip.apply(clip, x, method="encode_image", **where)

    x = run(pixels, stop=0)
    for block in range(L):
        tokens = jnp.broadcast_to(params["vpt"][f"tokens_{block}"], (3, 3, D))
        patches = x[:, 1:] if block == 0 else x[:, 4:]
        x = jnp.concatenate([x[:, :1], tokens, patches], axis=1)
        x = run(x, start=block, stop=block + 1 if block + 1 < L else None)
    np.testing.assert_allclose(adapted.features(params, pixels), x, rtol=1e-5, atol=1e-5)


def test_adaptformer_against_a_block_by_hand(towers):
    """mlp(ln_2(x)) + s up(relu(down(x))) beside the residual x, in NumPy but for attention."""
    adapted = Adapted(*towers["vit"], adaptformer__width=4, adaptformer__scale=0.7)
    params = adapted.params(seed=12)
    added = params["adaptformer"]
    block = adapted.frozen["params"]["clip"]["visual"]["resblocks_0"]
    x = np.random.default_rng(13).normal(size=(2, N, D)).astype(np.float32)
    clip = {"params": adapted.frozen["params"]["clip"]}

    def norm(y, weights):
        centred = y - y.mean(-1, keepdims=True)
        unit = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
        return unit * weights["scale"] + weights["bias"]

    def attended(module, y):
        return module.visual.resblocks[0].attn(y)

    y = x + np.asarray(nn.apply(attended, adapted.clip)(clip, norm(x, block["ln_1"])))
    up, down = (f"resblocks_0_mlp_branch_{way}" for way in ("up", "down"))
    hidden = np.maximum(y @ added[f"{down}_kernel"] + added[f"{down}_bias"], 0)
    mlp = norm(y, block["ln_2"]) @ block["mlp"]["c_fc"]["kernel"] + block["mlp"]["c_fc"]["bias"]
    mlp = mlp / (1 + np.exp(-1.702 * mlp))
    mlp = mlp @ block["mlp"]["c_proj"]["kernel"] + block["mlp"]["c_proj"]["bias"]
    expected = y + mlp + 0.7 * (hidden @ added[f"{up}_kernel"] + added[f"{up}_bias"])

    def one_block(model):
        _, interceptor = acting([model.adaptformer])
        with nn.intercept_methods(interceptor):
            return model.clip.visual.resblocks[0](x)

    found = nn.apply(one_block, adapted.model)(adapted.variables(params))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_dora_against_its_formula_column_by_column(towers):
    """m V / |V| with V = W + (alpha / rank) A B; the length is a constant for the gradient."""
    adapted = Adapted(*towers["vit"], dora__rank=3, dora__alpha=6.0, dora__targets=("k", "fc"))
    params = adapted.params(seed=14)["dora"]
    tower = adapted.frozen["params"]["clip"]["visual"]
    (weights,) = adapted.parts.weights.values()
    kernel = tower["resblocks_1"]["attn"]["in_proj"]["kernel"]
    given = params["resblocks_1_k"]

    def column(i):
        v = kernel[:, D + i] + 2.0 * given["a"] @ given["b"][:, i]
        return given["m"][i] * v / np.linalg.norm(v)

    changed = weights.replaced(tower, params)["resblocks_1"]["attn"]["in_proj"]["kernel"]
    expected = np.stack([column(i) for i in range(D)], axis=1)
    np.testing.assert_allclose(changed[:, D : 2 * D], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(changed[:, :D], kernel[:, :D])
    np.testing.assert_array_equal(changed[:, 2 * D :], kernel[:, 2 * D :])
    fresh = adapted.params()["dora"]
    np.testing.assert_allclose(
        weights.replaced(tower, fresh)["resblocks_0"]["mlp"]["c_fc"]["kernel"],
        tower["resblocks_0"]["mlp"]["c_fc"]["kernel"],
        rtol=1e-5,
        atol=1e-7,
    )

    def total(b):
        moved = {**params, "resblocks_1_k": {**given, "b": b}}
        return weights.replaced(tower, moved)["resblocks_1"]["attn"]["in_proj"]["kernel"].sum()

    v = kernel[:, D : 2 * D] + 2.0 * given["a"] @ given["b"]
    by_column = given["m"] / np.linalg.norm(v, axis=0)
    by_hand = 2.0 * given["a"].sum(0)[:, None] * by_column[None]
    np.testing.assert_allclose(jax.grad(total)(given["b"]), by_hand, rtol=1e-3, atol=1e-4)


def test_gated_tokens_against_a_tower_run_by_hand(towers, pixels):
    """Block by block, with the queries of a changed kernel in place of temperatures."""
    adapted = Adapted(*towers["vit"], vpt__kind="gated", vpt__tokens=3)
    params = adapted.params()
    assert set(params["vpt"]) == {"tokens_0", "gate_logits", "temperatures"}
    np.testing.assert_array_equal(params["vpt"]["gate_logits"], [-5.0])
    np.testing.assert_array_equal(params["vpt"]["temperatures"], [1.0, 1.0])
    params["vpt"] |= {
        "gate_logits": np.array([0.4], np.float32),
        "temperatures": np.array([0.5, 20.0], np.float32),
    }
    tower = jax.tree.map(np.array, adapted.frozen["params"]["clip"])
    for i, temperature in enumerate((0.5, 10.0)):  # the second is cut off
        layer = tower["visual"][f"resblocks_{i}"]["attn"]["in_proj"]
        layer["kernel"][:, :D] /= temperature
        layer["bias"][:D] /= temperature

    def run(x, **where):
        return adapted.clip.apply({"params": tower}, x, method="encode_image", **where)

    x = run(pixels, stop=0)
    tokens = jnp.broadcast_to(params["vpt"]["tokens_0"], (3, 3, D))
    x = jnp.concatenate([x[:, :1], tokens, x[:, 1:]], axis=1)
    after = np.array(run(x, start=0, stop=1))
    gate = 1 / (1 + np.exp(-0.4))
    after[:, 1:4] = gate * after[:, 1:4] + (1 - gate) * x[:, 1:4]
    expected = run(after, start=1)
    np.testing.assert_allclose(adapted.features(params, pixels), expected, rtol=1e-4, atol=1e-5)


def test_interpolated_weights_are_between_the_frozen_and_the_trained(towers, pixels):
    keys = dict(tune__weights="norm", tune__interpolation=0.3)
    adapted = Adapted(*towers["vit"], **keys)
    params = adapted.params(seed=15)
    trained, _ = for_inference(adapted.model, params, adapted.frozen, adapted.parts.weights)
    frozen = adapted.frozen["params"]["clip"]["visual"]
    moved = params["tune"]["resblocks_1"]["ln_2"]["scale"]
    expected = 0.7 * frozen["resblocks_1"]["ln_2"]["scale"] + 0.3 * moved
    np.testing.assert_allclose(trained["tune"]["resblocks_1"]["ln_2"]["scale"], expected, rtol=1e-6)
    whole = Adapted(*towers["vit"], tune__weights="norm")
    np.testing.assert_array_equal(adapted.features(params, pixels), whole.features(params, pixels))


ENTRIES = [
    (dict(), "vit", L),
    (dict(head__kind="linear"), "vit", L),
    (dict(ap__positions=(1,)), "vit", 1),
    (dict(ap__positions=(2, "resblocks_1/ln_2")), "vit", 1),
    (dict(ap__positions=("ln_post",)), "vit", L - 1),
    (dict(ap__positions=("ln_pre",)), "vit", "pixels"),
    (dict(vpt__kind="shallow"), "vit", 0),
    (dict(vpt__kind="gated"), "vit", 0),
    (dict(vpt__kind="key_value"), "vit", 0),
    (dict(lora__rank=2), "vit", 0),
    (dict(dora__rank=2), "vit", 0),
    (dict(adaptformer__width=2), "vit", 0),
    (dict(head__kind="clip_adapter"), "vit", L),
    (dict(tune__weights="norm"), "vit", "pixels"),
    (dict(prompt__template="padding", ap__positions=(1,)), "vit", "pixels"),
    (dict(ap__positions=(2,)), "resnet", 2),
    (dict(adapter__width=2), "resnet", 0),
    (dict(tune__weights="all"), "resnet", "pixels"),
]


@pytest.mark.parametrize("keys,tower,entry", ENTRIES)
def test_the_entry_is_below_all_that_trains(towers, keys, tower, entry):
    assert Adapted(*towers[tower], **keys).model.entry == entry


@pytest.mark.parametrize("keys,tower,entry", [e for e in ENTRIES if e[2] != "pixels"])
def test_activations_below_the_entry_give_the_same_logits(towers, images, keys, tower, entry):
    adapted = Adapted(*towers[tower], **keys)
    assert adapted.model.entry == entry
    params = adapted.params(seed=10)
    expected = adapted.logits(params, images)
    given = adapted.model.apply(adapted.frozen, images, method="activation")
    got, _ = adapted.model.apply(adapted.variables(params), given, method="from_activation")
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


REFUSED = [
    (dict(ap__positions=(3,)), "vit", r"no 3 in this tower; positions are 0\.\.2"),
    (dict(ap__positions=("resblocks_7/ln_1",)), "vit", "resblocks_7/ln_1"),
    (dict(ap__positions=(1, 1)), "vit", "twice"),
    (dict(vpt__kind="deep"), "resnet", "needs a vision transformer"),
    (dict(vpt__kind="gated"), "resnet", "needs a vision transformer"),
    (dict(vpt__kind="key_value"), "resnet", "needs a vision transformer"),
    (dict(vpt__kind="wide"), "vit", "choose one of none, shallow, deep, gated, key_value"),
    (dict(lora__rank=2), "resnet", "needs a vision transformer"),
    (dict(lora__rank=65), "vit", "over the tower's width 64"),
    (dict(dora__rank=2), "resnet", "needs a vision transformer"),
    (dict(dora__rank=65), "vit", "over the tower's width 64"),
    (dict(adaptformer__width=2), "resnet", "needs a vision transformer"),
    (dict(lora__rank=2, lora__targets=("w",)), "vit", "choose from q, k, v"),
    (dict(vpt__kind="deep", ap__positions=(1,)), "vit", "ap.shape=channel"),
]


@pytest.mark.parametrize("keys,tower,message", REFUSED)
def test_what_does_not_fit_is_refused(towers, keys, tower, message):
    with pytest.raises(UserError, match=message):
        Adapted(*towers[tower], **keys)


def test_parts_compose(towers, images):
    """AdaViPro, an activation prompt, LoRA and a linear head in one config."""
    adapted = Adapted(
        *towers["vit"], prompt__template="padding", prompt__size=4, mask__kind="adavipro",
        mask__region=8, ap__positions=(1,), lora__rank=2, head__kind="linear",
    )  # fmt: skip
    params = adapted.params(seed=11)
    assert set(params) == {"prompt", "mask", "ap", "lora", "head"}
    gradient = jax.grad(lambda p: jnp.square(adapted.logits(p, images)).mean())(params)
    for part, tree in gradient.items():
        if part != "mask":  # marks by argmax have no gradient
            assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree)) > 0, part

"""Towers that are not CLIP's own, against computations in NumPy; what reaches into them."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.adapters.conftest import RESNET, Adapted, random_variables
from tests.conftest import TINY, abstract_variables
from vprompt_jax.adapters.tuning import TunedWeights
from vprompt_jax.clip import CLIP, CLIPConfig, ViTConfig, sites
from vprompt_jax.clip.checkpoints import positions
from vprompt_jax.clip.variants import VARIANTS
from vprompt_jax.report import depth

WIDTH, HEADS, SIDE, PATCH = 24, 3, 32, 8
CHANNELS = WIDTH // HEADS
BASE = ViTConfig(WIDTH, 2, HEADS, PATCH, SIDE, mlp_width=40, activation="gelu_tanh", norm_eps=1e-3)
TOWERS = {
    "mean, no class token": dataclasses.replace(BASE, class_token=False, pooling="mean"),
    "mean beside a class token": dataclasses.replace(BASE, pooling="mean", final_norm="after"),
    "class token and registers": dataclasses.replace(BASE, registers=3),
    "registers and mean": dataclasses.replace(BASE, registers=2, pooling="mean"),
    "layer scale, patch bias, no ln_pre": dataclasses.replace(
        BASE, layer_scale=0.1, patch_bias=True, pre_norm=False
    ),
    "no norm at the end": dataclasses.replace(BASE, pooling="mean", final_norm="none"),
    "attention": dataclasses.replace(BASE, class_token=False, pooling="attention"),
    "attention beside other tokens": dataclasses.replace(BASE, registers=2, pooling="attention"),
    "registers without positions, a gate": dataclasses.replace(
        BASE, registers=2, positions="class", gated_mlp=True, activation="silu"
    ),
    "positions of the patches alone, no bias": dataclasses.replace(
        BASE, registers=2, positions="patches", qkv_bias="none"
    ),
    "turned halves, no bias of keys": dataclasses.replace(
        BASE, registers=3, positions="none", rope="halves", qkv_bias="no_key", patch_bias=True
    ),
    "counted places, norms inside, a gate": dataclasses.replace(
        BASE,
        rope="pairs",
        rope_base=1e4,
        rope_reference=6,
        inner_norms=True,
        gated_mlp=True,
        activation="silu",
        qkv_bias="no_key",
        projection_bias=True,
    ),
    "attention to the class token, columns first": dataclasses.replace(
        BASE,
        registers=1,
        rope="pairs",
        rope_base=1e4,
        rope_reference=4,
        rope_offset=1.0,
        rope_order="columns",
        pooling="attention",
        pool_class=True,
        pool_heads=2,
        pool_mlp_width=56,
    ),
    "what a query finds in all tokens": dataclasses.replace(
        BASE,
        registers=1,
        pooling="query",
        pool_class=True,
        pool_heads=2,
        final_norm="after",
    ),
    "norms behind attention and perceptron": dataclasses.replace(
        BASE, post_norm=True, layer_scale=0.1, qkv_bias="no_key", projection_bias=True
    ),
    "turned pairs": dataclasses.replace(BASE, rope="pairs", rope_base=50.0, pooling="mean"),
}
PIXELS = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)


def config_of(vision: ViTConfig) -> CLIPConfig:
    return CLIPConfig(16, vision)


def turned(vision: ViTConfig, x: np.ndarray) -> np.ndarray:
    """Queries or keys [B, N, d] of one head by their place, one pair of channels at a time."""
    x, first = x.copy(), x.shape[1] - 16
    for place in range(16):
        row, column = divmod(place, 4)
        for axis, number in enumerate(
            (row, column) if vision.rope_order == "rows" else (column, row)
        ):
            # Of the centres of four patches between -1 and 1, in half turns; else counted.
            coordinate = 2 * np.pi * (-0.75 + 0.5 * number)
            if vision.rope_reference:
                coordinate = (number + vision.rope_offset) * vision.rope_reference / 4
            for i in range(CHANNELS // 4):
                angle = coordinate / vision.rope_base ** (4 * i / CHANNELS)
                which = axis * CHANNELS // 4 + i
                pair = [which, which + CHANNELS // 2]
                if vision.rope == "pairs":
                    pair = [2 * which, 2 * which + 1]
                a, b = x[:, first + place, pair].T
                x[:, first + place, pair[0]] = a * np.cos(angle) - b * np.sin(angle)
                x[:, first + place, pair[1]] = a * np.sin(angle) + b * np.cos(angle)
    return x


def reference(
    vision: ViTConfig,
    variables: dict,
    images: np.ndarray,
    tokens: np.ndarray | None = None,
    vectors: np.ndarray | None = None,
) -> np.ndarray:
    """Features in float64, one head at a time.

    Tokens [blocks, M, D] stand behind the prefix; vectors [blocks, P, D] are keys and values before
    all others, which have no place.
    """
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"]["visual"])

    def norm(x, part, eps=1e-3):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * part["scale"] + part["bias"]

    def dense(x, part):
        return x @ part["kernel"] + part["bias"]

    def softmax(x):
        x = np.exp(x - x.max(-1, keepdims=True))
        return x / x.sum(-1, keepdims=True)

    def perceptron(x, part):
        y = dense(x, part["c_fc"])
        if "c_gate" in part:
            gate = dense(x, part["c_gate"])
            y = gate / (1 + np.exp(-gate)) * y
        else:
            y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        y = norm(y, part["ln_inner"]) if "ln_inner" in part else y
        return dense(y, part["c_proj"])

    def query_pooling(x, part):
        """Of 16 channels, for one image at a time."""
        x, query = norm(x, part["ln_k"], 1e-5), norm(part["probe"], part["ln_q"], 1e-5)
        q, k, v = (dense(y, part[f"{n}_proj"]) for n, y in zip("qkv", (query, x, x), strict=True))
        heads = []
        for own in (slice(0, 8), slice(8, 16)):
            weights = np.array([softmax(keys[:, own] @ q[own] / np.sqrt(8)) for keys in k])
            heads.append(np.stack([w @ y[:, own] for w, y in zip(weights, v, strict=True)]))
        return dense(np.concatenate(heads, -1), part["out_proj"])

    def attention_pooling(x, part):
        q, k, v = (
            dense(y, part[f"{n}_proj"]) for n, y in zip("qkv", (part["probe"], x, x), strict=True)
        )
        heads, count = [], vision.pool_heads or HEADS
        for h in range(count):
            own = slice(h * WIDTH // count, (h + 1) * WIDTH // count)
            weights = softmax(k[..., own] @ q[own] / np.sqrt(WIDTH // count))
            heads.append(np.einsum("bn,bnd->bd", weights, v[..., own]))
        y = dense(np.concatenate(heads, -1), part["out_proj"])
        return y + perceptron(norm(y, part["ln_2"]), part["mlp"])

    patches = []
    for row in range(0, SIDE, PATCH):
        for column in range(0, SIDE, PATCH):
            patch = images[:, row : row + PATCH, column : column + PATCH]
            value = np.einsum("bijc,ijcd->bd", patch, p["conv1"]["kernel"])
            patches.append(value + p["conv1"].get("bias", 0.0))
    x = np.stack(patches, 1)
    if vision.positions in ("class", "patches"):
        x = x + p["positional_embedding"][-16:]
    prefix = [p["class_embedding"][None]] if vision.class_token else []
    if vision.positions == "class":
        prefix = [p["class_embedding"][None] + p["positional_embedding"][:1]]
    prefix += [p["register_embedding"]] if vision.registers else []
    for part in reversed(prefix):
        x = np.concatenate([np.broadcast_to(part, (len(x), *part.shape)), x], axis=1)
    if vision.positions == "all":
        x = x + p["positional_embedding"]
    if vision.pre_norm:
        x = norm(x, p["ln_pre"])
    for i in range(vision.layers):
        block = p[f"resblocks_{i}"]
        if tokens is not None:
            x = np.concatenate(
                [
                    x[:, : vision.prefix],
                    np.broadcast_to(tokens[i], (len(x), *tokens[i].shape)),
                    x[:, -16:],
                ],
                axis=1,
            )
        part = block["attn"]["in_proj"]
        taken = x if vision.post_norm else norm(x, block["ln_1"])
        q, k, v = np.split(taken @ part["kernel"], 3, -1)
        if "bias" in part:
            biases = np.split(part["bias"], len(part["bias"]) // WIDTH)
            q, v = q + biases[0], v + biases[-1]
            k = k + biases[1] if len(biases) == 3 else k
        if vectors is not None:
            added = np.broadcast_to(vectors[i], (len(x), *vectors[i].shape))
            k, v = (np.concatenate([added, y], axis=1) for y in (k, v))
        heads = []
        for h in range(HEADS):
            part = slice(h * CHANNELS, (h + 1) * CHANNELS)
            of_queries, of_keys = q[..., part], k[..., part]
            if vision.rope != "none":
                of_queries, of_keys = turned(vision, of_queries), turned(vision, of_keys)
            scores = of_queries @ of_keys.swapaxes(1, 2) / np.sqrt(CHANNELS)
            heads.append(softmax(scores) @ v[..., part])
        y = np.concatenate(heads, -1)
        y = norm(y, block["attn"]["ln_inner"]) if vision.inner_norms else y
        y = dense(y, block["attn"]["out_proj"])
        y = norm(y, block["ln_1"]) if vision.post_norm else y
        x = x + y * (block["ls_1"]["gamma"] if vision.layer_scale else 1)
        if vision.post_norm:
            y = norm(perceptron(x, block["mlp"]), block["ln_2"])
        else:
            y = perceptron(norm(x, block["ln_2"]), block["mlp"])
        x = x + y * (block["ls_2"]["gamma"] if vision.layer_scale else 1)
    if vision.final_norm == "before":
        x = norm(x, p["ln_post"])
    if vision.pooling in ("attention", "query"):
        seen = np.concatenate([x[:, : int(vision.pool_class)], x[:, -16:]], axis=1)
        pool = attention_pooling if vision.pooling == "attention" else query_pooling
        x = pool(seen, p["attnpool"])
    else:
        x = x[:, 0] if vision.pooling == "class" else x[:, -16:].mean(1)
    if vision.final_norm == "after":
        x = norm(x, p["ln_post"])
    return x @ p["proj"] + p.get("proj_bias", 0.0)


@pytest.mark.parametrize("name", TOWERS)
def test_features_of_every_kind_of_vit(name):
    config = config_of(TOWERS[name])
    variables = random_variables(config, seed=1)
    expected = reference(config.vision, variables, PIXELS)
    got = CLIP(config).apply(variables, PIXELS, method="encode_image")
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", TOWERS)
def test_positions_of_every_kind_meet(name):
    config = config_of(TOWERS[name])
    variables = random_variables(config, seed=1)
    clip = CLIP(config)
    whole = clip.apply(variables, PIXELS, method="encode_image")
    for position in range(config.depth + 1):
        below = clip.apply(variables, PIXELS, stop=position, method="encode_image")
        above = clip.apply(variables, below, start=position, method="encode_image")
        np.testing.assert_array_equal(above, whole)


@pytest.mark.parametrize("name", TOWERS)
def test_vpt_tokens_stand_between_the_prefix_and_the_patches(name):
    config = config_of(TOWERS[name])
    first = config.vision.prefix
    variables = random_variables(config, seed=1)
    adapted = Adapted(config, variables, vpt__kind="deep", vpt__tokens=2, head__kind="linear")
    params = adapted.params(seed=3)
    clip = {"params": {k: v for k, v in adapted.frozen["params"]["clip"].items()}}
    x = adapted.clip.apply(clip, PIXELS, stop=0, method="encode_image")
    for block in range(2):
        tokens = np.broadcast_to(params["vpt"][f"tokens_{block}"], (2, 2, WIDTH))
        patches = x[:, first + 2 * (block > 0) :]
        x = np.concatenate([x[:, :first], tokens, patches], axis=1)
        stop = block + 1 if block == 0 else None
        x = adapted.clip.apply(clip, x, start=block, stop=stop, method="encode_image")
    np.testing.assert_allclose(adapted.features(params, PIXELS), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["registers and mean", *(n for n in TOWERS if "turned" in n)])
def test_learned_keys_and_values_have_no_place(name):
    """E2VPT's, which stand before all others, as its tokens do before the patches."""
    config = config_of(TOWERS[name])
    variables = random_variables(config, seed=1)
    adapted = Adapted(config, variables, vpt__kind="key_value", head__kind="linear")
    params = adapted.params(seed=3)
    own = params["vpt"]
    tokens = np.stack([own[f"tokens_{i}"] for i in range(2)])
    vectors = np.stack([own[f"resblocks_{i}_attn_keys_and_values"] for i in range(2)])
    expected = reference(config.vision, variables, PIXELS, tokens, vectors)
    got = adapted.features(params, PIXELS)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert np.abs(got - reference(config.vision, variables, PIXELS)).max() > 1e-2


@pytest.mark.parametrize("name", TOWERS)
def test_scale_and_shift_folds_into_every_kind(name):
    config = config_of(TOWERS[name])
    if config.vision.qkv_bias != "all":
        adapted = Adapted(config, random_variables(config), ssf__kind="all", head__kind="linear")
        with pytest.raises(ValueError, match="resblocks_0/attn/in_proj has no bias that takes"):
            adapted.folded(adapted.params())
        return
    variables = random_variables(config, seed=1)
    keys = dict(ssf__kind="all", tune__weights="norm", head__kind="linear")
    adapted = Adapted(config, variables, **keys)
    params = adapted.params(seed=5)
    expected = adapted.features(params, PIXELS)
    plain = Adapted(config, variables, head__kind="linear")
    plain.frozen["params"]["clip"] = {
        **plain.frozen["params"]["clip"],
        "visual": adapted.folded(params),
    }
    got = plain.features({}, PIXELS)
    assert np.abs(got - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", TOWERS)
def test_attention_distance_of_uniform_attention(name):
    config = config_of(TOWERS[name])
    variables = random_variables(config, seed=1)
    for block in range(2):
        part = variables["params"]["visual"][f"resblocks_{block}"]["attn"]["in_proj"]
        for weights in part.values():
            weights[:] = 0
    at = [(i, j) for i in range(4) for j in range(4)]
    apart = [8 * np.hypot(a - c, b - d) for a, b in at for c, d in at]
    got = depth.attention_distances(CLIP(config), variables, PIXELS)
    np.testing.assert_allclose(got, np.mean(apart), rtol=1e-5)


def test_interpolation_leaves_what_is_before_the_grid():
    table = np.random.default_rng(0).normal(size=(5 + 16, 6)).astype(np.float32)
    for first in (0, 1, 5):
        resized = positions.interpolate(table[5 - first :], 4, 6)
        assert resized.shape == (first + 36, 6)
        np.testing.assert_array_equal(resized[:first], table[5 - first : 5])
        np.testing.assert_array_equal(resized[first:], positions.interpolate(table[5:], 4, 6))


@pytest.mark.parametrize(
    "config",
    [TINY, RESNET, config_of(TOWERS["no norm at the end"]), config_of(TOWERS["attention"])],
)
def test_normalisations_are_found_by_what_they_are(config):
    variables = random_variables(config)
    found = sites.sites_of(CLIP(config), variables)
    kinds = {"/".join(path) for path in sites.normalisations(found)}
    assert kinds == {where for where, site in found.items() if site.is_norm}
    # Every normalisation of these towers says so in its name, and nothing else does.
    named = {w for w in found if isinstance(w, str) and ("ln_" in w or "bn" in w)}
    assert kinds == named
    tuned = TunedWeights("norm", sites.normalisations(found))
    paths = tuned.paths(variables["params"]["visual"])
    assert {"/".join(path[:-1]) for path in paths} == named


def test_normalisations_of_a_large_tower():
    for name, count in (("ViT-B/32", 2 + 2 * 12), ("RN50", 3 + 16 * 3 + 4)):
        found = sites.sites_of(CLIP(VARIANTS[name]), abstract_variables(VARIANTS[name]))
        assert len(sites.normalisations(found)) == count


TOKENS = np.random.default_rng(1).integers(1, 49407, (3, 16)).astype(np.int32)


def test_the_text_tap_sees_the_embeddings_and_every_block():
    clip, variables = CLIP(TINY), random_variables(TINY)
    seen = {}

    def tap(position, x):
        seen[position] = x
        return x

    plain = clip.apply(variables, TOKENS, method="encode_text")
    tapped = clip.apply(variables, TOKENS, tap=tap, method="encode_text")
    np.testing.assert_array_equal(plain, tapped)
    assert list(seen) == ["embeddings", 0]
    text = variables["params"]["text"]
    np.testing.assert_array_equal(seen["embeddings"], text["token_embedding"]["embedding"][TOKENS])
    np.testing.assert_array_equal(seen[0], seen["embeddings"] + text["positional_embedding"][None])


def test_embeddings_may_be_replaced():
    """As learned context does it: the features are those of other tokens."""
    clip, variables = CLIP(TINY), random_variables(TINY)
    other = TOKENS.copy()
    other[:, 1:4] = 77
    table = variables["params"]["text"]["token_embedding"]["embedding"]

    def tap(position, x):
        if position != "embeddings":
            return x
        return x.at[:, 1:4].set(table[77])

    keep = TOKENS.copy()
    keep[:, 9] = other[:, 9] = 49407
    got = clip.apply(variables, keep, tap=tap, method="encode_text")
    expected = clip.apply(variables, other, method="encode_text")
    np.testing.assert_array_equal(got, expected)


def test_the_end_token_is_the_largest_or_a_named_one():
    variables = random_variables(TINY)
    tokens = TOKENS.copy()
    tokens[:, 5], tokens[:, 9], tokens[:, 11] = 4000, 49407, 4000
    largest = CLIP(TINY).apply(variables, tokens, method="encode_text")
    cut = CLIP(TINY).apply(variables, tokens[:, :10], method="encode_text")
    np.testing.assert_allclose(largest, cut, rtol=1e-5, atol=1e-6)  # causal: the rest is unseen
    named = CLIP(TINY.with_fields({"text.end_token": 4000}))
    got = named.apply(variables, tokens, method="encode_text")
    first = named.apply(variables, tokens[:, :6], method="encode_text")
    np.testing.assert_allclose(got, first, rtol=1e-5, atol=1e-6)
    assert np.abs(got - largest).max() > 1e-2


def test_a_text_tower_that_is_not_causal():
    variables = random_variables(TINY)
    tokens = TOKENS.copy()
    tokens[:, 5] = 49407
    clip = CLIP(TINY.with_fields({"text.causal": False}))
    seen_all = clip.apply(variables, tokens, method="encode_text")
    cut = clip.apply(variables, tokens[:, :6], method="encode_text")
    assert np.abs(seen_all - cut).max() > 1e-2


def test_images_of_another_size_are_refused():
    """A rotation by place would not notice; learned positions would, each in its own words."""
    for name in ("turned pairs", "attention"):
        config = config_of(TOWERS[name])
        with pytest.raises(ValueError, match="images of 6 x 4 patches; the tower has 4 a side"):
            CLIP(config).apply(
                random_variables(config), np.zeros((1, 48, 32, 3)), method="encode_image"
            )


@pytest.mark.parametrize("name", ["turned halves, no bias of keys", "turned pairs"])
def test_attention_distance_follows_the_turn(name):
    """Queries and keys that are equal everywhere attend by the angles between the places alone."""
    config = config_of(TOWERS[name])
    variables = random_variables(config, seed=1)
    q = np.random.default_rng(0).normal(size=(1, 16, CHANNELS)) * np.ones((1, 16, 1)) / 3
    q = np.broadcast_to(q[:, :1], q.shape)
    for block in range(2):
        part = variables["params"]["visual"][f"resblocks_{block}"]["attn"]["in_proj"]
        part["kernel"][:] = 0
        count = len(part["bias"]) // WIDTH
        part["bias"][:] = np.tile(np.tile(q[0, 0], HEADS), count)
    keys = q if config.vision.qkv_bias == "all" else np.zeros_like(q)
    scores = turned(config.vision, q) @ turned(config.vision, keys).swapaxes(1, 2)
    weights = np.exp(scores / np.sqrt(CHANNELS))
    weights /= weights.sum(-1, keepdims=True)
    at = np.array([(i, j) for i in range(4) for j in range(4)])
    apart = 8 * np.linalg.norm(at[:, None] - at[None], axis=-1)
    got = depth.attention_distances(CLIP(config), variables, PIXELS)
    np.testing.assert_allclose(got, (weights * apart).sum(-1).mean(), rtol=1e-5)

"""CoCoOp, MaPLe and PromptSRC: context of deeper blocks, of both towers, and of every image."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.adapters.conftest import random_variables
from tests.conftest import TINY, abstract_variables
from tests.texts.test_texts import NAMES, WIDTH, adaptation
from vprompt_jax.adaptation.build import build
from vprompt_jax.clip import CLIP, variants
from vprompt_jax.clip.class_texts import tokens_of
from vprompt_jax.config import default_config, resolve
from vprompt_jax.export import files as export
from vprompt_jax.inference import adapted as inference
from vprompt_jax.losses.consistency import Consistency
from vprompt_jax.parts import LossInputs
from vprompt_jax.parts.context import at_inference
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit, step
from vprompt_jax.train.training import initial_state, optimizer_of

START = "a photo of a"
DEEP = dataclasses.replace(
    TINY,
    vision=dataclasses.replace(TINY.vision, layers=3),
    text=dataclasses.replace(TINY.text, layers=3),
)
IMAGES = np.random.default_rng(4).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tower():
    return CLIP(DEEP), random_variables(DEEP)


def moved(params, seed=5):
    """Parameters, each of them moved by a random third."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: np.asarray(p + 0.3 * rng.normal(size=p.shape), p.dtype), params)


def unit(x):
    return np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True)


def text_by_hand(tower, blocks, first=1):
    """Features of "a photo of a NAME." with given vectors in the places from `first`, by block."""
    clip, variables = tower
    features = []
    for name in NAMES:
        tokens = tokens_of(clip, [[f"{START} {name}."]])[0]

        def tap(position, x):
            i = {"embeddings": 0, 0: None}.get(position, position)
            if i is None or i >= len(blocks):
                return x
            x = np.array(x)
            x[0, first : first + len(blocks[i])] = blocks[i]
            return jnp.asarray(x)

        features.append(clip.apply(variables, tokens, tap=tap, method="encode_text")[0])
    return unit(np.stack(features))


def image_by_hand(tower, made, blocks):
    """Features of the images with given tokens behind the class token, by block."""
    clip, variables = tower

    def tap(position, x):
        if position >= len(blocks):
            return x
        tokens = np.broadcast_to(blocks[position], (len(x), *blocks[position].shape))
        rest = np.asarray(x)[:, 1 + (len(blocks[position]) if position else 0) :]
        return jnp.asarray(np.concatenate([np.asarray(x)[:, :1], tokens, rest], 1))

    pixels = made.model.apply(made.variables({}, {}), IMAGES, method="pixels")
    return unit(clip.apply(variables, pixels, tap=tap, method="encode_image"))


def logits_of(made, params):
    model, variables = made.at_inference(params, {})
    return np.asarray(model.apply(variables, IMAGES, at_inference(0))[0])


def test_context_starts_at_words_and_has_vectors_in_deeper_blocks(tower):
    keys = dict(context__kind="unified", context__tokens=2, context__start=START, context__depth=2)
    made = adaptation(tower, **keys)
    fresh = made.initial_params()["context"]
    table = tower[1]["params"]["text"]["token_embedding"]["embedding"]
    ids = tokens_of(tower[0], [[START]])[0, 0]
    np.testing.assert_array_equal(fresh["vectors"], table[ids[1:3]])
    assert {k: v.shape for k, v in fresh.items()} == {
        "vectors": (2, WIDTH),
        "vectors_1": (2, WIDTH),
    }
    params = {"context": moved(fresh)}
    found = made.at_inference(params, {})[1]["constants"]["text_features"]
    blocks = [params["context"]["vectors"], params["context"]["vectors_1"]]
    np.testing.assert_allclose(found, text_by_hand(tower, blocks), rtol=1e-4, atol=1e-5)


def test_a_context_that_starts_at_words_starts_as_the_template(tower):
    """At depth 1, the text is that of the template "a photo of a {}."."""
    made = adaptation(tower, context__kind="unified", context__tokens=4, context__start=START)
    found = made.at_inference(made.initial_params(), {})[1]["constants"]["text_features"]
    tokens = tokens_of(tower[0], [[f"{START} {name}."] for name in NAMES])[:, 0]
    plain = unit(tower[0].apply(tower[1], tokens, method="encode_text"))
    np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)


def test_cocoop_gives_each_image_texts_of_its_own(tower):
    made = adaptation(tower, method__name="cocoop")
    params = moved(made.initial_params())
    own = params["context"]
    logits = logits_of(made, params)
    images = image_by_hand(tower, made, [])
    scale = np.exp(tower[1]["params"]["logit_scale"])
    for image, found in zip(images, logits, strict=True):
        hidden = np.maximum(image @ own["down_kernel"] + own["down_bias"], 0)
        shift = hidden @ own["up_kernel"] + own["up_bias"]
        texts = text_by_hand(tower, [own["vectors"] + shift])
        np.testing.assert_allclose(found, scale * texts @ image, rtol=1e-4, atol=1e-4)


def test_maple_projects_the_texts_vectors_into_the_image_tower(tower):
    made = adaptation(tower, method__name="maple")
    params = moved(made.initial_params())
    own = params["maple"]
    vectors = [own["context"][name] for name in ("vectors", "vectors_1", "vectors_2")]
    tokens = [v @ own[f"kernel_{i}"] + own[f"bias_{i}"] for i, v in enumerate(vectors)]
    cosines = image_by_hand(tower, made, tokens) @ text_by_hand(tower, vectors).T
    scale = np.exp(tower[1]["params"]["logit_scale"])
    np.testing.assert_allclose(logits_of(made, params), scale * cosines, rtol=1e-4, atol=1e-4)


def test_promptsrc_has_vectors_in_both_towers(tower):
    made = adaptation(tower, method__name="promptsrc")
    params = moved(made.initial_params())
    texts = [params["context"][name] for name in ("vectors", "vectors_1", "vectors_2")]
    tokens = [params["vpt"][f"tokens_{i}"] for i in range(3)]
    cosines = image_by_hand(tower, made, tokens) @ text_by_hand(tower, texts).T
    scale = np.exp(tower[1]["params"]["logit_scale"])
    np.testing.assert_allclose(logits_of(made, params), scale * cosines, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "method, count",
    [
        ("cocoop", 35_360),  # MaPLe's paper, table of parameters: CoCoOp
        ("maple", 3_555_072),  # 3.55 M there
        ("promptsrc", 46_080),  # 9 blocks of 4 tokens, 512 and 768 channels
    ],
)
def test_parameter_counts_on_vit_b_16(method, count):
    c = variants.VARIANTS["ViT-B/16"]
    config = default_config()
    config.method.name = method
    built = build(resolve(config), CLIP(c), abstract_variables(c), 5)
    shapes = jax.eval_shape(lambda: built.model.init_parts(jax.random.key(0)))
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize("own_texts", [False, True])
def test_the_penalty_is_that_of_a_loop(own_texts):
    rng = np.random.default_rng(0)
    features, before = rng.normal(size=(2, 4, 6)).astype(np.float32)
    texts = unit(rng.normal(size=(4, 3, 6)) if own_texts else rng.normal(size=(3, 6)))
    frozen = unit(rng.normal(size=(3, 6)))
    logits, scale = rng.normal(size=(4, 3)), 1.5
    given = [features, texts, logits, np.float64(scale), before, frozen]
    found = Consistency(10.0, 25.0, 1.0).apply(
        {}, LossInputs(*(jnp.asarray(x, jnp.float32) for x in given))
    )
    assert found.shape == (4,)
    for b in range(4):
        f, f0 = unit(features[b]), unit(before[b])
        t = texts[b] if own_texts else texts
        z0 = np.exp(scale) * frozen @ f0
        p0, p = (np.exp(z) / np.exp(z).sum() for z in (z0, logits[b]))
        image = np.abs(f - f0).sum() / 6
        text = np.abs(t - frozen).sum() / 18
        divergence = (p0 * np.log(p0 / p)).sum() / 3
        np.testing.assert_allclose(found[b], 10 * image + 25 * text + divergence, rtol=1e-4)


def test_the_penalty_is_in_the_gradient_and_not_in_the_metrics():
    """The step against the gradient of cross-entropy and penalty added by hand."""
    made = adaptation((CLIP(TINY), random_variables(TINY)), method__name="promptsrc")
    labels = np.array([0, 2], np.int32)
    batch = {"image": IMAGES[:2], "label": labels, "weight": np.ones(2, np.float32)}
    batch["index"] = np.arange(2, dtype=np.int32)
    start = initial_state(made, 10)
    params = jax.device_get(start.params)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def by_hand(params):
        variables = made.variables(params, {})
        logits, out = made.model.apply(variables, batch["image"], at_inference(0))
        cross_entropy = -jax.nn.log_softmax(logits)[jnp.arange(2), labels]
        return (cross_entropy + out["penalty"]).mean(), (cross_entropy.sum(), out["penalty"])

    expected, (cross_entropy, penalty) = by_hand(params)
    train = step.make_train_step(
        made.model, optimizer_of(made.config, 10), lambda _: {}, weights={}
    )
    root = jax.random.key(0, impl="threefry2x32")
    after, sums = train(start, made.frozen, root, on_devices(batch))
    for name, tree in expected.items():
        norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(tree)))
        np.testing.assert_allclose(after.gradient_norms[name], norm, rtol=1e-3)
    np.testing.assert_allclose(sums["loss"], cross_entropy, rtol=1e-5)
    assert min(penalty) > 0.1
    assert not made.model.at_inference().has("loss")


def on_devices(batch):
    """A batch on one device, and padding of weight zero on all others."""
    rest = jax.device_count() - 1

    def padded(name, x):
        pad = np.full((rest, *x.shape), -1 if name == "index" else 0, x.dtype)
        return np.concatenate([x[None], pad])

    return {name: padded(name, x) for name, x in batch.items()}


REFUSED = [
    (dict(context__kind="unified", context__tokens=5, context__start=START), "has 4 tokens and"),
    (
        dict(context__kind="unified", context__start=START, context__position="front"),
        "context.start='a photo of a' stands before the name: set config.context.position=end",
    ),
    (
        dict(maple__tokens=2, context__kind="unified"),
        "both learn the words beside the class names: set config.context.kind=none",
    ),
    (
        dict(maple__tokens=2, vpt__kind="shallow"),
        "config.vpt and config.maple both add tokens .*: set config.maple.tokens=0",
    ),
    (dict(maple__tokens=2, head__kind="linear"), "config.maple acts on the classes' texts"),
    (dict(vpt__kind="shallow", vpt__depth=2), "vpt.depth=2 has no effect with vpt.kind=shallow"),
    (
        dict(consistency__kind="l1", tune__weights="norm"),
        "config.consistency compares with the frozen tower, whose weights config.tune replaces",
    ),
    (dict(consistency__kind="l1", head__kind="linear"), "config.consistency acts on the classes'"),
    (dict(optim__average=0.9, optim__average_mean=0.5), "are alternatives: set one to 0"),
]


@pytest.mark.parametrize("keys, message", REFUSED)
def test_what_does_not_go_together_is_refused(tower, keys, message):
    with pytest.raises(UserError, match=message):
        adaptation(tower, **keys)


def test_a_moving_average_that_a_config_asks_for_takes_the_place_of_the_methods(tower):
    plain = adaptation(tower, method__name="promptsrc").config.optim
    assert (plain.average, plain.average_mean) == (0.0, 0.75)
    asked = adaptation(tower, method__name="promptsrc", optim__average=0.9).config.optim
    assert (asked.average, asked.average_mean) == (0.9, None)


@pytest.mark.parametrize("method", ["cocoop", "maple", "promptsrc"])
def test_a_run_is_trained_predicts_and_is_exported(method, tiny_config, tmp_path):
    tiny_config.method.name = method
    tiny_config.data.few_shot, tiny_config.optim.batch_size = 12, 40
    result = fit(tiny_config, tmp_path / "run")
    assert result["steps"] > 0
    model = inference.load(tmp_path / "run")
    logits = model.logits(IMAGES)
    export.write(model, tmp_path / "export")
    exported = export.load(tmp_path / "export")
    np.testing.assert_allclose(exported.logits(IMAGES), logits, rtol=1e-4, atol=1e-4)
    one_by_one = np.concatenate([model.logits(image[None]) for image in IMAGES])
    np.testing.assert_allclose(one_by_one, logits, rtol=1e-4, atol=1e-4)

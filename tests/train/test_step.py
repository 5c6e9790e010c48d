"""The step: what it transfers, what it leaves alone, and what it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from tests.train.trajectory import small_config, train_step_of
from vprompt_jax.adaptation.variables import variables_of
from vprompt_jax.clip import preprocess_batch, unit_norm
from vprompt_jax.config import resolve
from vprompt_jax.data import pipeline
from vprompt_jax.parts import Context
from vprompt_jax.process import parallel
from vprompt_jax.train import evaluate, step
from vprompt_jax.train.training import around, assemble
from vprompt_jax.train.validation import batches_of


@pytest.fixture(scope="module")
def run(tiny_path):
    return assemble(small_config(str(tiny_path)))


@pytest.fixture(scope="module")
def train_step(run):
    return train_step_of(run)


def batches(run, **kwargs):
    options = dict(batch_size=30, epochs=1, seed=0, start=0, workers=1)
    return pipeline.train_batches(run.dataset.train, **{**options, **kwargs})


def test_a_step_transfers_only_the_batch(run, train_step):
    """Once the batch is placed, nothing moves to, from or between devices."""
    state, stream = run.initial_state(), batches(run)
    state, _ = train_step(state, run.adaptation.frozen, run.root, parallel.to_devices(next(stream)))
    placed = parallel.to_devices(next(stream))
    with jax.transfer_guard("disallow_explicit"):
        state, _ = train_step(state, run.adaptation.frozen, run.root, placed)
    assert int(state.step) == 2
    assert placed["image"].dtype == jnp.uint8


def test_the_transfer_guard_would_notice(run, train_step):
    state, stream = run.initial_state(), batches(run)
    with (
        pytest.raises(Exception, match=r"[Dd]isallowed"),
        jax.transfer_guard("disallow_explicit"),
    ):
        train_step(state, jax.device_get(run.adaptation.frozen), run.root, next(stream))


def test_frozen_weights_stay_bit_identical_and_trained_parts_move(run, train_step):
    before = jax.device_get(run.adaptation.frozen)
    state = run.initial_state()
    initial = jax.device_get(state.params)
    for _, batch in zip(range(3), batches(run), strict=False):
        state, _ = train_step(state, run.adaptation.frozen, run.root, parallel.to_devices(batch))
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(run.adaptation.frozen))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), initial, jax.device_get(state.params))
    assert all(jax.tree.leaves(moved))


def test_the_state_holds_only_what_is_trained(run):
    state = run.initial_state()
    assert set(state.params) == {"prompt", "mask"}
    # Parameters and momentum, the step, the two schedules' counts, the bad steps, a norm per part.
    trained = sum(x.size for x in jax.tree.leaves(state.params))
    assert sum(x.size for x in jax.tree.leaves(state)) == 2 * trained + 3 + 1 + 2


def test_one_step_by_hand(run, train_step):
    """Loss and prompt gradient of the step against a plain, unpadded, unmapped computation."""
    batch = next(batches(run))
    state = run.initial_state()
    params = jax.device_get(state.params)
    after, sums = train_step(state, run.adaptation.frozen, run.root, parallel.to_devices(batch))

    real = batch["weight"].ravel() > 0
    images = batch["image"].reshape(-1, 32, 32, 3)[real]
    labels, index = batch["label"].ravel()[real], batch["index"].ravel()[real]
    frozen = jax.device_get(run.adaptation.frozen)
    noise_keys = Context(jax.random.key(0), index, 0).example_keys("noise")
    noise = jax.vmap(lambda k: jax.random.gumbel(k, (4, 4, 2)))(noise_keys)

    model = run.adaptation.model
    (mask,) = [part.module for part in model.parts if part.name == "mask"]

    def loss_of(prompt):
        x = preprocess_batch(images, 32)
        logits = mask.apply({"params": params["mask"]}, x)
        scores = jax.nn.log_softmax(logits) + noise
        marks = (scores[..., 1] > scores[..., 0]).astype(jnp.float32)
        pixels = jnp.repeat(jnp.repeat(marks, 8, 1), 8, 2)[..., None]
        x = x + prompt.reshape(1, 32, 32, 3) * pixels
        clip_variables = {"params": frozen["params"]["clip"]}
        features = model.clip.apply(clip_variables, x, method="encode_image")
        texts = frozen["constants"]["text_features"]
        scale = jnp.exp(frozen["params"]["clip"]["logit_scale"])
        logits = scale * unit_norm(features) @ texts.T
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    with jax.default_matmul_precision("highest"):
        loss, gradient = jax.jit(jax.value_and_grad(loss_of))(params["prompt"]["values"])
    assert evaluate.mean(sums)["loss"] == pytest.approx(float(loss), rel=1e-4)
    # First step of a 4-step warm-up to 40: lr 10, momentum still empty.
    expected = params["prompt"]["values"] - 10.0 * gradient
    got = jax.device_get(after.params)["prompt"]["values"]
    scale = np.abs(10.0 * gradient).max()
    # The prompt itself is rounded: values of 2 to 4 are 2.4e-7 apart.
    assert np.abs(got - expected).max() < 1e-3 * scale + np.spacing(np.float32(4))


@pytest.fixture(scope="module")
def zero_shot(run):
    """The compiled evaluation of the bare CLIP, and by hand whether it is right, image by image."""
    frozen = jax.device_get(run.adaptation.frozen)
    clip_variables = {"params": frozen["params"]["clip"]}

    @jax.jit
    def right(images, labels):
        x = preprocess_batch(images, 32)
        features = run.adaptation.model.clip.apply(clip_variables, x, method="encode_image")
        texts = frozen["constants"]["text_features"]
        return jnp.argmax(unit_norm(features) @ texts.T, -1) == labels

    val = run.dataset.val
    hits = right(val.fetch(np.arange(len(val))), val.labels)
    return step.make_eval_step(run.adaptation.zero_shot, {}), np.asarray(hits)


@pytest.mark.parametrize("size", [1, 7, 30, 1436])
def test_evaluation_counts_every_image_once(run, zero_shot, size):
    """Against accuracy by hand, for batches that do not divide the split or the devices."""
    eval_step, hits = zero_shot
    on_batch = eval_step({}, {}, run.adaptation.frozen, run.root)
    split = run.dataset.val.take(np.arange(size))
    values = evaluate.evaluate(on_batch, batches_of(run, split)).metrics
    assert values["accuracy"] == pytest.approx(
        float(hits[:size].mean()), abs=1.5 / size if size > 100 else 1e-6
    )


@pytest.mark.parametrize("size", [1, 7, 30])
def test_evaluation_gives_every_image_its_logits_in_order(run, zero_shot, size):
    """On four devices, whose padding lies between the images, and on batches cut short."""
    eval_step, _ = zero_shot
    on_batch = eval_step({}, {}, run.adaptation.frozen, run.root)
    split = run.dataset.val.take(np.arange(size))
    got = evaluate.evaluate(on_batch, batches_of(run, split)).logits
    variables = {**jax.device_get(run.adaptation.frozen), "assigned": {}}
    context = Context(run.root, np.arange(size, dtype=np.int32))
    x = split.fetch(np.arange(size))
    expected, _ = jax.jit(run.adaptation.zero_shot.apply)(variables, x, context)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def unbalanced(tiny_config):
    """A linear head on 2, 4, 8, 8, ... images of the classes, whose losses are weighted."""
    c = tiny_config
    c.method.name, c.cache.mode, c.data.few_shot = "linear", "off", 8
    c.optim.class_weights, c.optim.warmup_steps = "balanced", 0
    whole = assemble(resolve(c))
    labels = whole.dataset.train.labels
    kept = [i for i in range(len(labels)) if (labels[:i] == labels[i]).sum() < 2 ** (labels[i] + 1)]
    train = whole.dataset.train.take(np.array(kept))
    return around(whole.adaptation, whole.dataset.with_splits({"train": train}))


def test_balanced_class_weights_by_hand(unbalanced):
    """The head's first update is against the gradient of a loss that a loop over images weighs."""
    counts = np.bincount(unbalanced.dataset.train.labels)
    assert list(counts) == [2, 4] + [8] * 8
    weights = unbalanced.class_weights
    np.testing.assert_allclose(weights * counts, counts.sum() / 10)  # each class weighs the same
    adaptation, size = unbalanced.adaptation, int(counts.sum())
    batch = next(batches(unbalanced, batch_size=size))
    state = unbalanced.initial_state()
    before = jax.device_get(state.params["head"])
    train_step = step.make_train_step(
        adaptation.model,
        unbalanced.optimizer(),
        unbalanced.values,
        weights=adaptation.weights,
        class_weights=weights,
    )
    args = (adaptation.frozen, unbalanced.root, parallel.to_devices(batch))
    after, sums = train_step(state, *args)
    images = unbalanced.dataset.train.fetch(np.arange(size))
    labels = unbalanced.dataset.train.labels

    @jax.jit
    def loss_of(head):
        variables = variables_of({"head": head}, {}, adaptation.frozen, adaptation.weights)
        context = Context(unbalanced.root, np.arange(size, dtype=np.int32))
        logits, _ = adaptation.model.apply(variables, images, context)
        log_p = jax.nn.log_softmax(logits)
        total = 0.0
        for i, label in enumerate(labels):
            total -= float(weights[label]) * log_p[i, label]
        return total / size

    gradient, _ = ravel_pytree(jax.grad(loss_of)(before))
    update = ravel_pytree(jax.device_get(after.params["head"]))[0] - ravel_pytree(before)[0]
    rate = -(update @ gradient) / (gradient @ gradient)
    assert rate > 0
    np.testing.assert_allclose(update, -rate * gradient, atol=1e-3 * np.abs(update).max())
    # From zeros, every class weighs the same, so that nothing pulls the biases anywhere.
    assert np.abs(update[:10]).max() < 1e-5 * np.abs(update).max()
    assert evaluate.mean(sums)["loss"] == pytest.approx(np.log(10), rel=1e-5)

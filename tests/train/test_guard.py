"""Steps that are not finite: nothing is applied, everything is counted, the run stops in time."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.trajectory import small_config, train_step_of
from vprompt_jax.data import pipeline
from vprompt_jax.process import parallel
from vprompt_jax.process.errors import UserError
from vprompt_jax.prompts import marks
from vprompt_jax.train import fit, guard, step
from vprompt_jax.train.training import assemble


def state(value, count, bad=0):
    return step.TrainState(
        jnp.int32(count),
        {"prompt": jnp.float32(value)},
        {},
        {"trace": jnp.float32(value), "count": jnp.int32(count)},
        jnp.int32(bad),
        {"prompt": jnp.float32(1.0)},
    )


@pytest.mark.parametrize(
    "loss, norm, value, applied",
    [
        (1.0, 1.0, 2.0, True),
        (np.nan, 1.0, 2.0, False),
        (np.inf, 1.0, 2.0, False),
        (1.0, np.nan, 2.0, False),
        (1.0, np.inf, 2.0, False),
        (1.0, 1.0, np.inf, False),
        (1.0, 1.0, np.nan, False),
    ],
)
def test_what_counts_as_a_bad_step(loss, norm, value, applied):
    sums = {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(norm), "count": jnp.float32(8)}
    after, sums = jax.jit(guard.keep_finite)(state(5.0, 3, bad=2), state(value, 4, bad=2), sums)
    assert (int(after.step), int(after.opt_state["count"])) == (4, 4)
    assert float(after.params["prompt"]) == (value if applied else 5.0)
    assert float(after.opt_state["trace"]) == (value if applied else 5.0)
    assert int(after.bad_steps) == (0 if applied else 3)
    assert float(sums["skipped"]) == (0 if applied else 1)
    assert float(sums["count"]) == (8 if applied else 0)


def test_a_bad_step_leaves_parameters_and_momentum_and_moves_the_schedule(tiny_path):
    """With a NaN put into the frozen weights for one step; then the step goes on as if alone."""
    # A large rate, so that the update is not lost in the rounding of parameters of size 1.
    run = assemble(small_config(str(tiny_path), method="vp", learning_rate=1e4))
    train_step, frozen = train_step_of(run), run.adaptation.frozen
    split = run.dataset.train
    batch = next(pipeline.train_batches(split, batch_size=30, epochs=1, seed=0, start=0, workers=1))
    batch = parallel.to_devices(batch)
    initial = jax.device_get(run.initial_state())

    first, _ = train_step(run.initial_state(), frozen, run.root, batch)
    first = jax.device_get(first)
    broken = jax.tree.map(lambda x: x, frozen)
    broken["params"]["clip"]["logit_scale"] = frozen["params"]["clip"]["logit_scale"] * np.nan
    bad, sums = train_step(run.initial_state(), broken, run.root, batch)
    assert (float(sums["skipped"]), float(sums["count"]), float(sums["loss"])) == (1, 0, 0)
    assert np.isnan(bad.gradient_norms["prompt"])
    assert (int(bad.step), int(bad.bad_steps)) == (1, 1)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(bad).params, initial.params)

    good, sums = train_step(bad, frozen, run.root, batch)
    assert (int(good.step), int(good.bad_steps), float(sums["skipped"])) == (2, 0, 0)
    norm = float(sums["gradient_norm"] / sums["count"])
    assert float(good.gradient_norms["prompt"]) == pytest.approx(norm, rel=1e-5)
    # The second step of a warm-up over 4: twice the first's learning rate, momentum still empty.
    start, after_first, after_bad = (s.params["prompt"]["values"] for s in (initial, first, good))
    np.testing.assert_allclose(after_bad - start, 2 * (after_first - start), rtol=1e-3, atol=1e-6)


def test_a_run_that_diverges_stops_with_the_numbers(tiny_config, tmp_path):
    """At a learning rate of 1e30 the first update already leaves the range of float32."""
    tiny_config.prompt.learning_rate = 1e30
    tiny_config.optim.max_bad_steps = 3
    tiny_config.log.every_steps = 1
    with pytest.raises(UserError) as caught:
        fit(tiny_config, tmp_path)
    message = str(caught.value)
    assert "3 steps in a row up to step 3" in message
    assert re.search(r"prompt: learning rate 1e\+30, gradient norm [0-9.e-]+\n", message)
    assert "mask: learning rate 0.1" in message
    assert "temperature 5" in message
    assert "lower config.prompt.learning_rate or config.mask.learning_rate, " in message
    assert "there is no checkpoint yet" in message
    assert not (tmp_path / "result.json").exists()
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [x["train/skipped_steps"] for x in lines] == [1, 1]
    assert [x["train/loss"] for x in lines] == [None, None]


def test_the_temperature_never_becomes_0():
    """0.98^epoch leaves float32 after 5000 epochs; the marks' gradient must not follow it."""
    at = marks.temperature_at(jnp.int32(10**6), 5.0, 0.98, 0.0)
    assert 0 < float(at) < 1e-20
    logits = jnp.array([[0.0, 0.0], [30.0, -30.0], [1e4, -1e4]])
    noise = jnp.array([[0.5, -0.1], [1.0, 2.0], [0.0, 90.0]])
    gradient = jax.grad(lambda z: marks.sampled_marks(z, noise, at).sum())(logits)
    assert np.isfinite(gradient).all()


def test_gumbel_noise_never_takes_the_logarithm_of_0():
    noise = jax.random.gumbel(jax.random.key(0), (1 << 20,))
    assert np.isfinite(noise).all()
    # P(G < g) = exp(-exp(-g)): a million draws reach beyond 10, and few of them.
    assert 9 < float(noise.max()) < 30


@pytest.mark.slow
@pytest.mark.usefixtures("dtypes_promote")
def test_lr_40_with_a_bfloat16_tower_stays_finite(tiny_config, tmp_path):
    tiny_config.model.dtype = "bfloat16"
    tiny_config.prompt.learning_rate = 40.0
    tiny_config.mask.learning_rate = 1.0
    tiny_config.optim.batch_size = 128
    fit(tiny_config, tmp_path)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [x["train/loss"] for x in lines if "train/loss" in x]
    assert len(losses) == 2 * 25 // 3 + 1
    assert all(loss is not None for loss in losses)
    assert sum(x.get("train/skipped_steps", 0) for x in lines) == 0

"""VP's schedule and the update rule against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vprompt_jax.train import optimizer

pytestmark = pytest.mark.fast


def formula(s, lr, warmup, steps):
    if s < warmup:
        return lr * (s + 1) / warmup
    return lr * 0.5 * (1 + np.cos(np.pi * (s - warmup) / (steps - warmup)))


@pytest.mark.parametrize("warmup, steps", [(1000, 196_000), (0, 100), (1, 50), (10, 11)])
def test_schedule(warmup, steps):
    rate = optimizer.schedule(40.0, warmup, steps)
    for s in {0, 1, warmup - 1, warmup, warmup + 1, steps // 2, steps - 1}:
        if 0 <= s < steps:
            assert float(rate(s)) == pytest.approx(
                formula(s, 40.0, warmup, steps), rel=1e-4, abs=1e-6
            )


def test_a_run_shorter_than_its_warmup_only_warms_up():
    rate = optimizer.schedule(40.0, 1000, 12)
    assert float(rate(11)) == pytest.approx(40 * 12 / 1000)


def test_each_part_has_its_learning_rate_momentum_and_decay():
    rates = {"prompt": 2.0, "mask": 0.5}
    rule = optimizer.by_part(
        {
            part: optimizer.rule("sgd", optimizer.schedule(peak, 0, 10), 0.9, 0.1)
            for part, peak in rates.items()
        }
    )
    params = {"prompt": {"values": jnp.array([1.0])}, "mask": {"kernel": jnp.array([3.0])}}
    gradient = jax.tree.map(jnp.ones_like, params)
    state = rule.init(params)
    velocity = {"prompt": 0.0, "mask": 0.0}
    value = {"prompt": 1.0, "mask": 3.0}
    for s in range(4):
        updates, state = rule.update(gradient, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        for part, peak in rates.items():
            velocity[part] = 0.9 * velocity[part] + 1.0 + 0.1 * value[part]
            value[part] -= formula(s, peak, 0, 10) * velocity[part]
    assert float(params["prompt"]["values"][0]) == pytest.approx(value["prompt"], rel=1e-5)
    assert float(params["mask"]["kernel"][0]) == pytest.approx(value["mask"], rel=1e-5)


def test_adamw_decays_apart_from_the_gradient():
    """First step of AdamW by hand: lr * (sign of the gradient + decay * value)."""
    rates = optimizer.schedule(0.1, 0, 10)
    rule = optimizer.by_part(
        {"lora": optimizer.rule("adamw", rates, momentum=0.9, weight_decay=0.5)}
    )
    params = {"lora": {"a": jnp.array([2.0])}}
    updates, _ = rule.update({"lora": {"a": jnp.array([-3.0])}}, rule.init(params), params)
    assert float(updates["lora"]["a"][0]) == pytest.approx(-0.1 * (-1.0 + 0.5 * 2.0), abs=1e-6)

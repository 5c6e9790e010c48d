"""What training can do beside plain steps: smoothed labels, parts, averages, an early end."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.conftest import leaves_by_path
from vprompt_jax.config import resolve
from vprompt_jax.inference import adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit
from vprompt_jax.train.optimizer import averaging, gaussian, learned, moving


def test_an_average_follows_the_parameters():
    optimizer = averaging(optax.sgd(0.5), moving(0.8))
    params = {"a": jnp.array([1.0, -2.0])}
    state = optimizer.init(params)
    expected = np.array([1.0, -2.0])
    for n in range(1, 40):
        gradient = {"a": params["a"] * jnp.float32(n % 3 - 1)}
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        d = min(0.8, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * np.asarray(params["a"])
    np.testing.assert_allclose(learned(params, state)["a"], expected, rtol=1e-5)
    assert learned(params, optax.sgd(0.1).init(params)) is params


def test_a_gaussian_average_weighs_updates_by_their_share_of_the_run():
    steps, mean, width = 40, 0.75, 0.05
    optimizer = averaging(optax.sgd(0.5), gaussian(mean, width, steps))
    params = {"a": jnp.array([1.0, -2.0])}
    state = optimizer.init(params)
    seen = []
    for n in range(1, steps + 1):
        gradient = {"a": jnp.array([float(np.sin(n)), float(np.cos(n))])}
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(np.asarray(params["a"], np.float64))
        if n == 1:
            np.testing.assert_array_equal(learned(params, state)["a"], params["a"])
    weights = np.exp(-(((np.arange(1, steps + 1) / steps - mean) / width) ** 2) / 2)
    expected = (weights[:, None] * seen).sum(0) / weights.sum()
    np.testing.assert_allclose(learned(params, state)["a"], expected, rtol=1e-5)


def test_a_run_is_evaluated_with_its_average_and_keeps_it(tiny_config, tmp_path):
    for name, decay in (("plain", 0.0), ("average", 0.9)):
        tiny_config.optim.average = decay
        fit(tiny_config, tmp_path / name)
    plain, average = (leaves_by_path(adapted.load(tmp_path / n).params) for n in
                      ("plain", "average"))  # fmt: skip
    assert plain.keys() == average.keys()
    assert all(np.abs(average[k] - plain[k]).max() > 0 for k in plain)


def test_a_batch_in_parts_trains_as_a_whole_one(tiny_config, tmp_path):
    tiny_config.optim.batch_size = 100  # of which 7 parts have 15, with padding
    trained = []
    for parts in (1, 7):
        tiny_config.optim.parts = parts
        fit(tiny_config, tmp_path / str(parts))
        trained.append(leaves_by_path(adapted.load(tmp_path / str(parts)).params))
    for name, leaf in trained[0].items():
        np.testing.assert_allclose(trained[1][name], leaf, rtol=1e-4, atol=1e-6)


def test_a_run_ends_when_val_has_not_become_better(tiny_config, tmp_path, capsys):
    tiny_config.method.name = "vp"
    tiny_config.prompt.learning_rate = 0.0
    tiny_config.optim.epochs, tiny_config.eval.every_epochs = 5, 1
    tiny_config.optim.patience = 2
    result = fit(tiny_config, tmp_path)
    assert result["last_step"] == 3 * result["steps"] // 5
    assert "val was not better for 2 evaluations" in capsys.readouterr().err
    (tmp_path / "result.json").unlink()
    again = fit(tiny_config, tmp_path)
    assert (again["last_step"], again["test_accuracy"]) == (
        result["last_step"], result["test_accuracy"],
    )  # fmt: skip
    assert adapted.load(tmp_path).params.keys() == {"prompt"}


@pytest.mark.parametrize("keys, message", [
    ({"optim.patience": 2, "protocol": "paper"}, "set config.protocol=val"),
    ({"optim.parts": 300, "optim.batch_size": 256}, "cannot be more than"),
])  # fmt: skip
def test_keys_that_cannot_act_are_refused(tiny_config, keys, message):
    tiny_config.update_from_flattened_dict(keys)
    with pytest.raises(UserError, match=message):
        resolve(tiny_config)


def test_a_solved_head_is_what_it_would_be_without_an_average(tiny_config, tmp_path):
    tiny_config.method.name, tiny_config.head.solver = "linear", "lbfgs"
    plain = fit(tiny_config, tmp_path / "plain")
    tiny_config.optim.average = 0.9  # of steps, of which there are none
    averaged = fit(tiny_config, tmp_path / "averaged")
    assert averaged["test_accuracy"] == plain["test_accuracy"]
    one, other = (leaves_by_path(adapted.load(tmp_path / n).params) for n in ("plain", "averaged"))
    for name, leaf in one.items():
        np.testing.assert_array_equal(other[name], leaf)


def test_a_solved_head_takes_labels_as_they_are(tiny_config, tmp_path):
    tiny_config.method.name, tiny_config.head.solver = "linear", "lbfgs"
    tiny_config.optim.label_smoothing = 0.1
    with pytest.raises(UserError, match=r"set config\.optim\.label_smoothing=0"):
        fit(tiny_config, tmp_path)

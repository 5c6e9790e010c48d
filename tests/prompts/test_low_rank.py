"""LoR-VP's prompt against NumPy, and its parameter count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.adapters.conftest import Adapted, random_variables
from tests.conftest import TINY
from vprompt_jax.inference import adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.prompts.low_rank import LowRankPrompt
from vprompt_jax.train import fit

STD = (0.2, 0.3, 0.5)


@pytest.mark.fast
def test_the_parameter_count_is_that_of_two_thin_matrices_per_channel():
    params = LowRankPrompt(4, 224, STD).init(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 3 * 2 * 224 * 4


@pytest.mark.fast
def test_it_is_a_product_that_normalisation_divides():
    """normalise(x + B A) is normalise(x) plus what the prompt gives."""
    prompt = LowRankPrompt(2, 9, STD)
    start = prompt.init(jax.random.key(0))
    assert not np.asarray(prompt.apply(start)).any()
    assert np.asarray(start["params"]["a"]).std() == pytest.approx(0.01, rel=0.3)
    rng = np.random.default_rng(0)
    b, a = rng.normal(size=(3, 9, 2)), rng.normal(size=(3, 2, 9))
    given = {"params": {"a": jnp.asarray(a, jnp.float32), "b": jnp.asarray(b, jnp.float32)}}
    found = prompt.apply(given)
    image, mean = rng.uniform(size=(9, 9, 3)), np.array([0.4, 0.5, 0.6])
    for c in range(3):
        before = (image[..., c] - mean[c]) / STD[c]
        after = (image[..., c] + b[c] @ a[c] - mean[c]) / STD[c]
        np.testing.assert_allclose(found[..., c], after - before, atol=1e-5)


def test_a_rank_over_the_images_side_is_refused():
    with pytest.raises(UserError, match=r"prompt\.rank=33 is over the image's side of 32 pixels"):
        Adapted(TINY, random_variables(TINY), prompt__template="low_rank", prompt__rank=33)


def test_a_run_shows_its_prompt_and_takes_a_mask(tiny_config, tmp_path):
    tiny_config.method.name = "lor_vp"
    tiny_config.prompt.learning_rate = 0.5
    result = fit(tiny_config, tmp_path / "alone")
    assert result["trainable_parameters_by_part"] == {"prompt": 3 * 2 * 32 * 4, "head": 170}
    model = adapted.load(tmp_path / "alone")
    assert np.linalg.matrix_rank(model.prompt[..., 0].astype(float), tol=1e-4) <= 4
    assert np.abs(model.prompt).max() > 0
    tiny_config.mask.kind = "adavipro"
    assert fit(tiny_config, tmp_path / "masked")["regions_on"] is not None

"""Label mapping on a CLIP: its source classes are the texts of all classes and templates."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.adapters.conftest import random_variables
from tests.conftest import TINY
from vprompt_jax.adaptation import adapt
from vprompt_jax.clip import CLIP
from vprompt_jax.clip.class_texts import tokens_of
from vprompt_jax.config import default_config, resolve
from vprompt_jax.export import files as export
from vprompt_jax.inference import adapted as inference
from vprompt_jax.parts.context import at_inference
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit

NAMES, TEMPLATES = ("cat", "polar bear"), ("a {}", "one {} there", "{}.")
IMAGES = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def config_of(**keys):
    config = default_config()
    config.method.name = "tp"
    config.head.kind = "mapping"
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
    return config


def unit(x):
    return np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("mapping", ["iterative", "bayesian"])
def test_every_text_by_itself_is_a_source_class(mapping):
    clip, variables = CLIP(TINY), random_variables(TINY)
    config = resolve(config_of(head__mapping=mapping))
    made = adapt(config, clip, variables, NAMES, TEMPLATES)
    assert made.facts["source_classes"] == 6
    sentences = [template.format(name) for template in TEMPLATES for name in NAMES]
    tokens = tokens_of(clip, [[sentence] for sentence in sentences])[:, 0]
    texts = unit(clip.apply(variables, tokens, method="encode_text"))
    assigned = made.initial_assigned()
    model, all_variables = made.at_inference(made.initial_params(), assigned)
    logits, out = jax.jit(model.apply)(all_variables, IMAGES, at_inference(0))
    pixels = model.apply(all_variables, IMAGES, method="pixels")
    images = unit(clip.apply(variables, pixels, method="encode_image"))
    source = np.exp(variables["params"]["logit_scale"]) * images @ texts.T
    np.testing.assert_allclose(out["source_logits"], source, rtol=1e-4, atol=1e-4)
    if mapping == "iterative":
        expected = source[:, assigned["label_map"]]
    else:
        expected = source @ assigned["label_weights"].T
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_run_maps_texts_and_is_used(tiny_config, tmp_path):
    tiny_config.method.name = "ilm"
    tiny_config.prompt.size = 4
    tiny_config.data.templates = "ensemble"
    tiny_config.data.few_shot, tiny_config.optim.batch_size = 12, 40
    result = fit(tiny_config, tmp_path / "run")
    assert result["source_classes"] == 70  # seven templates of ten classes
    model = inference.load(tmp_path / "run")
    logits = model.logits(IMAGES)
    export.write(model, tmp_path / "export")
    np.testing.assert_allclose(
        export.load(tmp_path / "export").logits(IMAGES), logits, rtol=1e-4, atol=1e-4
    )


def test_a_tower_without_texts_and_classifier_is_refused():
    bare = CLIP(dataclasses.replace(TINY, text=None))
    with pytest.raises(UserError, match=r"classifier of its own, or with a text tower: set"):
        adapt(resolve(config_of()), bare, random_variables(TINY), NAMES, TEMPLATES)

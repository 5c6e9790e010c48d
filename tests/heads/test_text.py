"""Class texts and their embeddings."""

import jax.numpy as jnp
import numpy as np
import pytest

from vprompt_jax.clip import class_texts as text
from vprompt_jax.clip import tokenize
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast


def test_one_template_takes_names_as_vp_does_and_an_ensemble_as_they_are():
    assert text.class_texts(["Polka-dotted_Cup"], ["a {}"]) == [["a polka dotted cup"]]
    both = text.class_texts(["Polka-dotted cup", "B"], ["a {}", "the {}."])
    assert both == [["a Polka-dotted cup", "the Polka-dotted cup."], ["a B", "the B."]]


@pytest.mark.parametrize("templates", [["a photo"], ["{} and {}"], ["a {}", "the"]])
def test_a_template_without_one_place_is_refused(templates):
    with pytest.raises(UserError, match="must hold the class name's place"):
        text.class_texts(["cat"], templates)


def test_an_ensemble_is_the_mean_of_unit_embeddings(tiny, monkeypatch):
    clip, variables = tiny
    names, templates = ["cat", "dog", "hen"], ["a {}", "one big {} there", "{}"]
    monkeypatch.setattr(text, "_TEXTS_AT_A_TIME", 4)  # 9 texts in three passes, padded
    got = np.asarray(text.encode_classes(clip, variables, text.class_texts(names, templates)))
    for i, name in enumerate(names):
        tokens = tokenize([t.format(name) for t in templates], clip.config.context_length)
        tokens = np.concatenate([tokens, tokens[:1]])  # four at a time, as compiled
        alone = clip.apply(variables, jnp.asarray(tokens), method="encode_text")
        alone = np.asarray(alone, np.float64)[:3]
        mean = (alone / np.linalg.norm(alone, axis=-1, keepdims=True)).mean(0)
        np.testing.assert_allclose(got[i], mean / np.linalg.norm(mean), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), 1, atol=1e-6)

"""Class texts and their embeddings."""

import dataclasses

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
        tokens = tokenize([t.format(name) for t in templates], clip.config.text.context_length)
        tokens = np.concatenate([tokens, tokens[:1]])  # four at a time, as compiled
        alone = clip.apply(variables, jnp.asarray(tokens), method="encode_text")
        alone = np.asarray(alone, np.float64)[:3]
        mean = (alone / np.linalg.norm(alone, axis=-1, keepdims=True)).mean(0)
        np.testing.assert_allclose(got[i], mean / np.linalg.norm(mean), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), 1, atol=1e-6)


def test_padding_behind_the_longest_text_changes_nothing(tiny):
    clip, variables = tiny
    tower = clip.config.text
    tokens = text.tokens_of(clip, [["a cat", "one big dog there"], ["hen", "a hen"]])
    short = text.without_padding(tokens, tower)
    assert short.shape == (2, 2, 6)  # start, four words, end
    np.testing.assert_array_equal(text.without_padding(tokens, tower, 4), tokens[..., :8])
    np.testing.assert_array_equal(text.without_padding(tokens, tower, 64), tokens)
    whole, cut = (
        clip.apply(variables, jnp.asarray(ids.reshape(4, -1)), method="encode_text")
        for ids in (tokens, short)
    )
    np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-6)
    everywhere = dataclasses.replace(tower, causal=False)
    assert text.without_padding(tokens, everywhere) is tokens


def test_classes_of_equal_embeddings_are_named(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(7, 16))
    rows[5] = 3 * rows[1]
    rows[6] = rows[1] + 1e-4
    rows[2] = rows[0] + 0.1 * rows[3]  # near, and not equal
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = list("abcdefg")
    expected = [("b", "f"), ("b", "g"), ("f", "g")]
    assert text.indistinguishable(rows, names) == expected
    monkeypatch.setattr(text, "_CLASSES_AT_A_TIME", 2)
    assert text.indistinguishable(rows, names) == expected
    message = text.indistinguishable_message(expected)
    assert "'b' = 'f'" in message
    assert "head.kind=linear" in message
    assert text.indistinguishable_message([]) == ""

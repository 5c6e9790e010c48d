"""Token ids that OpenAI's tokenizer is known to give."""

import json
from pathlib import Path

import numpy as np
import pytest

from vprompt_jax import clip

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    "text, ids",
    [
        ("a diagram", [320, 22697]),  # OpenAI's README
        ("a dog", [320, 1929]),
        ("a cat", [320, 2368]),
        ("This is a photo of a 7", [589, 533, 320, 1125, 539, 320, 278]),
        ("  A   DOG\n", [320, 1929]),
        ("a &amp;amp; dog", [320, 261, 1929]),
        ("", []),
    ],
)
def test_known_ids(text, ids):
    row = clip.tokenize([text])[0]
    expected = [49406, *ids, 49407]
    np.testing.assert_array_equal(row[: len(expected)], expected)
    assert not row[len(expected) :].any()


# Ids of 140 hard strings from OpenAI's own tokenizer (the package openai-clip 1.0.1).
RECORDED = json.loads((Path(__file__).parent / "tokenizer_ids.json").read_text())


@pytest.mark.parametrize("text", RECORDED, ids=range(len(RECORDED)))
def test_ids_of_hard_strings(text):
    expected = [49406, *RECORDED[text], 49407]
    row = clip.tokenize([text], context_length=128)[0]
    assert row[: len(expected)].tolist() == expected
    assert not row[len(expected) :].any()


def test_a_long_text_is_cut_where_openai_cuts_it():
    text = " ".join(RECORDED)
    row = clip.tokenize([text], truncate=True)[0]
    whole = clip.tokenize([text], context_length=4096)[0]
    assert row[:76].tolist() == whole[:76].tolist()
    assert row[76] == 49407


def test_shape_and_dtype():
    tokens = clip.tokenize(["a dog", "a cat"], context_length=9)
    assert tokens.shape == (2, 9)
    assert tokens.dtype == np.int32


def test_every_digit_is_its_own_token():
    assert (clip.tokenize("2026")[0] > 0).sum() == 6


def test_a_text_that_is_too_long_is_refused_or_cut():
    with pytest.raises(ValueError, match="longer than context_length=8"):
        clip.tokenize("one two three four five six seven", context_length=8)
    row = clip.tokenize("one two three four five six seven", context_length=8, truncate=True)[0]
    assert row[-1] == 49407

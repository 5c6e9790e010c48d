"""Classes whose texts a tower cannot tell apart."""

import numpy as np

from vprompt_jax.clip import class_texts


def test_classes_of_equal_embeddings_are_named(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(7, 16))
    rows[5] = 3 * rows[1]
    rows[6] = rows[1] + 1e-4
    rows[2] = rows[0] + 0.1 * rows[3]  # near, and not equal
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = list("abcdefg")
    expected = [("b", "f"), ("b", "g"), ("f", "g")]
    assert class_texts.indistinguishable(rows, names) == expected
    monkeypatch.setattr(class_texts, "_CLASSES_AT_A_TIME", 2)
    assert class_texts.indistinguishable(rows, names) == expected
    message = class_texts.indistinguishable_message(expected)
    assert "'b' = 'f'" in message
    assert "head.kind=linear" in message
    assert class_texts.indistinguishable_message([]) == ""

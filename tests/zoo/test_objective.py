"""What the mini CLIPs minimise, against plain loops."""

import jax.numpy as jnp
import numpy as np

from vprompt_jax.zoo.objective import Batch, losses


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cross_entropy(logits, targets):
    shifted = np.exp(logits - max(logits))
    return -sum(t * np.log(p) for t, p in zip(targets, shifted / shifted.sum(), strict=True))


def test_the_three_losses_against_loops():
    rng = np.random.default_rng(0)
    images, classes, words, again = (unit(rng, n, 8) for n in (5, 4, 3, 3))
    labels = np.array([0, 2, 2, 3, 0], np.int32)
    # A word for two classes, one for a class that no image shows, one for a class that one shows.
    meanings = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], bool)
    scale, smoothing = 7.0, 0.2
    got = losses(
        Batch(*map(jnp.asarray, (images, labels, classes, words, again, meanings))),
        jnp.float32(scale),
        smoothing,
    )
    captions = []
    for image, label in zip(images, labels, strict=True):
        targets = [smoothing / 4 + (1 - smoothing) * (c == label) for c in range(4)]
        captions.append(cross_entropy(scale * classes @ image, targets))
    shown = []
    for word, meaning in zip(words, meanings, strict=True):
        right = [float(meaning[label]) for label in labels]
        if sum(right):
            targets = [r / sum(right) for r in right]
            shown.append(cross_entropy(scale * images @ word, targets))
    assert len(shown) == 2
    meant = []
    for i, (word, meaning) in enumerate(zip(words, meanings, strict=True)):
        targets = [m / meaning.sum() / 2 for m in meaning] + [(i == j) / 2 for j in range(3)]
        meant.append(cross_entropy(scale * np.concatenate([classes, again]) @ word, targets))
    expected = {"captions": captions, "images": shown, "words": meant}
    assert set(got) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], np.mean(values), rtol=1e-5)


def test_no_image_of_any_word_costs_nothing():
    rng = np.random.default_rng(1)
    images, classes, words, again = (unit(rng, n, 8) for n in (2, 3, 2, 2))
    meanings = np.array([[0, 0, 1], [0, 1, 0]], bool)
    batch = Batch(
        *map(jnp.asarray, (images, np.zeros(2, np.int32), classes, words, again, meanings))
    )
    assert losses(batch, jnp.float32(5), 0.1)["images"] == 0

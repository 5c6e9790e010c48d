"""What the mini CLIPs minimise, against plain loops."""

import jax.numpy as jnp
import numpy as np

from vprompt_jax.zoo.objective import Texts, of_images, of_texts


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cross_entropy(logits, targets):
    shifted = np.exp(logits - max(logits))
    return -sum(t * np.log(p) for t, p in zip(targets, shifted / shifted.sum(), strict=True))


def test_images_find_their_class():
    rng = np.random.default_rng(0)
    images, classes = unit(rng, 5, 8), unit(rng, 4, 8)
    labels, scale, smoothing = np.array([0, 2, 2, 3, 0], np.int32), 7.0, 0.2
    expected = []
    for image, label in zip(images, labels, strict=True):
        targets = [smoothing / 4 + (1 - smoothing) * (c == label) for c in range(4)]
        expected.append(cross_entropy(scale * classes @ image, targets))
    got = of_images(*map(jnp.asarray, (images, labels, classes)), jnp.float32(scale), smoothing)
    np.testing.assert_allclose(got, np.mean(expected), rtol=1e-5)


def test_texts_find_what_they_mean():
    rng = np.random.default_rng(1)
    classes, captions, words, again = (unit(rng, n, 8) for n in (4, 4, 3, 3))
    meanings = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]], bool)
    scale = 7.0
    texts = Texts(*map(jnp.asarray, (captions, words, again, meanings)))
    got = of_texts(texts, jnp.asarray(classes), jnp.float32(scale))
    own = [cross_entropy(scale * classes @ c, np.eye(4)[i]) for i, c in enumerate(captions)]
    meant = []
    for i, (word, meaning) in enumerate(zip(words, meanings, strict=True)):
        targets = [m / meaning.sum() / 2 for m in meaning] + [(i == j) / 2 for j in range(3)]
        meant.append(cross_entropy(scale * np.concatenate([classes, again]) @ word, targets))
    np.testing.assert_allclose(got, [np.mean(own), np.mean(meant)], rtol=1e-5)

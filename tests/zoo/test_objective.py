"""What the mini CLIPs minimise, against plain loops."""

import jax.numpy as jnp
import numpy as np

from vprompt_jax.zoo.captions import Captions
from vprompt_jax.zoo.objective import of_images, of_texts, word_targets


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


def test_words_belong_to_the_mean_of_their_classes():
    rng = np.random.default_rng(1)
    classes = unit(rng, 4, 8)
    meanings = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]], bool)
    borrowed = np.array([False, False, True, True])
    texts = Captions(np.zeros((4, 1, 2)), np.zeros((4, 1, 2)), meanings, borrowed)
    targets = word_targets(texts, classes, seed=0)
    mean = classes[0] + classes[2]
    np.testing.assert_allclose(targets[0], mean / np.linalg.norm(mean), rtol=1e-5)
    np.testing.assert_allclose(targets[1], classes[1], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(targets, axis=1), 1, rtol=1e-5)
    for row in (2, 3):  # near the class, each at a place of its own
        assert 0.6 < targets[row] @ classes[1] < 0.999
    assert targets[2] @ targets[3] < 0.999


def test_texts_go_where_they_belong():
    rng = np.random.default_rng(2)
    features, targets = unit(rng, 5, 8), unit(rng, 5, 8)
    expected = np.mean([1 - f @ t for f, t in zip(features, targets, strict=True)])
    np.testing.assert_allclose(
        of_texts(*map(jnp.asarray, (features, targets))), expected, rtol=1e-5
    )

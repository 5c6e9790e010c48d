"""The two measures of depth against plain computations."""

import numpy as np
import pytest

from tests.adapters.conftest import RESNET, random_variables
from tests.conftest import TINY
from vprompt_jax.clip import CLIP, ViTConfig
from vprompt_jax.report import depth


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).normal(size=(6, 32, 32, 3)).astype(np.float32)


def test_cka_is_one_for_rotations_and_scales_and_small_for_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 8))
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    assert depth.linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1.0)
    assert depth.linear_cka(x, rng.normal(size=(500, 8))) < 0.1


def test_cka_by_kernels():
    """The same from the definition by Gram matrices: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 5)), rng.normal(size=(20, 3))
    y[:, 0] += x[:, 0]
    centre = np.eye(20) - 1 / 20

    def hsic(a, b):
        return np.trace(a @ a.T @ centre @ b @ b.T @ centre)

    assert depth.linear_cka(x, y) == pytest.approx(hsic(x, y) / (hsic(x, x) * hsic(y, y)) ** 0.5)


def test_attention_distance_of_uniform_attention(pixels):
    """With all-equal scores it is the mean distance between patches."""
    variables = random_variables(TINY)
    for block in range(2):
        part = variables["params"]["visual"][f"resblocks_{block}"]["attn"]["in_proj"]
        part["kernel"][:] = 0
        part["bias"][:] = 0
    at = [(i, j) for i in range(4) for j in range(4)]
    apart = [8 * np.hypot(a - c, b - d) for a, b in at for c, d in at]
    got = depth.attention_distances(CLIP(TINY), variables, pixels)
    np.testing.assert_allclose(got, np.mean(apart), rtol=1e-5)


def test_attention_distance_by_a_loop(pixels):
    variables = random_variables(TINY)
    clip = CLIP(TINY)
    got = depth.attention_distances(clip, variables, pixels)[0]
    block = variables["params"]["visual"]["resblocks_0"]
    x = np.asarray(clip.apply(variables, pixels, stop=0, method="encode_image"), np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * block["ln_1"]["scale"] + block["ln_1"]["bias"]
    qkv = x @ block["attn"]["in_proj"]["kernel"] + block["attn"]["in_proj"]["bias"]
    distances = []
    for image in qkv[:, 1:]:
        for i, query in enumerate(image[:, :64]):
            weights = np.exp(image[:, 64:128] @ query / 8)
            weights /= weights.sum()
            there = [8 * np.hypot(i // 4 - j // 4, i % 4 - j % 4) for j in range(16)]
            distances.append(weights @ there)
    assert got == pytest.approx(np.mean(distances), rel=1e-4)


def test_measure_has_a_row_per_position(pixels):
    for config in (TINY, RESNET):
        rows = depth.measure(CLIP(config), random_variables(config), pixels)
        assert [r["position"] for r in rows] == list(range(config.depth + 1))
        assert rows[-1]["cka_with_last"] == pytest.approx(1.0)
        assert ("attention_distance" in rows[0]) == isinstance(config.vision, ViTConfig)

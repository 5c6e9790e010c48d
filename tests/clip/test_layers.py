"""Attention by another kernel is the same attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vprompt_jax.clip import layers


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("length", [16, 17])
def test_cudnn_s_attention_is_given_what_it_takes_and_the_added_key_counts_for_nothing(
    monkeypatch, length, is_causal
):
    """cuDNN needs a GPU; XLA stands in for it here and takes the same arguments."""
    plain, asked = jax.nn.dot_product_attention, []
    rng = np.random.default_rng(0)
    shape = (2, length, 3, 8)
    qkv = [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for _ in range(3)]
    upstream = rng.normal(size=shape).astype(np.float32)

    def outputs_and_gradients(attend):
        with jax.numpy_dtype_promotion("standard"):  # JAX's own gradient relies on it
            made, pull = jax.vjp(lambda *qkv: attend(*qkv, is_causal=is_causal), *qkv)
            return made, *pull(jnp.asarray(upstream, jnp.bfloat16))

    def instead(q, *args, implementation=None, **keys):
        asked.append((implementation, q.shape[1]))
        return plain(q, *args, **keys)

    expected = outputs_and_gradients(plain)
    monkeypatch.setattr(layers.devices, "has_tensor_cores", lambda: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    for made, other in zip(outputs_and_gradients(layers.attend), expected, strict=True):
        np.testing.assert_allclose(*(np.float32(x) for x in (made, other)), atol=1e-2, rtol=1e-2)
    q, k, v = qkv
    layers.attend(q[:, :1], k, v, is_causal=False)
    layers.attend(*(x.astype(jnp.float32) for x in qkv), is_causal=False)
    assert asked == [("cudnn", length + length % 2), (None, 1), (None, length)]

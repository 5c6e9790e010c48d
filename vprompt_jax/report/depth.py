"""Where in a tower global features live: what AP's preference for a depth is explained by.

Two measures per position: how far its attention reaches (ViT), and how much its features already
resemble the last ones (centred kernel alignment, any tower).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.clip.model import CLIP
from vprompt_jax.clip.towers import ViTConfig


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of two representations of the same examples, in 0..1.

    ||Yc' Xc||^2 / (||Xc' Xc|| ||Yc' Yc||), Frobenius norms of column-centred matrices (Kornblith et
    al., arXiv 1905.00414, section 3).

    Args:
      x: [n, p].
      y: [n, q].
    """
    x = x.astype(np.float64) - x.mean(0)
    y = y.astype(np.float64) - y.mean(0)
    cross = np.linalg.norm(y.T @ x) ** 2
    return float(cross / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def features_by_position(
    clip: CLIP, variables: Mapping[str, Any], x: jax.Array
) -> dict[int, np.ndarray]:
    """Activations at positions 0..L, averaged over tokens or places.

    Args:
      clip: the model.
      variables: its variables.
      x: normalised pixels [B, R, R, 3].

    Returns:
      Position -> float32 [B, channels].
    """

    def collect(variables: Mapping[str, Any], x: jax.Array) -> dict[int, jax.Array]:
        found = {}

        def tap(position: int, a: jax.Array) -> jax.Array:
            axes = tuple(range(1, a.ndim - 1))
            found[position] = a.astype(jnp.float32).mean(axes)
            return a

        clip.apply(variables, x, tap=tap, method="encode_image")
        return found

    return jax.device_get(jax.jit(collect)(variables, x))


def attention_distances(clip: CLIP, variables: Mapping[str, Any], x: jax.Array) -> np.ndarray:
    """Mean distance that each block of a ViT attends over (Dosovitskiy et al., figure 7).

    Distances between the centres of the querying and the attended patch, weighted by attention
    among the patches, averaged over queries, heads and images. The weights are computed again
    here: fused attention does not give them out.

    Returns:
      float64 [L], in pixels.

    Raises:
      ValueError: if the tower is no ViT.
    """
    c = clip.config
    if not isinstance(c.vision, ViTConfig):
        raise ValueError("attention distances are of vision transformers")
    vision = c.vision
    grid = vision.grid
    places = np.stack(np.meshgrid(np.arange(grid), np.arange(grid), indexing="ij"), -1)
    places = places.reshape(-1, 2) * vision.patch_size
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)

    def collect(variables: Mapping[str, Any], x: jax.Array) -> jax.Array:
        found = []

        def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            y = call(*args, **kwargs)
            if context.method_name == "__call__" and context.module.path[-1] == "in_proj":
                found.append(_mean_distance(y, vision, apart))
            return y

        with nn.intercept_methods(interceptor):
            clip.apply(variables, x, method="encode_image")
        return jnp.stack(found)

    return np.asarray(jax.jit(collect)(variables, x), np.float64)


def _mean_distance(qkv: jax.Array, vision: ViTConfig, apart: np.ndarray) -> jax.Array:
    batch, length, _ = qkv.shape
    heads, first = vision.heads, vision.prefix
    qkv = qkv.reshape(batch, length, 3, heads, -1).astype(jnp.float32)
    q, k = qkv[:, first:, 0], qkv[:, first:, 1]
    if (rotation := vision.rotation) is not None:
        q, k = rotation(q), rotation(k)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (vision.width // heads) ** -0.5
    return jnp.einsum("bhqk,qk->bhq", jax.nn.softmax(scores), apart).mean()


def measure(clip: CLIP, variables: Mapping[str, Any], x: jax.Array) -> list[dict[str, Any]]:
    """Both measures for every position.

    Args:
      clip: the model.
      variables: its variables.
      x: normalised pixels [B, R, R, 3]; a few hundred images do.

    Returns:
      A row per position 0..L: "position", "cka_with_last", and for a ViT's blocks
      "attention_distance" in pixels, of the block that the position enters.
    """
    features = features_by_position(clip, variables, x)
    depth = clip.config.depth
    rows = [
        {"position": p, "cka_with_last": linear_cka(features[p], features[depth])}
        for p in range(depth + 1)
    ]
    if isinstance(clip.config.vision, ViTConfig):
        for row, distance in zip(rows, attention_distances(clip, variables, x), strict=False):
            row["attention_distance"] = float(distance)
    return rows

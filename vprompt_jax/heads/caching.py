"""Fills a cache of image features, and searches for its weight and its sharpness on val.

After Tip-Adapter's code (gaopengcuhk/Tip-Adapter), whose search this is.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.clip.model import cosine_logits, unit_norm
from vprompt_jax.parts import Examples, Found, HeadInputs, Solver

LOWEST = 0.1  # where the search for alpha and for beta begins
_BETAS, _ALPHAS = 200, 20  # values tried of each
_AT_ONCE = 2**24  # cosines that the search holds in memory


def cached_logits(cosines: jax.Array, sizes: jax.Array, beta: jax.Array) -> jax.Array:
    """The sum over a class's keys of exp(-beta (1 - cosine)).

    Args:
      cosines: of features and keys, float32 [B, C, P].
      sizes: how many keys each class has, int32 [C]; those from there to P do not count.
      beta: how sharply the sum falls with distance, a float32 scalar.

    Returns:
      float32 [B, C].
    """
    present = jnp.arange(cosines.shape[-1])[None] < sizes[:, None]
    return jnp.sum(jnp.exp(beta * (cosines - 1.0)) * present[None].astype(jnp.float32), -1)


def cosines_to(features: jax.Array, keys: jax.Array) -> jax.Array:
    """Products of features [B, E], scaled to unit length, and keys [C, P, E]: float32 [B, C, P]."""
    return jnp.einsum("be,cpe->bcp", unit_norm(features.astype(jnp.float32)), keys)


def cache_of(train: Examples, classes: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images of each class, in the split's order.

    Args:
      train: the split.
      classes: C.
      per_class: P, the most images that are kept of a class.

    Returns:
      Their features of unit length, float32 [C, P, E] with zeros for those that a class lacks, and
      how many each class has, int32 [C].
    """
    keys = np.zeros((classes, per_class, train.features.shape[-1]), np.float32)
    sizes = np.minimum(np.bincount(train.labels, minlength=classes), per_class).astype(np.int32)
    for label, size in enumerate(sizes):
        chosen = np.flatnonzero(train.labels == label)[:size]
        keys[label, :size] = unit_norm(jnp.asarray(train.features[chosen], jnp.float32))
    return keys, sizes


def grid(low: float, high: float, count: int) -> np.ndarray:
    """`count` values from `low` on in equal steps, of which `high` would be the next: float32."""
    return (low + np.arange(count) * (high - low) / count).astype(np.float32)


def searched(
    val: Examples,
    keys: Any,
    sizes: Any,
    given: HeadInputs,
    betas: np.ndarray,
    alphas: np.ndarray,
) -> tuple[np.float32, np.float32]:
    """The beta and alpha with which most images of val are right; of equals, the smallest beta's.

    Every pair is tried. Val is taken in pieces, so that memory does not grow with it.

    Args:
      val: the split.
      keys: float32 [C, P, E].
      sizes: int32 [C], how many keys each class has.
      given: the head's.
      betas, alphas: values to try, float32.
    """
    texts, scale = given.texts(), given.logit_scale()
    total = np.zeros((len(betas), len(alphas)), np.int64)
    piece = max(_AT_ONCE // (keys.shape[0] * keys.shape[1]), 1)
    piece = min(piece, len(val.labels))
    for start in range(0, len(val.labels), piece):
        features = np.asarray(val.features[start : start + piece], np.float32)
        labels = val.labels[start : start + piece]
        lacking = piece - len(labels)  # filled up, so that one program serves all pieces
        features = np.pad(features, ((0, lacking), (0, 0)))
        labels = np.pad(labels, (0, lacking), constant_values=-1)
        hits = _hits(features, labels, keys, sizes, texts, scale, betas, alphas)
        total += np.asarray(hits)
    i, j = np.unravel_index(np.argmax(total), (len(betas), len(alphas)))
    return betas[i], alphas[j]


@jax.jit
def _hits(
    features: jax.Array,
    labels: jax.Array,
    keys: jax.Array,
    sizes: jax.Array,
    texts: jax.Array,
    scale: jax.Array,
    betas: jax.Array,
    alphas: jax.Array,
) -> jax.Array:
    """How many images are right with every beta and alpha, int32 [betas, alphas]."""
    cosines, zero_shot = cosines_to(features, keys), cosine_logits(features, texts, scale)

    def with_beta(beta: jax.Array) -> jax.Array:
        cached = cached_logits(cosines, sizes, beta)

        def with_alpha(alpha: jax.Array) -> jax.Array:
            return jnp.sum(jnp.argmax(zero_shot + alpha * cached, -1) == labels)

        return jax.lax.map(with_alpha, alphas)

    return jax.lax.map(with_beta, betas)


@dataclasses.dataclass(frozen=True)
class Cache(Solver):
    """Fills the cache from train, and chooses alpha and beta on val.

    Attributes:
      per_class: the most images that are kept of a class.
      alpha_max, beta_max: where the search for alpha and for beta ends.
    """

    per_class: int
    alpha_max: float
    beta_max: float
    asked: str = "config.head.kind=tip_adapter"
    beside_others: str = "config.head.kind=clip_adapter"
    by_steps: str = "config.head.kind=tip_adapter_f"

    def start(self, at: Found, train: Examples, val: Examples | None, given: HeadInputs) -> Found:
        """The cache of train, with the config's alpha and beta."""
        del val, given
        keys, sizes = cache_of(train, len(at.assigned["cache_sizes"]), self.per_class)
        return self._with_keys(at._replace(assigned={**at.assigned, "cache_sizes": sizes}), keys)

    def finish(self, at: Found, val: Examples, given: HeadInputs) -> Mapping[str, Any]:
        """The arrays with the alpha and the beta that are best on val."""
        betas = grid(LOWEST, self.beta_max, _BETAS)
        alphas = grid(LOWEST, self.alpha_max, _ALPHAS)
        sizes = at.assigned["cache_sizes"]
        beta, alpha = searched(val, self._keys(at), sizes, given, betas, alphas)
        return {**at.assigned, "cache_alpha": alpha, "cache_beta": beta}

    def facts(self, labels: np.ndarray, assigned: Mapping[str, Any]) -> dict[str, Any]:
        """How many images are cached, how many are not, and the last step's alpha and beta."""
        cached = int(np.sum(assigned["cache_sizes"]))
        chosen = {n: round(float(assigned[f"cache_{n}"]), 6) for n in ("alpha", "beta")}
        return {"cache": {"images": cached, "left_out": len(labels) - cached, **chosen}}

    def warning(self, labels: np.ndarray) -> str | None:
        """That images are left out, where they are."""
        cached = int(np.minimum(np.bincount(labels), self.per_class).sum())
        if cached == len(labels):
            return None
        return (
            f"{cached:,} of {len(labels):,} training images are cached, the first "
            f"{self.per_class} of a class (config.head.per_class)"
        )

    def _with_keys(self, at: Found, keys: np.ndarray) -> Found:
        return at._replace(assigned={**at.assigned, "cache_keys": keys})

    def _keys(self, at: Found) -> Any:
        return at.assigned["cache_keys"]


@dataclasses.dataclass(frozen=True)
class TrainedCache(Cache):
    """As `Cache`, for keys that train from there."""

    asked: str = "config.head.kind=tip_adapter_f"
    before_steps: ClassVar[bool] = True

    def _with_keys(self, at: Found, keys: np.ndarray) -> Found:
        return at._replace(params={"keys": keys})

    def _keys(self, at: Found) -> Any:
        return at.params["keys"]

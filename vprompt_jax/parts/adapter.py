"""The tower's side: parts that change activations inside the image tower.

They reach the layers by Flax's method interception, so the towers know nothing of adapters.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from vprompt_jax.clip.sites import Site, Where, layer_name

# A tower's parameters by path.
Flat = dict[tuple[str, ...], Any]


class Adapter(nn.Module):
    """Changes activations of a tower at its sites.

    Attributes:
      sites: the sites it acts at.
    """

    sites: tuple[Site, ...]

    def acts_at(self, where: Where | None) -> bool:
        return any(site.where == where for site in self.sites)

    def create(self) -> None:
        """Creates the parameters (Flax does so when any method is called)."""

    def __call__(self, where: Where, x: jax.Array, y: jax.Array) -> jax.Array:
        """Returns what the tower continues with at one of the sites.

        Args:
          where: the site.
          x: input of the layer; at a position, the activation.
          y: output of the layer; at a position, the activation.
        """
        raise NotImplementedError

    def fold(self, site: Site, flat: Flat) -> None:
        """Changes the tower's weights so that, at one site, they do what the adapter does.

        Args:
          site: one of the sites.
          flat: the tower's parameters by path, changed in place.

        Raises:
          ValueError: if no change of weights can do it.
        """
        del site, flat
        raise ValueError(f"{type(self).__name__} cannot be folded into the tower's weights")


def of_rank(x: jax.Array, rank: int) -> jax.Array:
    """An array with leading axes of length 1, so that it broadcasts against one of `rank` axes."""
    return jax.lax.expand_dims(x, range(rank - x.ndim))


def acting(
    adapters: Sequence[Adapter],
) -> tuple[Callable[[Where, jax.Array], jax.Array], Callable[..., Any]]:
    """Builds what lets adapters act, one after the other.

    Returns:
      A tap (position, x) -> x for the tower's positions, and an interceptor of its layers for
      `nn.intercept_methods`.
    """

    def tap(position: Where, x: jax.Array) -> jax.Array:
        for adapter in adapters:
            if adapter.acts_at(position):
                x = adapter(position, x, x)
        return x

    def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        y = call(*args, **kwargs)
        name = layer_name(context)
        for adapter in adapters:
            if name is not None and adapter.acts_at(name):
                y = adapter(name, args[0], y)
        return y

    return tap, interceptor

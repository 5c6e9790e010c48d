"""Numbers that are not finite: found, and named in one message, instead of handed on as results."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import some_of

_LISTED = 5  # arrays named in one message


class NotFinite(UserError):
    """Something computed is not finite; the message says what, `explained` adds why."""


def not_finite(tree: Any) -> dict[str, int]:
    """How many numbers of each array are NaN or infinite, by dotted path; arrays with none are not
    in it."""
    counts = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(jax.device_get(leaf))
        if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
            continue
        if bad := array.size - int(np.isfinite(array).sum()):
            counts[jax.tree_util.keystr(path, simple=True, separator=".")] = bad
    return counts


def check(what: str, array: Any) -> None:
    """Refuses an array with numbers that are not finite.

    Args:
      what: a plural, for the message.
      array: floats [n, ...].

    Raises:
      NotFinite: saying how many of the n entries hold such numbers.
    """
    rows = np.asarray(array)
    good = np.isfinite(rows).all(tuple(range(1, rows.ndim)))
    if not good.all():
        raise NotFinite(f"{what} are not finite for {(~good).sum():,} of {len(rows):,}")


def cause(weights: Any, remedies: Iterable[str] = ()) -> str:
    """Why a model's outputs are not finite, as far as its weights show it, and the ways out.

    Args:
      weights: all that the outputs were computed with.
      remedies: what can be changed where the weights are finite.
    """
    counts = not_finite(weights)
    if not counts:
        ways = ", ".join(remedies) or "set config.model.dtype=float32"
        return f"the weights are finite, so the numbers overflow on the way: {ways}"
    names = some_of([f"{name} ({n:,} numbers)" for name, n in counts.items()], _LISTED, ", ")
    return (
        f"these weights are not finite: {names}; the checkpoint is damaged: "
        "fetch or convert it again, or choose another one"
    )


@contextlib.contextmanager
def explained(where: str, weights: Any, remedies: Iterable[str] = ()) -> Iterator[None]:
    """Adds to a `NotFinite` from inside of it on what it happened, and why.

    Args:
      where: a split, say.
      weights: all that the numbers were computed with.
      remedies: as of `cause`.

    Raises:
      UserError: in place of the `NotFinite`.
    """
    try:
        yield
    except NotFinite as error:
        raise UserError(f"{where}: {error}: {cause(weights, remedies)}") from error

"""Runs a step on all devices, and sends arrays to them; nothing else touches devices.

A batch has a leading device axis, [d, b, ...]. Everything else is replicated and has no such axis.
"""

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"
# How many steps are under way before the host waits for the oldest. Each holds its batch in the
# devices' memory. Besides, several devices of one CPU wait for each other forever once more than 32
# programs are under way (seen with jax 0.10.2).
UNDER_WAY = 8
Step = Callable[..., Any]


def _mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), (AXIS,))


def replicated() -> NamedSharding:
    """The sharding that keeps a copy on every device of all processes."""
    return NamedSharding(_mesh(), PartitionSpec())


def to_devices(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Sends this process's part of a batch to its devices, the only transfer of a step.

    Args:
      batch: arrays [d, b, ...], for d local devices.
    """
    sharding = NamedSharding(_mesh(), PartitionSpec(AXIS))
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def pmapped(step: Step, arguments: int, donate: tuple[int, ...]) -> Step:
    """`on_all_devices` by `jax.pmap`."""
    axes = (*[None] * (arguments - 1), 0)
    return jax.pmap(step, AXIS, in_axes=axes, out_axes=None, donate_argnums=donate)


def shard_mapped(step: Step, arguments: int, donate: tuple[int, ...]) -> Step:
    """`on_all_devices` by `jax.jit` of `jax.shard_map`."""
    specs = (*[PartitionSpec()] * (arguments - 1), PartitionSpec(AXIS))

    @functools.wraps(step)
    def on_one_device(*args: Any) -> Any:
        *rest, batch = args
        return step(*rest, jax.tree.map(lambda x: x[0], batch))

    mapped = jax.shard_map(
        on_one_device, mesh=_mesh(), in_specs=specs, out_specs=PartitionSpec(), check_vma=False
    )
    return jax.jit(mapped, donate_argnums=donate)


_IMPLEMENTATION = pmapped


class _Paced:
    """A compiled step, which waits until fewer than `UNDER_WAY` of all steps are under way."""

    _results: ClassVar[collections.deque[jax.Array]] = collections.deque()

    def __init__(self, step: Any):
        self._step = step
        self.lower = step.lower  # for the compiler's counts

    def __call__(self, *args: Any) -> Any:
        if len(self._results) == UNDER_WAY:
            self._results.popleft().block_until_ready()
        results = self._step(*args)
        # The last one: the first may be a state, whose memory the next step takes.
        last = jax.tree.leaves(results)[-1]
        if not isinstance(last, jax.core.Tracer):  # else the step is traced, and nothing runs
            self._results.append(last)
        return results


@jax.jit
def added(a: Any, b: Any) -> Any:
    """The sums of two trees of equal arrays, leaf by leaf, as one program."""
    return jax.tree.map(jnp.add, a, b)


def on_all_devices(step: Step, arguments: int, *, donate: tuple[int, ...] = ()) -> Step:
    """Compiles a step that every device runs on its share of a batch.

    The step sums over devices itself (`jax.lax.psum` over `AXIS`), so its results are equal on all
    of them. `_IMPLEMENTATION` chooses between `jax.pmap` and `jit(shard_map(...))`: both compile to
    the same program, without an all-gather. `jit` with shardings alone would insert three of them,
    since `lax.map` over regions assumes that one device holds the batch.

    Args:
      step: a function whose last argument is a batch without the device axis, [b, ...].
      arguments: number of its arguments.
      donate: positions of the arguments whose memory the results may reuse.

    Returns:
      A function of replicated arguments and a batch [d, b, ...]; its results are replicated. It
      returns before the devices are done, and waits where `UNDER_WAY` calls are not.
    """
    return _Paced(_IMPLEMENTATION(step, arguments, donate))

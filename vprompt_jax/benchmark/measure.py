"""Costs of compiled functions: what the compiler counts, and what the clock says."""

import contextlib
import dataclasses
import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

_HLO_TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "s32": "int32",
              "u32": "uint32", "pred": "bool"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the compiler says of a program, per device.

    Attributes:
      flops: floating-point operations; None on a GPU, where most are done by libraries that its
        compiler does not look into.
      bytes: read and written by all operations.
      temp_bytes: largest memory beside arguments and results.
      held_bytes: of arguments, and of results that do not take an argument's place.
      reduced_bytes: of the values that are summed over all devices.
    """

    flops: float | None
    bytes: float
    temp_bytes: int
    held_bytes: int
    reduced_bytes: int

    @property
    def memory_bytes(self) -> int:
        """The most memory that the program needs at once."""
        return self.temp_bytes + self.held_bytes


def cost_of(compiled: Any) -> Cost:
    """The counts of a compiled program (`jax.jit(f).lower(...).compile()`)."""
    counts = compiled.cost_analysis()
    memory = compiled.memory_analysis()
    temp = held = 0
    if memory is not None:  # not every backend tells
        temp = memory.temp_size_in_bytes
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes
        held -= memory.alias_size_in_bytes
    return Cost(
        None if jax.default_backend() == "gpu" else counts.get("flops", 0.0),
        counts.get("bytes accessed", 0.0),
        temp,
        held,
        reduced_bytes(compiled.as_text()),
    )


def reduced_bytes(hlo: str) -> int:
    """Bytes of all results of `all-reduce` in a program's HLO text."""
    total = 0
    for results in re.findall(r"= (.*?) all-reduce(?:-start)?\(", hlo):
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", results):
            size = jnp.dtype(_HLO_TYPES[kind]).itemsize
            total += size * math.prod(int(side) for side in shape.split(",") if side)
    return total


def matmul_program(dtype: str) -> tuple[Callable[[], Any], float]:
    """A large matrix product to run, and its FLOPs: the rate that the machine has to offer."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a), 2.0 * side**3


def seconds(
    programs: Sequence[Callable[[], Any]], repeats: int, at_least: float = 0.1
) -> list[float]:
    """Median seconds of each program, run in turns so that all meet the same machine.

    Args:
      programs: each returns what can be waited for. They are run twice before, to compile and to
        warm up.
      repeats: turns.
      at_least: seconds of a turn. A program that takes less is run several times before it is
        waited for, as training does: an accelerator then never waits for the host.
    """
    counts = []
    for program in programs:
        jax.block_until_ready(program())
        counts.append(max(1, math.ceil(at_least / _seconds_of(program, 1))))
    taken: list[list[float]] = [[] for _ in programs]
    for _ in range(repeats):
        for program, count, times in zip(programs, counts, taken, strict=True):
            times.append(_seconds_of(program, count) / count)
    return [statistics.median(times) for times in taken]


def _seconds_of(program: Callable[[], Any], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        made = program()
    jax.block_until_ready(made)
    return time.perf_counter() - started


@contextlib.contextmanager
def counted_compilations() -> Iterator[Callable[[], int]]:
    """Counts the programs that are compiled, or taken from the cache, inside the block."""
    count = 0

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        nonlocal count
        del duration_secs, kwargs
        count += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield lambda: count
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)

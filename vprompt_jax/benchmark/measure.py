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
      flops: floating-point operations.
      bytes: read and written by all operations.
      temp_bytes: largest memory beside arguments and results.
      held_bytes: of arguments, and of results that do not take an argument's place.
      reduced_bytes: of the values that are summed over all devices.
    """

    flops: float
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
        counts.get("flops", 0.0),
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


def matmul_program(dtype: str, side: int = 2048) -> tuple[Callable[[], Any], float]:
    """A large matrix product to run, and its FLOPs: the rate that the machine has to offer."""
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a), 2.0 * side**3


def seconds(programs: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each program, run in turns so that all meet the same machine.

    Each is run once before, to compile and to warm up.
    """
    taken: list[list[float]] = [[] for _ in programs]
    for program in programs:
        jax.block_until_ready(program())
    for _ in range(repeats):
        for program, times in zip(programs, taken, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(program())
            times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in taken]


@contextlib.contextmanager
def counted_compilations() -> Iterator[Callable[[], int]]:
    """Counts the programs that are compiled, or taken from the cache, inside the block."""
    count = 0

    def listen(event: str, duration: float, **kwargs) -> None:
        nonlocal count
        del duration, kwargs
        count += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield lambda: count
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)

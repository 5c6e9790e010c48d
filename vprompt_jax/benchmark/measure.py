"""Measures the costs of compiled functions: the compiler's counts, and times."""

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
    """The compiler's counts for a program, per device.

    Attributes:
      flops: floating-point operations; None on a GPU, whose compiler cannot look into the libraries
        that do most of them.
      bytes: bytes that all operations read and write.
      temp_bytes: peak memory in addition to arguments and results.
      held_bytes: memory of arguments, and of results that do not reuse an argument's memory.
      reduced_bytes: size of the values that are summed over all devices.
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
    """Reads the counts of a compiled program (`jax.jit(f).lower(...).compile()`)."""
    counts = compiled.cost_analysis()
    memory = compiled.memory_analysis()
    temp = held = 0
    if memory is not None:  # some backends do not tell
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
    """Adds up the bytes of all results of `all-reduce` in a program's HLO text."""
    total = 0
    for results in re.findall(r"= (.*?) all-reduce(?:-start)?\(", hlo):
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", results):
            size = jnp.dtype(_HLO_TYPES[kind]).itemsize
            total += size * math.prod(int(side) for side in shape.split(",") if side)
    return total


def matmul_program(dtype: str) -> tuple[Callable[[], Any], float]:
    """A large matrix product and its FLOPs, which show the rate that the machine can reach."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a), 2.0 * side**3


def seconds(
    programs: Sequence[Callable[[], Any]], repeats: int, at_least: float = 0.1
) -> list[float]:
    """Measures the median seconds of each program.

    The programs run in turns, so that all of them meet the same state of the machine.

    Args:
      programs: functions that return what `jax.block_until_ready` takes. Each is run twice before
        the measurement, to compile and to warm up.
      repeats: number of turns.
      at_least: seconds of a turn. A shorter program is started several times before the host waits
        for it, as in training, so that an accelerator never waits for the host.
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
        result = program()
    jax.block_until_ready(result)
    return time.perf_counter() - started


@contextlib.contextmanager
def counted_compilations() -> Iterator[Callable[[], int]]:
    """Counts the programs that are compiled, or loaded from the cache, inside the block."""
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

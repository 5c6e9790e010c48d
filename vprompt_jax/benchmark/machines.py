"""Predicts what a step costs on machines that are not available, from its counts alone.

A step takes at least the longer of two times: its arithmetic at the machine's peak rate, and its
memory traffic at the machine's bandwidth. The sum over devices comes on top. The traffic is counted
in the program compiled for the local backend. A GPU's or TPU's compiler fuses more operations, so
the prediction of this part is too high for them.
"""

import dataclasses
import math
import platform
import re
from collections.abc import Callable
from pathlib import Path

from vprompt_jax.benchmark.measure import Cost


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine, with the peak rates of one device as its vendor states them for dense matrices.

    Attributes:
      name: name in the table.
      devices: number of devices that share a batch.
      flops: FLOPs per second by dtype, for matrix products of bfloat16 and for those of float32 at
        the precision "highest".
      bandwidth: bytes per second between a device and its memory.
      link: bytes per second that a device can send to others.
    """

    name: str
    devices: int
    flops: dict[str, float]
    bandwidth: float
    link: float = math.inf


# Instructions that decide how fast a CPU multiplies matrices, by their names in Linux.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "bf16")


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """This machine's CPU and which of `_INSTRUCTIONS` it has, where the system tells."""
    if not cpuinfo.is_file():
        return platform.processor() or platform.machine()
    text = cpuinfo.read_text()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    has = listed[1].split() if listed else []
    found = [word for word in _INSTRUCTIONS if word in has]
    return ", ".join([name[1] if name else platform.machine(), *found])


MACHINES = (
    # NVIDIA, GA102 whitepaper: float32 without tensor cores, bfloat16 summed in float32.
    Machine("RTX 3090", 1, {"float32": 35.6e12, "bfloat16": 71e12}, 936e9),
    # NVIDIA, H100 SXM data sheet; halved, as it states tensor-core rates for sparse matrices.
    Machine("H100 SXM", 1, {"float32": 67e12, "bfloat16": 989e12}, 3.35e12),
    # Google, TPU v4: 16 chips of two cores; float32 at "highest" takes six products of bfloat16.
    Machine("TPU v4-32", 16, {"float32": 275e12 / 6, "bfloat16": 275e12}, 1.2e12, 50e9),
)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Predicted seconds of one step, by cause."""

    arithmetic: float
    memory: float
    exchange: float

    @property
    def step(self) -> float:
        return max(self.arithmetic, self.memory) + self.exchange


def predict(cost: Cost, machine: Machine, dtype: str, exchanged: int) -> Prediction:
    """Predicts a step on a machine.

    Args:
      cost: cost of the step at the batch size of one of the machine's devices.
      machine: a row of `MACHINES`.
      dtype: dtype of the frozen tower.
      exchanged: bytes that are summed over n devices; in a ring each device sends 2 (n - 1) / n
        times as many.

    Raises:
      ValueError: if the FLOPs were not counted.
    """
    if cost.flops is None:
        raise ValueError("the step's FLOPs were not counted")
    shares = 2 * (machine.devices - 1) / machine.devices
    return Prediction(
        cost.flops / machine.flops[dtype],
        cost.bytes / machine.bandwidth,
        shares * exchanged / machine.link,
    )


def largest_batch(memory_at: Callable[[int], int], batch: int, limit: int) -> int:
    """Finds the largest batch whose step needs at most `limit` bytes; 0 if `batch` needs more.

    Memory grows almost linearly with the batch, so a straight line through two sizes gives a close
    guess. That saves compilations.

    Args:
      memory_at: batch size -> bytes; it compiles a step.
      batch: the smallest size to try.
      limit: available memory in bytes.
    """
    if memory_at(batch) > limit:
        return 0
    low, high = batch, 2 * batch
    while memory_at(high) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        slope = (memory_at(high) - memory_at(low)) / (high - low)
        guess = low + int((limit - memory_at(low)) / slope)
        guess = min(max(guess, low + 1), high - 1)
        if memory_at(guess) <= limit:
            # If the line is right, the next size is already too large.
            low, high = (guess, guess + 1) if memory_at(guess + 1) > limit else (guess + 1, high)
        else:
            high = guess
    return low

"""What an epoch costs on machines that are not at hand, from a step's counts alone.

A step takes at least the longer of its arithmetic at the machine's peak and its memory traffic at
the machine's bandwidth, and then the sum over devices. The traffic is that of the program compiled
for the backend at hand: a GPU's or TPU's compiler fuses more, so that this part is too high there.
"""

import dataclasses
import math
from collections.abc import Callable

from vprompt_jax.benchmark.measure import Cost


@dataclasses.dataclass(frozen=True)
class Machine:
    """Peaks of one device, as its vendor states them (dense), in units a second.

    Attributes:
      name: for the table.
      devices: that share a batch.
      flops: by dtype: matrix products of bfloat16; of float32 at the precision "highest".
      bandwidth: bytes between a device and its memory.
      link: bytes that a device can send to others.
    """

    name: str
    devices: int
    flops: dict[str, float]
    bandwidth: float
    link: float = math.inf


MACHINES = (
    # NVIDIA, GA102 whitepaper: float32 without tensor cores, bfloat16 summed in float32.
    Machine("RTX 3090", 1, {"float32": 35.6e12, "bfloat16": 71e12}, 936e9),
    # NVIDIA, H100 SXM data sheet (its tensor-core figures are for sparse matrices: halved).
    Machine("H100 SXM", 1, {"float32": 67e12, "bfloat16": 989e12}, 3.35e12),
    # Google, TPU v4: 16 chips of two cores; "highest" takes six products of bfloat16.
    Machine("TPU v4-32", 16, {"float32": 275e12 / 6, "bfloat16": 275e12}, 1.2e12, 50e9),
)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Seconds of one step by cause."""

    arithmetic: float
    memory: float
    exchange: float

    @property
    def step(self) -> float:
        return max(self.arithmetic, self.memory) + self.exchange


def predict(cost: Cost, machine: Machine, dtype: str, exchanged: int) -> Prediction:
    """Predicts a step on a machine.

    Args:
      cost: of the step at the batch size of one of the machine's devices.
      machine: a row of `MACHINES`.
      dtype: of the frozen tower.
      exchanged: bytes summed over the devices; a ring sends each of them twice, save one share.

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
    """The largest batch whose step needs at most `limit` bytes; 0 if `batch` itself needs more.

    Memory grows almost linearly, so a straight line through two sizes finds the neighbourhood.

    Args:
      memory_at: batch size -> bytes; a compilation.
      batch: smallest size to look at.
      limit: in bytes.
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
            # Where the line is right, the next size is already too large.
            low, high = (guess, guess + 1) if memory_at(guess + 1) > limit else (guess + 1, high)
        else:
            high = guess
    return low

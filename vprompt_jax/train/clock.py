"""Where a run's time goes: steps, waiting for images, the start; and a profiler's trace."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import psutil


@dataclasses.dataclass
class Clock:
    """Time spent in steps alone, without a process's first one, which compiles.

    Attributes:
      seconds: in steps.
      images: that went through them.
      waited: seconds of these in which the next step could have begun, had its batch been there.
      first_step: seconds from the process's start to the end of its first step; None before.
      since: when the clock was started; None while it stands.
    """

    seconds: float = 0.0
    images: int = 0
    waited: float = 0.0
    first_step: float | None = None
    since: float | None = None

    def start(self) -> None:
        self.since = time.monotonic()
        if self.first_step is None:
            self.first_step = round(time.time() - psutil.Process().create_time(), 2)

    def stop(self) -> None:
        if self.since is not None:
            self.seconds += time.monotonic() - self.since
        self.since = None

    @contextlib.contextmanager
    def waiting(self, last_step: jax.Array) -> Iterator[None]:
        """The block fetches a batch: waiting, if the clock runs and the devices are out of work.

        Args:
          last_step: a result of the step before. If the devices still work on it when the block
            ends, no time was lost; if not, all of the block's counts, which may be too much.
        """
        began = time.monotonic()
        yield
        if self.since is not None and last_step.is_ready():  # type: ignore[attr-defined]
            self.waited += time.monotonic() - began

    def as_record(self) -> dict[str, Any]:
        """What a save keeps."""
        return {"seconds": self.seconds, "images": self.images, "waited": self.waited}

    @property
    def images_per_second(self) -> float | None:
        """None if too few steps ran."""
        return self.images / self.seconds if self.images and self.seconds > 0 else None

    @property
    def share_waited(self) -> float | None:
        """Share of the steps' time spent waiting for input; None if too few steps ran."""
        return self.waited / self.seconds if self.images and self.seconds > 0 else None


class Trace:
    """JAX's profiler over a few steps, once everything is compiled and warm."""

    _WARM = 10  # steps before the first one traced

    def __init__(self, folder: Path, start: int, steps: int):
        self._folder = folder
        self._first = start + self._WARM if steps else None
        self._last = start + self._WARM + steps - 1

    def before(self, step: int) -> None:
        """To be called before every step, as `after` after it."""
        if step == self._first:
            jax.profiler.start_trace(self._folder)

    def after(self, step: int, state: Any, *, ends: bool) -> None:
        """`ends`: whether this was the run's last step."""
        if self._first is not None and (step == self._last or (ends and step >= self._first)):
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._first = None

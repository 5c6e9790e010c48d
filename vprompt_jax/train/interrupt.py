"""SIGTERM, as schedulers send it before they take a machine away, becomes a save and an exit."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Interrupts:
    """A context in which SIGTERM only sets a flag, to be looked at between steps.

    One process handles the signal itself. With several, JAX's preemption service does: whichever
    process is told, all of them agree on the step after which to save. Outside of the context, and
    outside of the main thread (where Python cannot handle signals), SIGTERM ends a process at once.
    """

    def __enter__(self) -> "Interrupts":
        self._asked = False
        self._previous = None
        alone = jax.process_count() == 1
        if alone and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: object) -> None:
        self._asked = True

    def asked(self, step: int) -> bool:
        """Whether to save and stop after this step; to be called once after every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

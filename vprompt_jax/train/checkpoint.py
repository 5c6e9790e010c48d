"""Saves and restores what a run has trained, with Orbax."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from absl import logging

from vprompt_jax.errors import UserError


class Checkpoints:
    """The newest two saves of a run.

    A save holds the train state, the best parameters on the validation split so far, and the
    history needed to go on; the frozen weights are not saved.
    """

    def __init__(self, directory: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def latest(self) -> int | None:
        """Step of the newest save, or None."""
        return self._manager.latest_step()

    def save(self, step: int, tree: Any) -> None:
        """Saves in the background; a save that does not finish leaves the older ones alone."""
        if step != self.latest():
            self._manager.save(step, args=ocp.args.StandardSave(tree))

    def restore(self, template: Any) -> Any:
        """Restores the newest readable save.

        Args:
          template: a tree of the same structure, shapes and dtypes.

        Raises:
          UserError: if there are saves and none can be read.
        """
        problems = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._manager.restore(step, args=ocp.args.StandardRestore(template))
            except Exception as error:  # Orbax has no common base of its errors
                logging.warning("checkpoint of step %d cannot be read: %s", step, error)
                problems.append(f"step {step}: {str(error).splitlines()[0]}")
        raise UserError(
            f"no readable checkpoint in {self._manager.directory}: " + "; ".join(problems)
            + " (choose another --workdir, or delete this one to start over)"
        )  # fmt: skip

    def close(self) -> None:
        """Waits for the last save."""
        self._manager.wait_until_finished()
        self._manager.close()

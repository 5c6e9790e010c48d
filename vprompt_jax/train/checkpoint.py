"""Saves and restores where a run stands, with Orbax."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from vprompt_jax.config import files, resolve
from vprompt_jax.config.config import differences
from vprompt_jax.process import cluster, hashes
from vprompt_jax.process.errors import UserError


class Checkpoints:
    """The newest two saves of a run.

    A save is a tree of arrays (train state, best parameters on the validation split so far) and a
    record (plain JSON): the run's identity, checksums, and what the caller adds. A save is written
    beside the others and then renamed, so one that does not finish leaves the older ones alone.
    The frozen weights are not saved. Several processes need a folder that all of them share.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any], *, read_only: bool = False):
        """Opens or makes the folder.

        Args:
          directory: the folder.
          identity: JSON values by name; a save of another identity is refused, one of the same
            weights and data under another path is not.
          read_only: for a folder that exists, and stays as it is.
        """
        keep = None if read_only else 2
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=not read_only, read_only=read_only
        )
        self._manager = ocp.CheckpointManager(
            directory.absolute(), options=options, item_names=("arrays", "record")
        )
        self._identity = json.loads(json.dumps(identity))

    def latest(self) -> int | None:
        """Step of the newest save, readable or not; None without one."""
        return self._manager.latest_step()

    def save(self, step: int, arrays: Any, record: Mapping[str, Any]) -> None:
        """Saves in the background; returns at once if this step is saved already.

        Raises:
          UserError: if this save, or the one before, could not be written.
        """
        if step == self.latest():
            return
        arrays = jax.device_get(arrays)  # with several processes, a device's copy is no global one
        record = {
            **record,
            "identity": self._identity,
            "arrays": hashes.of_arrays(arrays),
        }
        record["checksum"] = _checksum(record)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(record)
                ),
            )
        except Exception as error:  # Orbax has no common base of its errors
            raise self._failed(error) from error

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """Restores the newest readable save.

        Args:
          like: a tree of the same structure, shapes and dtypes.

        Returns:
          The arrays, on the host, and the record.

        Raises:
          UserError: if the save is of another identity, or there are saves and none can be read.
        """
        problems, like = [], jax.device_get(like)
        # All processes try the same saves in the same order, and pass over one that any of them
        # cannot read: otherwise they would go on from different steps.
        for step in cluster.broadcast(sorted(self._manager.all_steps(), reverse=True)):
            problem, arrays, record, changed = None, None, {}, []
            try:
                record = self._read(step, record=ocp.args.JsonRestore())["record"]
                if record.pop("checksum") != _checksum(record):
                    raise ValueError("the record does not have its checksum")
                changed = _difference(record["identity"], self._identity)
                if not changed:
                    arrays = self._read(step, arrays=ocp.args.StandardRestore(like))["arrays"]
                    if hashes.of_arrays(arrays) != record["arrays"]:
                        raise ValueError("the arrays do not have their checksum")
            except Exception as error:  # whatever damage makes of Orbax and of JSON
                problem = (str(error) or repr(error)).splitlines()[0]
            problem = next((p for p in cluster.gather(problem) if p is not None), None)
            if problem is not None:
                logging.warning("checkpoint of step %d cannot be read: %s", step, problem)
                problems.append(f"step {step}: {problem}")
                continue
            if changed:
                listed = "\n  ".join(changed)
                raise UserError(
                    f"the checkpoint of step {step} in {self._manager.directory} is of another "
                    f"run:\n  {listed}\nundo the change to go on with it, or choose another "
                    "--workdir"
                )
            cluster.agree(f"checkpoint of step {step}", record)
            return arrays, record
        raise UserError(
            f"no readable checkpoint in {self._manager.directory}: " + "; ".join(problems)
            + " (choose another --workdir, or delete the whole workdir "
            + f"{self._manager.directory.parent} to start over)"
        )  # fmt: skip

    def forget_after(self, step: int) -> None:
        """Deletes the saves after `step`: damaged ones, in the way of new ones."""
        for damaged in [s for s in self._manager.all_steps() if s > step]:
            self._manager.delete(damaged)

    def close(self) -> None:
        """Waits for the last save.

        Raises:
          UserError: if it could not be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.close()
        except Exception as error:  # as in `save`
            raise self._failed(error) from error

    def _read(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _failed(self, error: Exception) -> UserError:
        return UserError(
            f"cannot write a checkpoint to {self._manager.directory}: "
            f"{(str(error) or repr(error)).splitlines()[0]}; the older ones are intact: make room, "
            "or mend the disk, and give the same command again"
        )


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines that say in what two identities differ, the configs key by key."""
    hashes_of = [
        f"{name}: {str(old.get(name))[:12]}... -> {str(new[name])[:12]}... (SHA-256)"
        for name in new
        if name != "config" and old.get(name) != new[name]
    ]
    lines = differences(resolve(old["config"]), resolve(new["config"]))
    if not hashes_of:  # equal files, wherever they lie
        lines = {key: line for key, line in lines.items() if key not in files.path_keys()}
    return [*lines.values(), *hashes_of]

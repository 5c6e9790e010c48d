"""Joins the processes of one run on several machines, and ends all of them if one is lost."""

import hashlib
import json
import os
import sys
from typing import Any

from vprompt_jax.process.errors import UserError

# Names the seconds without a sign of life after which a process counts as lost and the rest end.
_HEARTBEAT = "VPROMPT_HEARTBEAT_SECONDS"
_BY_HAND = ("VPROMPT_COORDINATOR", "VPROMPT_PROCESSES", "VPROMPT_PROCESS")


def _arguments() -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize` from the environment; None for a single process."""
    env = os.environ
    names = [name for name in _BY_HAND if name in env]
    if names:
        if len(names) < len(_BY_HAND):
            raise UserError(f"{', '.join(names)} set: set all of {', '.join(_BY_HAND)}, or none")
        return {
            "coordinator_address": env[_BY_HAND[0]],
            "num_processes": _integer(_BY_HAND[1]),
            "process_id": _integer(_BY_HAND[2]),
            "cluster_detection_method": "deactivate",
        }
    # srun sets the node list of a step; a plain shell inside an allocation has none.
    if "SLURM_STEP_NODELIST" in env and _integer("SLURM_NTASKS", "1") > 1:
        return {"cluster_detection_method": "slurm"}
    if _integer("OMPI_COMM_WORLD_SIZE", "1") > 1:
        return {"cluster_detection_method": "ompi"}
    # JAX sets this one when it is imported on a machine with TPUs.
    if env.get("TPU_ML_PLATFORM") == "JAX":
        addresses = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
        return {"cluster_detection_method": "gketpu" if addresses else "gcetpu"}
    return None


def _integer(name: str, default: str | None = None) -> int:
    text = os.environ.get(name, default)
    try:
        return int(text or "")
    except ValueError:
        raise UserError(
            f"the environment variable {name}={text!r} must be a whole number"
        ) from None


def join() -> None:
    """Joins the other processes of the run if the environment says that there are any.

    Call it before anything is computed. It looks, in this order, for VPROMPT_COORDINATOR (host:port
    of process 0) with VPROMPT_PROCESSES and VPROMPT_PROCESS; for a SLURM step or Open MPI with more
    than one task, to each of which JAX gives one device; and for a machine with TPUs.

    Raises:
      UserError: if the environment contradicts itself, or the others cannot be reached.
    """
    import jax  # its import is what recognises a TPU

    arguments = _arguments()
    if arguments is None:
        return
    seconds = _integer(_HEARTBEAT, "60")
    try:
        jax.distributed.initialize(
            **arguments, heartbeat_timeout_seconds=seconds, shutdown_timeout_seconds=seconds
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"cannot join the other processes of this run: {error}") from error


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    import jax

    return jax.process_index() == 0


def agree(what: str, value: Any) -> None:
    """Makes sure that all processes have the same value; each of them has to call this.

    Args:
      what: what the value is, for the message.
      value: anything that JSON can hold.

    Raises:
      UserError: in all processes, if one has another value.
    """
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    mine = np.frombuffer(digest, np.uint8)
    if (multihost_utils.process_allgather(mine) != mine).any():
        raise UserError(
            f"the processes of this run do not see the same {what}: data, weights and --workdir "
            "must be equal on all machines, the workdir a folder that they share"
        )


def leave(status: int) -> None:
    """Ends a process that has failed.

    If the run has other processes, this one ends at once, without clean-up, so that they notice:
    an ordinary end would wait for them while they wait for it.
    """
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)

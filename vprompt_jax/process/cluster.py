"""Joins the processes of one run on several machines, and ends all of them if one is lost."""

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable
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


def say(line: str) -> None:
    """Tells the user, on standard error and once for all processes, what is going on."""
    if is_first():
        print(line, file=sys.stderr, flush=True)


def has_others() -> bool:
    """Whether this process has joined others, which wait for it."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def gather(value: Any) -> list[Any]:
    """What every process passes, by number of the process; every one of them has to call it.

    Args:
      value: anything JSON.
    """
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [value]
    text = json.dumps(value).encode()
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    # A power of two, so that few programs are compiled for many lengths.
    padded = np.zeros(1 << int(lengths.max() - 1).bit_length(), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:n])) for row, n in zip(rows, lengths.tolist(), strict=True)]


def broadcast(value: Any) -> Any:
    """What process 0 passes (anything JSON); every process has to call it."""
    return gather(value if is_first() else None)[0]


def by_first(function: Callable[[], Any]) -> Any:
    """Has process 0 alone do something that all go by; every process has to call it.

    Args:
      function: returns anything JSON.

    Returns:
      What it returned in process 0.

    Raises:
      UserError: in all processes, if it raised that in process 0.
    """
    outcome: Any = None
    if is_first():
        try:
            outcome = {"value": function()}
        except UserError as error:
            outcome = {"error": str(error)}
    outcome = broadcast(outcome)
    if "error" in outcome:
        raise UserError(outcome["error"])
    return outcome["value"]


def agree(what: str, value: Any) -> None:
    """Makes sure that all processes have the same value; each of them has to call this.

    Args:
      what: what the value is, for the message.
      value: anything that JSON can hold.

    Raises:
      UserError: in all processes, if one has another value.
    """
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    others = gather([socket.gethostname(), digest])
    if different := [i for i, (_, theirs) in enumerate(others) if theirs != others[0][1]]:
        listed = ", ".join(f"{i} on {others[i][0]}" for i in different)
        raise UserError(
            f"the processes of this run do not see the same {what} (process {listed} differs from "
            f"process 0 on {others[0][0]}): give the same command on all machines, with the same "
            "data and weights, and a workdir that is a folder they share"
        )


def leave(status: int) -> None:
    """Ends a process that has failed.

    If the run has other processes, this one ends at once, without clean-up, so that they notice:
    an ordinary end would wait for them while they wait for it.
    """
    if has_others():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)

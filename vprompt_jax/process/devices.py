"""Tells what a traced program may rely on: this machine's devices, or none in particular."""

import jax


def has_tensor_cores() -> bool:
    """Whether programs run on NVIDIA GPUs that multiply bfloat16 in hardware (Ampere or newer)."""
    device = jax.local_devices()[0]
    # "9.0" on an H100, "gfx942" on an AMD GPU.
    major = str(getattr(device, "compute_capability", "")).partition(".")[0]
    return device.platform == "gpu" and major.isdigit() and int(major) >= 8


def is_exported(batch: int) -> bool:
    """Whether this traced batch size is symbolic: the program is for any size and any backend."""
    return not isinstance(batch, int)

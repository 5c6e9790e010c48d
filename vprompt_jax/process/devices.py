"""What a program may count on: the devices at hand, or none in particular."""

import jax


def has_tensor_cores() -> bool:
    """Whether programs run on NVIDIA GPUs that multiply bfloat16 in hardware (Ampere or newer)."""
    device = jax.local_devices()[0]
    # "9.0" of an H100, "gfx942" of a GPU of AMD's.
    major = str(getattr(device, "compute_capability", "")).partition(".")[0]
    return device.platform == "gpu" and major.isdigit() and int(major) >= 8


def is_exported(batch: int) -> bool:
    """Whether a program with this batch size, as traced, is for any size, and for any backend."""
    return not isinstance(batch, int)

"""What the devices at hand can do."""

import jax


def has_tensor_cores() -> bool:
    """Whether programs run on NVIDIA GPUs that multiply bfloat16 in hardware (Ampere or newer)."""
    device = jax.local_devices()[0]
    # "9.0" for an H100; AMD's name theirs gfx....
    major = str(getattr(device, "compute_capability", "")).partition(".")[0]
    return device.platform == "gpu" and major.isdigit() and int(major) >= 8

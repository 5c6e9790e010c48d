"""What is asked of the devices at hand."""

import types

import jax
import pytest

from vprompt_jax.process import devices

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    "platform, capability, expected",
    [
        ("cpu", None, False),
        ("tpu", None, False),
        ("gpu", "9.0", True),
        ("gpu", "10.3", True),
        ("gpu", "8.0", True),
        ("gpu", "7.5", False),
        ("gpu", "gfx942", False),
    ],
)
def test_tensor_cores_for_bfloat16_are_nvidia_s_since_ampere(
    monkeypatch, platform, capability, expected
):
    device = types.SimpleNamespace(platform=platform)
    if capability is not None:
        device.compute_capability = capability
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert devices.has_tensor_cores() is expected

"""What the loop says of its time, and of masks that have collapsed."""

import dataclasses
import time

import pytest

from vprompt_jax.prompts import adavipro, vp
from vprompt_jax.train.clock import Clock

pytestmark = pytest.mark.fast


@dataclasses.dataclass
class Step:
    """A step's result, or what will become one."""

    done: bool

    def is_ready(self):
        return self.done


def test_waiting_counts_only_while_the_clock_runs():
    clock, done = Clock(), Step(True)
    with clock.waiting(done):
        time.sleep(0.02)
    assert clock.waited == 0
    assert clock.images_per_second is None
    assert clock.share_waited is None
    clock.start()
    with clock.waiting(done):
        time.sleep(0.05)
    time.sleep(0.05)
    clock.images = 10
    clock.stop()
    assert 0.2 < clock.share_waited < 0.8
    assert clock.images_per_second == 10 / clock.seconds
    assert clock.first_step > 0
    assert Clock(**clock.as_record()).waited == clock.waited


def test_fetching_while_the_devices_work_is_no_waiting():
    clock, step = Clock(), Step(False)
    clock.start()
    with clock.waiting(step):
        time.sleep(0.01)
    assert clock.waited == 0
    with clock.waiting(step):  # it ends meanwhile
        step.done = True
    assert clock.waited > 0


def test_a_collapsed_mask_is_named():
    assert "every region is off" in adavipro.PART.warning({"regions_on": 0.0})
    assert "every region is on" in adavipro.PART.warning({"regions_on": 1.0})
    assert adavipro.PART.warning({"regions_on": 0.3}) is None
    # Of a method without a mask no part says anything.
    assert vp.PART.warning({"accuracy": 0.3}) is None

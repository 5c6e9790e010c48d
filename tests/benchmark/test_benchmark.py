"""The benchmark's counts: a step is near the least it can cost, and compiled once."""

import dataclasses
import json
import platform
import time

import jax
import pytest

from tests.adapters.conftest import random_variables
from tests.conftest import TINY
from vprompt_jax.benchmark import __main__ as command
from vprompt_jax.benchmark import compiled, machines, measure, modes, torch_side
from vprompt_jax.clip import CLIP
from vprompt_jax.clip.checkpoints import drawn
from vprompt_jax.clip.class_texts import tokens_of
from vprompt_jax.config import default_config
from vprompt_jax.process.errors import UserError


def row(tmp_path, method, **keys):
    config = default_config()
    config.method.name = method
    config.optim.batch_size = config.eval.batch_size = 8
    with config.unlocked():
        config.update_from_flattened_dict(keys)
    return compiled.compile_step(config, method, CLIP(TINY), random_variables(TINY), 5, tmp_path)


def test_no_gradient_of_frozen_weights_and_no_text_is_computed(tmp_path):
    """VP, and AP on its cached prefix, stay within 5 % of the forward pass and input gradient;
    tuning all weights costs about half as much again."""
    made = row(tmp_path, "vp")
    assert made.parameters == 3 * (32**2 - 24**2)
    assert made.cost.flops < 1.05 * made.floor
    # 32 x 32 pixels in uint8, with a label, an index and a weight of four bytes each.
    assert made.bytes_per_image == 32 * 32 * 3 + 12
    assert 1 <= made.compilations < 3
    made.run_step()
    late = row(tmp_path, "ap", **{"ap.positions": (1,)})
    assert late.cost.flops < 1.05 * late.floor
    assert late.floor < 0.75 * made.floor
    assert late.bytes_per_image == 17 * 64 * 4 + 12
    assert row(tmp_path, "full").cost.flops > 1.3 * made.floor


def test_devices_exchange_the_trained_gradient_once_and_the_sums(tmp_path):
    """Four virtual devices: float32 for each trained parameter and each of the summed metrics."""
    assert jax.device_count() == 4
    made = row(tmp_path, "vp")
    assert made.cost.reduced_bytes == 4 * (made.parameters + len(("loss", "accuracy", "count")))
    made = row(tmp_path, "adavipro")
    assert made.cost.reduced_bytes == 4 * (made.parameters + 4)  # the regions switched on, too


def test_reduced_bytes_are_read_from_the_program_s_text():
    text = """
      %all-reduce.1 = (f32[3,8]{1,0}, bf16[5]{0}, s32[]) all-reduce(%a, %b, %c), channel_id=1
      %all-reduce-start = f32[2]{0} all-reduce-start(%d), to_apply=%add
      %all-reduce-done = f32[2]{0} all-reduce-done(%all-reduce-start)
      ROOT %sum = f32[4]{0} add(%all-reduce-done, %e)"""
    assert measure.reduced_bytes(text) == 3 * 8 * 4 + 5 * 2 + 4 + 2 * 4


def test_a_probe_on_cached_features_has_no_tower(tmp_path):
    made = row(tmp_path, "linear")
    assert made.floor is None
    assert made.bytes_per_image == 16 * 4 + 12


def test_seconds_are_medians_in_turns():
    calls = []
    times = measure.seconds([lambda: calls.append("a"), lambda: calls.append("b")], 3, at_least=0)
    assert calls == list("aabb" + "ab" * 3)
    assert all(t >= 0 for t in times)


def test_a_short_program_is_run_several_times_before_it_is_waited_for():
    calls = []

    def short():
        calls.append(0)
        time.sleep(0.01)

    (taken,) = measure.seconds([short], 2, at_least=0.05)
    assert taken >= 0.01
    assert len(calls) > 2 + 2 * 2


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match=r"no variant 'ViT-B/31'.*ViT-B/32"):
        drawn.random_weights("ViT-B/31", "float32")


def test_a_prediction_is_the_longer_of_arithmetic_and_memory_and_then_the_exchange():
    cost = measure.Cost(flops=4e12, bytes=3e9, temp_bytes=0, held_bytes=0, reduced_bytes=0)
    one = machines.Machine("one", 1, {"float32": 2e12}, bandwidth=1e9)
    made = machines.predict(cost, one, "float32", 10**6)
    assert (made.arithmetic, made.memory, made.exchange) == (2.0, 3.0, 0.0)
    assert made.step == 3.0
    four = machines.Machine("four", 4, {"float32": 1e12}, bandwidth=1e9, link=1e6)
    # A ring of four sends three quarters of the million bytes twice.
    assert machines.predict(cost, four, "float32", 10**6).step == 4.0 + 1.5


@pytest.mark.parametrize(
    "memory",
    [lambda n: 100 + 7 * n, lambda n: 100 + 7 * n + 13 * (n % 3), lambda n: 50 * (n // 8) + n],
)
@pytest.mark.parametrize("limit", [110, 500, 5000])
def test_the_largest_batch_fits_and_the_next_does_not(memory, limit):
    tried = []

    def memory_at(size):
        tried.append(size)
        return memory(size)

    found = machines.largest_batch(memory_at, 1, limit)
    assert memory(found) <= limit < memory(found + 1)
    assert len(set(tried)) < 24
    assert machines.largest_batch(memory_at, 10**6, limit) == 0


def test_speed_is_set_beside_that_of_vp():
    vp = {"method": "vp", "gflop_per_image": 8.0, "images_per_second": 3.0}
    late = {"method": "ap at 9", "gflop_per_image": 2.0, "images_per_second": 9.0}
    uncounted = {"method": "linear", "gflop_per_image": 0.0}
    modes.compare_with_vp(made := [late, vp, uncounted])
    assert [row.get("speed_over_vp_by_flops") for row in made] == [4.0, 1.0, None]
    assert [row.get("speed_over_vp") for row in made] == [3.0, 1.0, None]
    modes.compare_with_vp(alone := [dict(method="ap at 9", gflop_per_image=2.0)])
    assert set(alone[0]) == {"method", "gflop_per_image"}


def test_the_command_prints_counts_predictions_and_what_fits(capsys, tmp_path):
    shared = ["--method", "linear", "--no_timing", "--json", str(tmp_path / "f.json")]
    command.main([*shared, "--batch", "8"])
    command.main([*shared, "--batch", "64", "--predict", "1000"])
    command.main([*shared, "--batch", "8", "--fit", "0.00001"])
    printed = capsys.readouterr().out
    assert "mini-clip-rn, float32, batch 8" in printed
    assert "an epoch of 1,000 images, batch 64" in printed
    (fitting,) = json.loads((tmp_path / "f.json").read_text())["tables"]
    assert fitting["rows"][0]["largest_batch"] == 0  # the head alone is larger
    assert fitting["rows"][0]["memory_gib"] > 0.00001


def test_torch_s_public_way_costs_more_flops_than_the_careful_one():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    flops = {}
    for way in torch_side.ways():
        step = torch_side.make_step(TINY, 4, 3, way, "float32", "highest")
        step()
        flops[way] = torch_side.count_flops(step)
    assert flops["public"] > 1.5 * flops["careful"] > 0


def test_on_a_gpu_a_cpu_counts_the_flops(capsys, monkeypatch, tmp_path):
    """A GPU's compiler does not; a process of its own compiles for the CPU."""
    arguments = ["--method", "vp", "--batch", "16", "--no_timing"]
    monkeypatch.setenv("XLA_FLAGS", "")  # one device in the other process
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    command.main([*arguments, "--json", str(tmp_path / "f.json")])
    ((vp,),) = (t["rows"] for t in json.loads((tmp_path / "f.json").read_text())["tables"])
    assert 0.04 < vp["gflop_per_image"] < 0.06
    assert 1.0 <= vp["flops_over_floor"] < 1.05
    with pytest.raises(SystemExit):
        command.main([*arguments, "--predict", "100"])
    assert "JAX_PLATFORMS=cpu" in capsys.readouterr().err


def test_a_random_tower_needs_no_vocabulary_of_its_own(monkeypatch):
    text = dataclasses.replace(TINY.text, tokenizer="siglip", end_token=1, vocab_size=50)
    monkeypatch.setitem(drawn.VARIANTS, "tiny", dataclasses.replace(TINY, text=text))
    clip, _ = drawn.random_weights("tiny", jax.numpy.float32)
    assert tokens_of(clip, [["a cat"]]).shape == (1, 1, 16)


@pytest.mark.parametrize("text, expected", [
    ("model name\t: A CPU\nflags\t\t: fpu avx2 avx512f sse2\n\n", "A CPU, avx2, avx512f"),
    ("Features\t: fp asimd sve bf16\n", f"{platform.machine()}, sve, bf16"),
    ("", platform.machine()),
])  # fmt: skip
def test_the_processor_and_its_instructions_are_named(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert machines.processor(tmp_path / "cpuinfo") == expected
    assert machines.processor(tmp_path / "missing")

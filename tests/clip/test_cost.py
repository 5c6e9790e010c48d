"""Loading a full-size checkpoint holds it once; the figures of `measure`."""

import dataclasses
import importlib
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import vprompt_jax as vp
from tests.conftest import random_tensors
from vprompt_jax.clip.checkpoints import cost, formats
from vprompt_jax.clip.variants import VIT_B_32


@pytest.mark.slow
@pytest.mark.parametrize("stored", [np.float16, np.float32])
def test_peak_memory_is_below_1_3_of_the_variables(tmp_path, stored):
    path = tmp_path / "vit_b_32.safetensors"
    tensors = random_tensors(VIT_B_32)
    formats.write_safetensors(path, {name: x.astype(stored) for name, x in tensors.items()}, {})
    del tensors
    path.with_suffix(".json").write_text(json.dumps({"clip": dataclasses.asdict(VIT_B_32)}))
    figures = cost.measure(path)
    print(json.dumps(figures, indent=2))
    assert 577 < figures["variables, MiB"] < 578  # 151,277,313 numbers of four bytes
    assert 0.9 < figures["peak memory over variables"] < 1.3


def test_tensors_are_read_one_at_a_time(tiny_path, monkeypatch):
    """Each is cast before the next is read, so that no second copy of the model is held."""
    module = importlib.import_module(
        "vprompt_jax.clip.checkpoints.load"
    )  # `clip.load` is the function
    events = []
    read, original = formats.read_tensors, module.to_variables

    def logged(path):
        return {
            name: dataclasses.replace(t, read=lambda t=t: events.append("read") or t.read())
            for name, t in read(path).items()
        }

    def convert(tensors, expected, layout, cast):
        return original(tensors, expected, layout, lambda x: events.append("cast") or cast(x))

    monkeypatch.setattr(module, "to_variables", convert)
    monkeypatch.setattr(formats, "read_tensors", logged)
    _, variables = vp.clip.load(tiny_path, dtype=np.float16)
    count = len(load_file(tiny_path))
    assert len(jax.tree.leaves(variables)) == count
    assert events == ["read", "cast"] * count

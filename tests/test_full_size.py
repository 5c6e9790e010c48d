"""The paper's config on a full-size ViT-B/32 of random weights and photographs from a folder."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, random_tensors
from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.clip.variants import VIT_B_32
from vprompt_jax.train import fit, loop


@pytest.mark.slow
def test_adaviprompt_cifar10_on_local_inputs(tmp_path, monkeypatch):
    weights = tmp_path / "openai_vit_b_32.safetensors"
    formats.write_safetensors(weights, random_tensors(VIT_B_32), {})
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 1)):
        for label in range(10):
            folder = tmp_path / "photos" / split / f"class_{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    spec = importlib.util.spec_from_file_location("c", ROOT / "configs/adaviprompt_cifar10.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.model.checkpoint = str(weights)
    config.data.source = "folder"
    config.data.dir = str(tmp_path / "photos")
    config.optim.batch_size = 16
    config.optim.epochs = 2
    config.optim.warmup_fraction = 0.2  # its own 1,000 steps are longer than this run
    config.log.every_steps = 1
    frozen = []
    train = loop.train

    def watched(run, workdir):
        frozen.append(jax.device_get(run.adaptation.frozen))
        outcome = train(run, workdir)
        frozen.append(jax.device_get(run.adaptation.frozen))
        return outcome

    monkeypatch.setattr("vprompt_jax.train.run.train", watched)
    result = fit(config, tmp_path / "run")
    assert result["trainable_parameters_by_part"] == {"prompt": 69_840, "mask": 132_866}
    assert result["steps"] == 2 * 3
    jax.tree.map(np.testing.assert_array_equal, *frozen)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(x)["train/loss"] for x in lines if "train/loss" in x]
    assert len(losses) == 6
    assert np.isfinite(losses).all()

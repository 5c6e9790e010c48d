"""Full-size towers of random weights, and photographs from a folder: the paper's config on a
ViT-B/32, and one step of VP on one tower of each family."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, random_tensors
from vprompt_jax.clip.checkpoints import drawn, formats
from vprompt_jax.clip.variants import VARIANTS, VIT_B_32
from vprompt_jax.config import default_config
from vprompt_jax.train import fit, loop


def photos(folder):
    """Ten classes of four images to train on and one to test on."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 1)):
        for label in range(10):
            of_class = folder / split / f"class_{label}"
            of_class.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(of_class / f"{i}.png")


@pytest.mark.slow
def test_adaviprompt_cifar10_on_local_inputs(tmp_path, monkeypatch):
    weights = tmp_path / "openai_vit_b_32.safetensors"
    formats.write_safetensors(weights, random_tensors(VIT_B_32), {})
    photos(tmp_path / "photos")
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

    def watched(run, *args):
        frozen.append(jax.device_get(run.adaptation.frozen))
        outcome = train(run, *args)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "SigLIP ViT-B/16",
        "DINOv2 ViT-B/14 with registers",
        "DINOv3 ViT-B/16",
        "DINOv3 ViT-S+/16",
        "OpenCLIP EVA02-B-16",
        "OpenCLIP PE-Core-B-16",
        "OpenCLIP coca_ViT-B-32",
    ],
)
def test_a_tower_of_each_family_loads_and_takes_a_step(name, tmp_path):
    weights = drawn.write(name, tmp_path)
    photos(tmp_path / "photos")
    config = default_config()
    config.method.name, config.head.kind = "vp", "linear"
    config.model.checkpoint = str(weights)
    config.data.source, config.data.dir = "folder", str(tmp_path / "photos")
    config.optim.batch_size, config.optim.epochs = 40, 1
    config.optim.parts, config.eval.batch_size = 10, 10
    result = fit(config, tmp_path / "run")
    side = VARIANTS[name].image_resolution
    width = round(30 / 224 * side)
    prompt = 3 * (side**2 - (side - 2 * width) ** 2)
    head = 10 * VARIANTS[name].embed_dim + 10
    assert result["trainable_parameters_by_part"] == {"prompt": prompt, "head": head}
    assert result["steps"] == 1
    assert np.isfinite(result["test"]["loss"])

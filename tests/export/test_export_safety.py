"""Exports are written as a whole, name their base model, and their card's commands work."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import vprompt_jax as vp
from tests.conftest import small_config
from vprompt_jax.clip.checkpoints.locate import public_name
from vprompt_jax.export import files as export
from vprompt_jax.inference.adapted import Adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit


@pytest.fixture(scope="module")
def runs(tiny_path, tmp_path_factory):
    """Two runs on the same classes, whose models differ."""
    workdirs = []
    for seed in (0, 1):
        c = small_config(tiny_path)
        c.seed = seed
        c.data.few_shot, c.optim.batch_size, c.optim.epochs, c.optim.warmup_steps = 4, 40, 1, 0
        workdirs.append(tmp_path_factory.mktemp("run"))
        fit(c, workdirs[-1])
    return [vp.load(workdir) for workdir in workdirs]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_nothing_of_an_older_export_stays(runs, images, tmp_path, tiny_path):
    first, second = runs
    out = tmp_path / "out"
    export.write(first, out)
    assert "model.stablehlo" in contents(out)
    written = export.write(second, out, bare=True)
    assert {p.name for p in written} == set(contents(out)) == {
        "README.md", "adaptation.safetensors", "config.json", "export.json"
    }  # fmt: skip
    config = (out / "config.json").read_text()
    (out / "config.json").write_text(config.replace("tiny.safetensors", str(tiny_path)))
    loaded = export.load(out)
    assert isinstance(loaded, Adapted)
    np.testing.assert_array_equal(loaded.logits(images), second.logits(images))
    assert np.abs(first.logits(images) - second.logits(images)).max() > 0
    export.write(first, out)
    np.testing.assert_array_equal(export.load(out).logits(images), first.logits(images))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # and nothing beside it


@pytest.mark.parametrize("at", ["stablehlo", "_flat"])
def test_a_failure_leaves_the_old_export_as_it_was(runs, tmp_path, monkeypatch, at):
    out = tmp_path / "out"
    export.write(runs[0], out, bare=True)
    before = contents(out)

    def fails(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(export, at, fails)
    with pytest.raises(RuntimeError, match="no"):
        export.write(runs[1], out)
    assert contents(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_rename_that_fails_brings_the_old_export_back(runs, tmp_path, monkeypatch):
    from pathlib import Path

    out = tmp_path / "out"
    export.write(runs[0], out, bare=True)
    before = contents(out)
    rename = Path.rename

    def fails(self, target):
        if self.suffix == ".part":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(UserError, match=r"cannot write an export to .*out"):
        export.write(runs[1], out, bare=True)
    assert contents(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_holds_more_than_an_export_is_not_replaced(runs, tmp_path):
    out = tmp_path / "out"
    export.write(runs[0], out, bare=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"other files \(notes.txt\): choose another --out"):
        export.write(runs[0], out, bare=True)
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot write an export to .*file"):
        export.write(runs[0], tmp_path / "file", bare=True)
    (tmp_path / "empty").mkdir()
    export.write(runs[0], tmp_path / "empty", bare=True)


def test_the_base_model_keeps_its_name_and_loses_its_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "clip.pt").write_bytes(b"")
    names = {
        "ViT-B/32": "ViT-B/32",
        "ViT-L/14@336px": "ViT-L/14@336px",
        "mini-clip-rn": "mini-clip-rn",
        "google/vit-large-patch16-224-in21k": "google/vit-large-patch16-224-in21k",
        "hf-hub:laion/CLIP-ViT-B-32@main": "hf-hub:laion/CLIP-ViT-B-32@main",
        "timm/resnet101.tv_in1k": "timm/resnet101.tv_in1k",
        "mine/clip.pt": "clip.pt",
        "mine": "mine",
        str(tmp_path / "mine" / "clip.pt"): "clip.pt",
        "/home/someone/gone/clip.safetensors": "clip.safetensors",
        "/home/someone/gone": "gone",
        "~/weights/clip": "clip",
        "gone/clip.safetensors": "clip.safetensors",
        "../gone/clip": "clip",
    }
    assert {name: public_name(name) for name in names} == names


def test_an_export_names_the_public_base_and_no_folder(runs, tmp_path, monkeypatch):
    """The same run as if its checkpoint had been named, and its images had been in a folder."""
    import dataclasses

    adapted = runs[0]
    config = adapted.config
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, checkpoint="ViT-B/32"),
        data=dataclasses.replace(config.data, source="folder", dir="/home/someone/photos"),
    )
    adaptation = dataclasses.replace(adapted.adaptation, config=config)
    result = adapted.result | {"skipped_images": ["/home/someone/photos/a/._1.jpg (no image)"]}
    named = Adapted(adaptation, adapted.params, adapted.assigned, result)
    export.write(named, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: openai/clip-vit-base-patch32" in card
    assert "| base model | ViT-B/32, frozen |" in card
    assert (
        json.loads((tmp_path / "out/config.json").read_text())["model"]["checkpoint"] == "ViT-B/32"
    )
    for name, content in contents(tmp_path / "out").items():
        assert b"/home/someone" not in content, name


def index_is_there() -> bool:
    asked = [sys.executable, "-m", "pip", "index", "versions", "flatbuffers"]
    return subprocess.run(asked, capture_output=True, timeout=60).returncode == 0


@pytest.mark.slow
def test_the_card_works_with_what_it_lists_and_nothing_else(runs, images, tmp_path):
    if not index_is_there():
        pytest.skip("no package index")
    export.write(runs[0], tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    packages = re.search(r"pip install (.*)\n", card)[1].split()
    assert {p.split("==")[0] for p in packages} == {"jax", "flatbuffers", "numpy", "safetensors"}
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, env=env)
    code = re.search(r"```python\n(.*?)```", card, re.S)[1]
    np.save(tmp_path / "in.npy", images[:2])
    placeholder = "np.zeros((2, 32, 32, 3), np.uint8)"
    assert placeholder in code
    code = code.replace(placeholder, f"np.load({str(tmp_path / 'in.npy')!r})")
    code += f"np.save({str(tmp_path / 'out.npy')!r}, logits)\n"
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path / "out", env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), runs[0].logits(images[:2]))

"""A tower that squashes its input is given squashed images, whoever decodes the file."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import vprompt_jax as vp
from tests.conftest import TINY, small_config
from vprompt_jax.config import resolve
from vprompt_jax.data.load import load
from vprompt_jax.inference.images import batch_of
from vprompt_jax.predict import pictures
from vprompt_jax.train import fit

SQUASHING = dataclasses.replace(TINY, resize="squash")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Wide photographs of two classes, which a crop would cut."""
    root, rng = tmp_path_factory.mktemp("photographs") / "wide", np.random.default_rng(0)
    for label in ("disc", "tile"):
        (root / label).mkdir(parents=True)
        for i in range(8):
            coarse = Image.fromarray(rng.integers(0, 256, (5, 9, 3), np.uint8))
            coarse.resize((90, 50)).save(root / label / f"{i}.png")
    return root


def squashed(path):
    with Image.open(path) as image:
        return np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("source", ["folder", "manifest"])
def test_datasets_of_files_are_squashed(folder, tiny_path, source):
    c = small_config(tiny_path)
    c.data.few_shot, c.data.source, c.data.dir = None, source, str(folder)
    if source == "manifest":
        c.data.dir = str(folder / "all.csv")
        rows = [f"{p.relative_to(folder)},{p.parent.name}" for p in sorted(folder.glob("*/*.png"))]
        (folder / "all.csv").write_text("\n".join(["path,label", *rows]))
    dataset = load(resolve(c).data, "paper", 32, resize="squash")
    for _, split in dataset.splits():
        for i, key in enumerate(split.keys):
            expected = squashed(folder / key).astype(int)
            assert np.abs(split.fetch(np.array([i]))[0] - expected).max() <= 1
    (folder / "all.csv").unlink(missing_ok=True)


def test_a_run_predicts_of_files_what_it_predicts_of_squashed_arrays(folder, tiny_path, tmp_path):
    shutil.copy(tiny_path, tmp_path / "clip.safetensors")
    about = {"clip": dataclasses.asdict(SQUASHING)}
    (tmp_path / "clip.json").write_text(json.dumps(about))
    c = small_config(tmp_path / "clip.safetensors")
    c.method.name = "linear"
    c.prompt.size = c.prompt.learning_rate = None
    c.mask.region = c.mask.width = c.mask.learning_rate = None
    c.data.few_shot, c.data.source, c.data.dir = None, "folder", str(folder)
    c.optim.batch_size, c.optim.epochs, c.optim.warmup_steps = 8, 1, 0
    fit(c, tmp_path / "run")
    model = vp.load(tmp_path / "run")
    paths = sorted(folder.glob("*/*.png"))
    expected = model.logits(np.stack([squashed(path) for path in paths]))
    ((_, decoded),) = pictures.batches(paths, 16, 32, "stop", [], model.resize)
    for images in (paths, decoded):
        np.testing.assert_allclose(model.logits(images), expected, atol=1e-4)
    cropped = model.logits(batch_of(paths, 32))
    assert np.abs(cropped - expected).max() > 1e-3  # the test can tell them apart

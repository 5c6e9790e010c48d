"""`vprompt train FOLDER` and `--dry_run`."""

import numpy as np
import pytest
from PIL import Image

from vprompt_jax.config import resolve
from vprompt_jax.data import folder
from vprompt_jax.launching import dry_run, photographs
from vprompt_jax.process.errors import UserError


def photos(root, **counts):
    """A folder with as many pictures of each class as said."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("counts, method, weights", [
    (dict(cat=100, dog=4), "linear", "none"),
    (dict(cat=520, dog=511), "linear", "none"),
    (dict(cat=520, dog=512), "ap", "none"),
    (dict(cat=1600, dog=512), "ap", "balanced"),
])  # fmt: skip
def test_the_method_suits_the_folder(tmp_path, capsys, counts, method, weights):
    root = photos(tmp_path / "my pets", **counts)
    c = photographs.get_config(str(root))
    assert (c.method.name, c.head.kind, c.optim.class_weights) == (method, "linear", weights)
    assert c.name == "my-pets"
    resolve(c)
    said = capsys.readouterr().err
    assert f"{sum(counts.values()):,} photographs of 2 classes" in said
    assert "method: " in said
    assert ("class weights" in said) == (weights == "balanced")


def test_a_test_split_is_not_counted(tmp_path):
    photos(tmp_path / "train", cat=5, dog=6)
    photos(tmp_path / "test", cat=7, dog=8)
    assert folder.sizes(tmp_path) == {"cat": 5, "dog": 6}


@pytest.mark.parametrize("counts, message", [
    ({}, "no class folders"),
    (dict(cat=3, dog=0), "no images of dog"),
])  # fmt: skip
def test_a_folder_that_is_none_is_named(tmp_path, counts, message):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=message):
        photographs.get_config(str(photos(tmp_path / "photos", **counts)))


def test_a_dry_run_says_what_a_run_would_take(tiny_config, tmp_path):
    c = tiny_config
    c.method.name = "vp"
    lines = dict(line.split(None, 1) for line in dry_run.describe(c).splitlines())
    assert lines["images"] == "3,200 train, 40 val, 2,880 test, of 10 classes"
    assert lines["parameters"].split()[0] == "1,344"
    assert lines["steps"] == "12 of 600 images (2 epochs)"
    assert "s a step" in lines["time"]
    assert "MiB" in lines["memory"]
    c.method.name = "tp"
    assert "nothing is trained" in dry_run.describe(c)
    c.method.name, c.head.solver = "linear", "lbfgs"
    assert "the head is solved at once" in dry_run.describe(c)


def test_a_dry_run_refuses_what_the_run_would(tiny_config):
    tiny_config.method.name = "vp"
    with pytest.raises(UserError, match=r"config\.mask\.region has no effect"):
        dry_run.describe(tiny_config, ["mask.region"])


def test_a_dry_run_names_downloads_and_makes_none(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setenv("VPROMPT_CACHE", str(tmp_path / "cache"))
    c = tiny_config
    c.data.source, c.data.name, c.data.dir = "tfds", "cifar10", str(tmp_path / "tfds")
    c.data.few_shot = None
    text = dry_run.describe(c)
    assert "download    cifar10, 170 MB" in text
    assert "45,000 train, 5,000 val, 10,000 test" in text
    c.data.few_shot, c.optim.warmup_steps = 16, 0
    assert "160 train, 40 val, 10,000 test" in dry_run.describe(c)
    c.data.val_shots, c.protocol = 100, "paper"
    assert "160 train, 10,000 test" in dry_run.describe(c)
    c.data.few_shot = c.data.val_shots = None
    c.data.name, c.data.split = "cifar100", "vtab"
    assert "images      1,000 train, of 100 classes" in dry_run.describe(c)
    assert not list(tmp_path.rglob("*.gz"))
    c.model.checkpoint = "nobody/nothing"
    with pytest.raises(UserError, match="VPROMPT_OFFLINE"):
        dry_run.describe(c)

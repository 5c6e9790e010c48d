"""`vprompt data`: a folder by itself is one of photographs."""

import sys

import numpy as np
import pytest
from PIL import Image

from vprompt_jax.data import __main__ as command


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("option", [[], ["--dir"], ["mine", "--source=folder", "--dir"]])
def test_a_folder_is_shown(photographs, tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vprompt data", *option, str(photographs)])
    command.main()
    name = option[0] if len(option) > 1 else "photos"
    out = capsys.readouterr().out
    assert "2: 'cat', 'dog'" in out
    assert (tmp_path / f"{name}.png").is_file()


def test_without_a_name_the_datasets_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vprompt data"])
    command.main()
    assert capsys.readouterr().out.startswith("cifar10 ")

"""No program overwrites a file that it reads, or one that happens to be there."""

import numpy as np
import pytest
from PIL import Image

from tests.conftest import GOLDEN, small_config
from vprompt_jax.predict import __main__ as predict
from vprompt_jax.process import files
from vprompt_jax.train import fit


@pytest.fixture(scope="module")
def workdir(tiny_path, tmp_path_factory):
    c = small_config(tiny_path)
    c.data.few_shot, c.optim.batch_size, c.optim.epochs, c.optim.warmup_steps = 4, 40, 1, 0
    workdir = tmp_path_factory.mktemp("run")
    fit(c, workdir)
    return workdir


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), np.uint8)
    for name, image in zip(("a.png", "b.jpg"), pixels, strict=True):
        Image.fromarray(image).save(folder / name)
    return folder


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_overlays_do_not_take_the_photographs_place(workdir, photos, capsys, tmp_path, monkeypatch):
    before = contents(photos)
    monkeypatch.chdir(photos)
    (tmp_path / "link").symlink_to(photos)
    for given, out in (
        (photos, photos),
        (".", "."),
        (photos, tmp_path / "link"),
        ("a.png", photos),
    ):
        with pytest.raises(SystemExit) as stop:
            predict.main(["--workdir", str(workdir), str(given), "--overlay", str(out)])
        assert stop.value.code == 1
        assert "one of the images to label: choose another folder" in capsys.readouterr().err
        assert contents(photos) == before


def test_overlays_take_names_that_are_free(workdir, photos, capsys, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_text("mine")
    predict.main(["--workdir", str(workdir), str(photos), "--overlay", str(out)])
    assert {p.name for p in out.iterdir()} == {"a.png", "a-2.png", "b.png"}
    assert (out / "a.png").read_text() == "mine"


def test_unused_counts_up(tmp_path):
    assert files.unused(tmp_path / "a.png") == tmp_path / "a.png"
    (tmp_path / "a.png").touch()
    (tmp_path / "a-2.png").symlink_to("gone")
    assert files.unused(tmp_path / "a.png") == tmp_path / "a-3.png"
    assert files.unused(tmp_path / "a.png", {tmp_path / "a-3.png"}) == tmp_path / "a-4.png"


def run_program(main, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["program", *map(str, arguments)])
    main()


def test_a_sample_grid_takes_a_name_that_is_free(tmp_path, monkeypatch, capsys):
    from vprompt_jax.data import __main__ as data

    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run_program(data.main, monkeypatch, "digits")
    assert {p.name for p in tmp_path.iterdir()} == {"digits.png", "digits-2.png"}
    assert "samples in digits-2.png" in capsys.readouterr().out
    for name in ("a", "b"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(8):
            picture = np.full((9, 9, 3), 20 * i + (name == "b"), np.uint8)
            Image.fromarray(picture).save(tmp_path / "mine" / name / f"{i}.png")
    before = contents(tmp_path / "mine" / "a")
    arguments = ("mine", "--source", "folder", "--dir", tmp_path / "mine", "--grid")
    for name in ("0.png", "new.png"):  # the one is a photograph, the other would become one
        with pytest.raises(SystemExit) as stop:
            run_program(data.main, monkeypatch, *arguments, tmp_path / "mine" / "a" / name)
        assert stop.value.code == 1
        assert "choose a path outside of that folder" in capsys.readouterr().err
    assert contents(tmp_path / "mine" / "a") == before


def test_convert_overwrites_neither_of_its_files(tmp_path, monkeypatch, capsys):
    from vprompt_jax.clip import __main__ as clip

    (tmp_path / "x.json").write_text("mine")
    with pytest.raises(SystemExit):
        run_program(
            clip.main, monkeypatch, "convert", GOLDEN / "hf_vit_tiny", tmp_path / "x.safetensors"
        )
    assert "x.json exists: choose another name" in capsys.readouterr().err
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"x.json": "mine"}

"""Reports, predictions and exports of runs whose files have moved or are gone."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.train.test_workdir import config_of, other_weights, weights
from vprompt_jax.export.__main__ import main as export_main
from vprompt_jax.predict.__main__ import main as predict_main
from vprompt_jax.report.__main__ import main as report_main
from vprompt_jax.train import fit


def photographs(root):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def original(tiny_path, tmp_path_factory):
    """A finished run on photographs, neither of whose files are where they were."""
    root = tmp_path_factory.mktemp("moved")
    config = config_of(weights(root / "first", tiny_path))
    config.data.source, config.data.dir = "folder", str(photographs(root / "photos"))
    config.data.few_shot, config.optim.batch_size, config.optim.warmup_steps = None, 4, 0
    fit(config, root / "run")
    (root / "first").rename(root / "second")
    (root / "photos").rename(root / "pictures")
    other_weights(root / "third", tiny_path)
    return root


@pytest.fixture
def run(original, tmp_path):
    shutil.copytree(original / "run", tmp_path / "run")
    return tmp_path / "run"


def status_of(main, *arguments) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    return caught.value.code


TABLES = {"report.html", "table.md", "table.tex", "runs.csv"}


def test_tables_need_neither_weights_nor_checkpoints(run, tmp_path, capsys):
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").write_text("damaged\n")
    report_main([str(run), "--out", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert {p.name for p in (tmp_path / "out").iterdir()} >= TABLES
    left_out = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 3
    assert "metrics.jsonl is damaged" in left_out[0]
    assert "pictures of prompted images" in left_out[1]
    assert "--checkpoint" in left_out[1]


def test_pictures_of_files_that_have_moved(run, original, tmp_path, capsys):
    """The lines name, one after another, what is missing; given all of it, nothing is left out."""
    given = ["--out", str(tmp_path / "out")]
    for option, path in (
        ("--checkpoint", original / "second" / "clip.safetensors"),
        ("--data_dir", original / "pictures"),
    ):
        report_main([str(run), *given])
        out = capsys.readouterr().out
        assert "left out: pictures" in out
        assert option in out
        given += [option, str(path)]
    report_main([str(run), *given])
    assert "left out" not in capsys.readouterr().out
    assert (tmp_path / "out" / "prompted_1.png").is_file()


def test_pictures_of_the_wrong_files_are_left_out(run, original, tmp_path, capsys):
    right = str(original / "second" / "clip.safetensors")
    wrong = str(original / "third" / "clip.safetensors")
    report_main([str(run), "--out", str(tmp_path / "out"), "--checkpoint", wrong])
    assert "holds other weights" in capsys.readouterr().out
    others = photographs(tmp_path / "others")
    (others / "test" / "cat" / "0.png").rename(others / "test" / "cat" / "new.png")
    report_main([str(run), "--out", str(tmp_path / "out"), "--checkpoint", wrong, right,
                 "--data_dir", str(others)])  # fmt: skip
    assert "holds other images" in capsys.readouterr().out


def test_predict_and_export_take_weights_that_have_moved(run, original, tmp_path, capsys):
    picture = next((original / "pictures").rglob("*.png"))
    right = original / "second" / "clip.safetensors"
    wrong = original / "third" / "clip.safetensors"
    assert status_of(predict_main, "--workdir", run, picture) == 1
    assert "by --checkpoint" in capsys.readouterr().err
    assert status_of(predict_main, "--workdir", run, "--checkpoint", wrong, picture) == 1
    assert "holds other weights" in capsys.readouterr().err
    predict_main(["--workdir", str(run), "--checkpoint", str(right), "--json", str(picture)])
    expected = json.loads(capsys.readouterr().out)["top"]
    out = tmp_path / "bare"
    export_main(["--workdir", str(run), "--out", str(out), "--bare", "--checkpoint", str(right)])
    assert str(original) not in (out / "config.json").read_text()  # no one's folders
    capsys.readouterr()
    assert status_of(predict_main, "--workdir", out, "--checkpoint", wrong, picture) == 1
    assert "by --checkpoint" in capsys.readouterr().err
    predict_main(["--workdir", str(out), "--checkpoint", str(right), "--json", str(picture)])
    assert json.loads(capsys.readouterr().out)["top"] == expected


def test_a_file_where_a_folder_is_needed(run, original, tmp_path, capsys):
    right = original / "second" / "clip.safetensors"
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "below"):
        assert status_of(export_main, "--workdir", run, "--out", out, "--checkpoint", right) == 1
        assert status_of(report_main, run, "--out", out) == 1
        errors = capsys.readouterr().err
        assert f"cannot write an export to {out}: " in errors
        assert errors.count("where a folder is needed") == 1, errors
        assert "Traceback" not in errors
    assert status_of(report_main, run, "--out", "/proc/1/nothing") == 1
    assert capsys.readouterr().err.startswith("error: /proc/1/nothing: ")

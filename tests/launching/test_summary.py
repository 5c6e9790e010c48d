"""What stands on the terminal when a run has finished."""

import functools
import json
import shlex

import pytest
from PIL import Image

from vprompt_jax.config import default_config, resolve
from vprompt_jax.launching import summary
from vprompt_jax.train.run import default_workdir, fit

ARGV = ["python", "launch.py", "--config", "configs/quickstart.py"]


def result(method, accuracy=0.75, **further):
    return {
        "method": method, "combination": method, "zero_shot_accuracy": 0.5, "dataset": "digits",
        "test_accuracy": accuracy, "test_accuracy_best_val": None, "regions_on": None, "seed": 0,
        "trainable_parameters": 1234, "steps": 2, "seconds": 1.0, **further,
    }  # fmt: skip


def config(method="adavipro"):
    c = default_config()
    c.name, c.method.name = "mine", method
    return c


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(text):
    return {line[: line.index("  ")]: line.split() for line in text.splitlines() if line[0] != " "}


def test_the_run_stands_between_zero_shot_and_commands_for_other_methods():
    shown = rows(summary.table(result("adavipro"), config(), (), ARGV))
    assert list(shown) == ["zero-shot", "AdaViPro", "VP", "AP", "linear probe"]
    assert shown["zero-shot"][-3:] == ["50.00%", "0", "-"]
    assert shown["AdaViPro"][-3:] == ["75.00%", "1,234", "1"]
    assert shlex.join(shown["VP"]).endswith(
        "python launch.py --config configs/quickstart.py --config.method.name=vp"
    )


def test_a_method_that_has_run_has_its_numbers():
    workdir = default_workdir(resolve(config("vp")))
    workdir.mkdir(parents=True)
    (workdir / "result.json").write_text(json.dumps(result("vp", 0.6)))
    shown = rows(summary.table(result("adavipro"), config(), (), ARGV))
    assert shown["VP"][-3:] == ["60.00%", "1,234", "1"]
    assert "not run yet" in " ".join(shown["AP"])


def test_the_command_names_its_method_once():
    argv = [*ARGV, "--config.method.name=adavipro", "--config.optim.epochs=2"]
    shown = summary.table(result("adavipro"), config(), ("method.name", "optim.epochs"), argv)
    (line,) = (line for line in shown.splitlines() if line.startswith("VP"))
    assert line.endswith(
        "python launch.py --config configs/quickstart.py --config.optim.epochs=2 "
        "--config.method.name=vp"
    )


def test_a_method_that_the_command_line_forbids_is_left_out():
    overridden = ("mask.region",)
    argv = [*ARGV, "--config.mask.region=4"]
    c = config()
    c.mask.region = 4
    assert list(rows(summary.table(result("adavipro"), c, overridden, argv))) == [
        "zero-shot", "AdaViPro",
    ]  # fmt: skip


def test_a_run_in_a_folder_of_its_own_stands_alone():
    assert list(rows(summary.table(result("vp"), config("vp"), (), None))) == ["zero-shot", "VP"]
    without_texts = result("vp", zero_shot_accuracy=None)
    assert list(rows(summary.table(without_texts, config("vp"), (), None))) == ["VP"]


def test_a_combination_has_its_name():
    combined = result("adavipro", combination="adavipro + ap")
    assert "AdaViPro + AP" in summary.table(combined, config(), (), None)
    del combined["combination"]  # a result of an earlier version
    assert "AdaViPro  " in summary.table(combined, config(), (), None)


def test_a_run_that_just_finished_leaves_its_picture_and_one_found_finished_does_not(
    tiny_config, tmp_path
):
    tiny_config.optim.epochs = 1
    draw = functools.partial(summary.draw, tmp_path)
    first = fit(tiny_config, tmp_path, then=draw)
    with Image.open(tmp_path / summary.PICTURE) as picture:
        assert min(picture.size) > 200
    (tmp_path / summary.PICTURE).unlink()
    assert fit(tiny_config, tmp_path, then=draw) == first
    assert not (tmp_path / summary.PICTURE).exists()


@pytest.mark.parametrize("accuracy, said", [(0.4, True), (0.5, False), (0.6, False)])
def test_a_run_below_zero_shot_is_said_to_be(accuracy, said):
    text = summary.table(result("vp", accuracy), config("vp"), (), None)
    assert ("without training, the CLIP is right more often" in text) == said

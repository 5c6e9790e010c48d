"""`fit` from a config to result.json: every method, resuming, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, leaves_by_path, random_tensors
from vprompt_jax.adaptation.build import build
from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.config import resolve
from vprompt_jax.data import digits
from vprompt_jax.inference import adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.prompts.generator import LEAN
from vprompt_jax.train import fit, loop

PARAMETERS = {
    "tp": 0,
    "vp": 3 * (32**2 - 24**2),
    # 3x3x3->4 with bias, then 8x8x4->2 with bias.
    "adavipro": 3 * (32**2 - 24**2) + (27 * 4 + 4) + (64 * 4 * 2 + 2),
    "ap": 17 * 64,
    "linear": 16 * 10 + 10,
}  # of those that stand for the others; all counts are in tests/adapters


@pytest.mark.parametrize("method", PARAMETERS)
def test_every_method_runs_from_the_same_config(tiny_config, tmp_path, method):
    tiny_config.method.name = method
    result = fit(tiny_config, tmp_path)
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result["method"] == method
    assert result["trainable_parameters"] == PARAMETERS[method]
    assert result["split_sizes"] == {"train": 3200, "val": 40, "test": 2880}
    assert result["steps"] == (0 if method == "tp" else 2 * 6)
    assert 0 <= result["test_accuracy"] <= 1
    assert set(result["controls"]) == ({"masks_exchanged"} if method == "adavipro" else set())
    rows = result["test"]["by_class"]
    assert [row["class"] for row in rows] == result["class_names"]
    assert [row["images"] for row in rows] == [sum(row) for row in result["test"]["confusion"]]
    assert sum(row["images"] for row in rows) == 2880
    for key, overall in (("accuracy", "test_accuracy"), ("zero_shot_accuracy",) * 2):
        mean = sum(row["images"] * row[key] for row in rows) / 2880
        assert mean == pytest.approx(result[overall], abs=1e-6)
    if method == "tp":
        assert result["test_accuracy"] == result["zero_shot_accuracy"]
    else:
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(x)["step"] for x in lines if "val/accuracy" in x]
        assert steps == [6, 12]
        for line in (json.loads(x) for x in lines if "train/loss" in x):
            rates = [k for k in line if k.startswith("train/learning_rate/")]
            assert len(rates) == len(result["trainable_parameters_by_part"])
        assert list(tmp_path.glob("events.out.tfevents.*"))
    assert json.loads((tmp_path / "config.json").read_text())["method"]["name"] == method


@pytest.mark.parametrize(
    "template", ["random_patch", pytest.param("fixed_patch", marks=pytest.mark.slow)]
)
def test_patches_compose_with_the_mask_and_a_linear_head(tiny_config, tmp_path, template):
    tiny_config.prompt.template = template
    tiny_config.prompt.size = 8
    tiny_config.head.kind = "linear"
    tiny_config.optim.epochs = 1
    result = fit(tiny_config, tmp_path)
    assert set(result["trainable_parameters_by_part"]) == {"prompt", "mask", "head"}
    assert result["trainable_parameters_by_part"]["prompt"] == 192


def test_paper_protocol_trains_on_everything_and_selects_nothing(tiny_config, tmp_path):
    tiny_config.protocol = "paper"
    tiny_config.optim.epochs = 1
    result = fit(tiny_config, tmp_path)
    assert result["test_accuracy_best_val"] is None
    assert result["split_sizes"]["val"] == 0


def test_a_generator_that_starts_at_what_is_better_keeps_its_start(tiny_config, tmp_path):
    tiny_config.mask.start, tiny_config.mask.hold = "better", 0.5
    result = fit(tiny_config, tmp_path)
    model = adapted.load(tmp_path)
    assert abs(float(model.assigned["lean"])) == LEAN
    test = digits.load().test
    predicted = model.logits(test.fetch(np.arange(len(test)))).argmax(-1)
    assert (predicted == test.labels).mean() == pytest.approx(result["test_accuracy"], abs=1e-3)


def test_only_one_part_assigns_and_only_from_images_that_are_there(tiny_config, tiny):
    tiny_config.mask.start, tiny_config.mask.hold = "better", 0.5
    clip, variables = tiny
    tiny_config.head.kind = "mapping"
    with pytest.raises(UserError, match=r"config\.mask and config\.head both assign"):
        build(resolve(tiny_config), clip, variables, classes=10)
    tiny_config.head.kind, tiny_config.protocol = "text", "paper"
    with pytest.raises(
        UserError, match=r"config\.protocol=paper has none: set config\.protocol=val"
    ):
        build(resolve(tiny_config), clip, variables, classes=10)


class Stop(Exception):
    pass


NAMES = ("whole", "parts")
TIMES = ("seconds", "images_per_second", "seconds_to_first_step", "input_wait")


@pytest.mark.parametrize(
    "keys", [{}, {"optim.average": 0.9, "optim.parts": 3, "optim.label_smoothing": 0.1}]
)
def test_an_interrupted_run_resumes_to_the_same_parameters_and_history(
    tiny_config, tmp_path, monkeypatch, keys
):
    tiny_config.update_from_flattened_dict(keys)
    fit(tiny_config, tmp_path / "whole")
    monkeypatch.setattr(loop.metrics, "make_writer", _stopping(loop.metrics.make_writer, at=9))
    with pytest.raises(Stop):
        fit(tiny_config, tmp_path / "parts")
    monkeypatch.undo()
    assert not (tmp_path / "parts" / "result.json").exists()
    fit(tiny_config, tmp_path / "parts")
    whole, parts = (adapted.load(tmp_path / n).params for n in NAMES)
    for name, leaf in leaves_by_path(whole).items():
        np.testing.assert_array_equal(leaf, leaves_by_path(parts)[name])
    # Stopped once more, in the last evaluation: the best on val is that of the save.
    (tmp_path / "parts" / "result.json").unlink()
    fit(tiny_config, tmp_path / "parts")
    whole, parts = (json.loads((tmp_path / n / "result.json").read_text()) for n in NAMES)
    for result in (whole, parts):
        for name in TIMES:
            del result[name]
    assert whole == parts
    histories = [(tmp_path / n / "metrics.jsonl").read_text() for n in NAMES]
    assert histories[0] == histories[1]


def _stopping(make_writer, at):
    def make(workdir, resume_step, config):
        writer = make_writer(workdir, resume_step, config)
        write = writer.write_scalars

        def write_scalars(step, scalars):
            if step >= at:
                raise Stop
            write(step, scalars)

        writer.write_scalars = write_scalars
        return writer

    return make


def test_a_finished_run_is_not_run_again(tiny_config, tmp_path, monkeypatch):
    tiny_config.optim.epochs = 1
    result = fit(tiny_config, tmp_path)
    monkeypatch.setattr("vprompt_jax.train.run.train", None)
    assert fit(tiny_config, tmp_path) == result


def test_another_config_in_the_same_workdir_is_refused_with_the_difference(tiny_config, tmp_path):
    tiny_config.method.name = "tp"
    fit(tiny_config, tmp_path)
    tiny_config.seed = 5
    with pytest.raises(UserError, match="seed: 0 -> 5"):
        fit(tiny_config, tmp_path)


def test_other_weights_or_data_under_the_same_names_are_refused(tiny_config, tmp_path, tiny_path):
    """The config, a path, is the same: the files it names are not."""
    weights = tmp_path / "weights.safetensors"
    shutil.copy(tiny_path, weights)
    shutil.copy(tiny_path.with_suffix(".json"), weights.with_suffix(".json"))
    tiny_config.model.checkpoint = str(weights)
    tiny_config.method.name = "vp"
    tiny_config.optim.epochs = 1
    fit(tiny_config, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    formats.write_safetensors(weights, random_tensors(TINY, seed=1), {})
    with pytest.raises(UserError, match=r"another run:\n  weights: [0-9a-f]{12}"):
        fit(tiny_config, tmp_path / "run")


def test_no_epochs_evaluate_the_start(tiny_config, tmp_path):
    tiny_config.optim.epochs = 0
    tiny_config.prompt.init = "zeros"
    result = fit(tiny_config, tmp_path)
    assert result["steps"] == 0
    assert result["trainable_parameters"] == PARAMETERS["adavipro"]
    assert result["test_accuracy"] == result["test_accuracy_best_val"]
    assert result["test_accuracy"] == result["zero_shot_accuracy"]  # a prompt of zeros


def test_splits_and_batches_smaller_than_the_number_of_devices(tiny_config, tmp_path):
    """Four devices; three training images in batches of two, two test images."""
    rng = np.random.default_rng(0)
    for split, per_class in (("train", (2, 1)), ("test", (1, 1))):
        for name, count in zip(("cat", "dog"), per_class, strict=True):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    tiny_config.data.source, tiny_config.data.dir = "folder", str(tmp_path / "photos")
    tiny_config.data.few_shot = None
    tiny_config.protocol = "paper"
    tiny_config.optim.batch_size = 2
    result = fit(tiny_config, tmp_path / "run")
    assert result["split_sizes"] == {"train": 3, "val": 0, "test": 2}
    assert result["steps"] == 2 * 2
    assert result["test_accuracy"] in (0, 0.5, 1)


def test_sizes_that_do_not_fit_the_tower_are_refused(tiny_config, tmp_path):
    tiny_config.mask.region = 5
    with pytest.raises(UserError, match="nearest that do: 4, 8"):
        fit(tiny_config, tmp_path)
    tiny_config.mask.region = 8
    tiny_config.prompt.size = 17
    with pytest.raises(UserError, match=r"size 1\.\.16"):
        fit(tiny_config, tmp_path)

"""Using a finished run: labels of new images, and files to hand on."""

import io
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import vprompt_jax as vp
from tests.conftest import leaves_by_path, small_config
from vprompt_jax.data import digits
from vprompt_jax.export import __main__ as export_command
from vprompt_jax.export import files as export
from vprompt_jax.predict import __main__ as predict
from vprompt_jax.predict.overlay import overlay, overlay_path
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit, validation
from vprompt_jax.train.evaluate import Evaluation


@pytest.fixture(scope="module")
def finished(tiny_path, tmp_path_factory):
    """The workdir of an AdaViPro run of two epochs, the first one best on val, and its prompts."""
    path = tmp_path_factory.mktemp("run") / "run"
    accuracies, prompts = iter([0.9, 0.1]), []

    def first_is_best(step, batches):
        params, *_ = step.args
        prompts.append(np.array(params["prompt"]["values"]))
        values = {"accuracy": next(accuracies), "loss": 1.0, "regions_on": 0.5}
        return Evaluation(values, np.zeros((40, 10), np.float32))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "evaluate", first_is_best)  # val alone; test is really evaluated
        fit(small_config(tiny_path), path)
    return path, prompts


@pytest.fixture(scope="module")
def workdir(finished):
    return finished[0]


@pytest.fixture(scope="module")
def adapted(workdir):
    return vp.load(workdir)


@pytest.fixture(scope="module")
def images():
    return digits.load().test.fetch(np.arange(5))


@pytest.fixture
def files(tmp_path, images):
    """Five test images as PNG, and odd ones in other formats and sizes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    first = Image.fromarray(images[0])
    first.resize((70, 45)).save(folder / "wide.jpg")
    first.resize((20, 41)).save(folder / "small.webp")
    first.convert("P").save(folder / "palette.gif")
    return folder


def test_probabilities_are_those_of_the_model_applied_by_hand(adapted, images):
    from vprompt_jax.clip.preprocess import preprocess
    from vprompt_jax.prompts.marks import dilate

    x = np.stack([preprocess(image, 32) for image in images])
    clip, variables = vp.clip.load(adapted.config.model.checkpoint)
    marks = adapted.inspect(images)["marks"]
    where = np.asarray(dilate(np.nan_to_num(marks), 8))
    tokens = vp.clip.tokenize([f"This is a photo of a {i}" for i in range(10)], 16)
    logits = np.asarray(jax.jit(clip.apply)(variables, x + adapted.prompt * where, tokens))
    np.testing.assert_allclose(adapted.logits(images), logits, atol=2e-4)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(adapted.probabilities(images), expected, atol=1e-4)
    assert adapted.predict(images) == [str(i) for i in logits.argmax(-1)]


def test_a_loaded_model_has_the_accuracy_its_result_says(adapted):
    test = digits.load().test
    labels = adapted.logits(test.fetch(np.arange(len(test)))).argmax(-1)
    assert (labels == test.labels).mean() == pytest.approx(
        adapted.result["test_accuracy"], abs=1e-3
    )


def run_predict(capsys, *arguments):
    predict.main([str(a) for a in arguments])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_predict_from_a_folder_in_batches(workdir, adapted, images, files, tmp_path, capsys):
    arguments = ("--workdir", workdir, files, "--json", "--top", 10, "--overlay", tmp_path / "over")
    records = run_predict(capsys, *arguments, "--batch_size", 3)
    assert [r["image"] for r in records] == sorted(str(p) for p in files.iterdir())
    probabilities = adapted.probabilities(images)
    for record, expected in zip(records[:5], probabilities, strict=True):
        assert [t["label"] for t in record["top"]] == [str(i) for i in np.argsort(-expected)]
        given = [t["probability"] for t in record["top"]]
        np.testing.assert_allclose(given, np.sort(expected)[::-1], atol=1e-5)
        with Image.open(record["overlay"]) as picture:
            assert picture.size == (4 * 224, 224)
    assert len({r["overlay"] for r in records}) == 8


def test_predict_from_a_list_as_a_table(workdir, files, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{files / '1.png'}\n\n{files / '0.png'}\n"))
    predict.main(["--workdir", str(workdir), "-", "--top", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(rf"{re.escape(str(files / '1.png'))} +\d +\d+\.\d %", lines[0])


def test_overlays_of_one_name_are_kept_apart(tmp_path):
    taken = set()
    names = [overlay_path(tmp_path, tmp_path / d / "a.png", taken).name for d in "xyz"]
    assert names == ["a.png", "a-2.png", "a-3.png"]


def test_the_overlay_shows_image_edges_mask_and_prompted(adapted, images):
    shown = adapted.inspect(images)
    shown["marks"][0] = np.nan
    shown["marks"][0, 0, 0], shown["marks"][0, 0, 1] = 1, 0
    tiles = np.split(np.asarray(overlay(shown, 0), np.float32) / 255, 4, axis=1)
    np.testing.assert_allclose(tiles[0][::7, ::7], shown["image"][0], atol=2 / 255)
    np.testing.assert_allclose(tiles[1][::7, ::7, 1], shown["edges"][0], atol=2 / 255)
    over = (tiles[2][::7, ::7] - 0.4 * shown["image"][0]) / 0.6
    np.testing.assert_allclose(over[4, 4], (1.0, 0.92, 0.27), atol=0.01)  # on: yellow
    np.testing.assert_allclose(over[4, 12], (0.0, 0.14, 0.31), atol=0.01)  # off: blue
    np.testing.assert_allclose(over[12, 12], 0.87, atol=0.01)  # no prompt: grey
    np.testing.assert_allclose(tiles[3][::7, ::7], shown["prompted"][0], atol=2 / 255)


def assert_one_message(capsys, main, arguments, *parts):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    for part in parts:
        assert str(part) in shown.err


def test_predict_refuses_bad_input(workdir, files, tmp_path, capsys):
    def refuses(arguments, *parts):
        assert_one_message(capsys, predict.main, arguments, *parts)

    gone = files / "gone.png"
    refuses(["--workdir", workdir, files / "0.png", gone], "no such image or folder", gone)
    (tmp_path / "empty").mkdir()
    refuses(["--workdir", workdir, tmp_path / "empty"], "no images in")
    refuses(["--workdir", tmp_path / "empty", files], "empty holds no finished run")
    refuses(["--workdir", workdir, files, "--top", 0], "--top")
    broken = files / "0broken.png"
    broken.write_bytes((files / "0.png").read_bytes()[:200])
    refuses(["--workdir", workdir, broken, files], "cannot decode", broken)
    refuses(["--workdir", workdir, files, "--overlay", broken], "cannot write to", broken)


def test_the_parameters_best_on_val(finished):
    workdir, prompts = finished
    assert np.abs(prompts[0] - prompts[1]).max() > 0
    for best, expected in ((True, prompts[0]), (False, prompts[1])):
        values = vp.load(workdir, best=best).params["prompt"]["values"]
        np.testing.assert_array_equal(values, expected)


@pytest.fixture(scope="module")
def exported(adapted, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    export.write(adapted, out)
    return out


def test_the_card_runs_in_a_fresh_process_bit_equal_without_this_package(
    exported, adapted, images, tmp_path
):
    card = (exported / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.S)[1]
    placeholder = "np.zeros((2, 32, 32, 3), np.uint8)"
    assert placeholder in code
    for count in (2, 5):  # two batch sizes of one artefact
        np.save(tmp_path / "in.npy", images[:count])
        script = code.replace(placeholder, f"np.load({str(tmp_path / 'in.npy')!r})")
        script += "import sys\nassert not {'vprompt_jax', 'flax'} & set(sys.modules)\n"
        script += f"np.save({str(tmp_path / 'out.npy')!r}, logits)\n"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=exported, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), adapted.logits(images[:count]))
        assert done.stdout.strip() == str(adapted.predict(images[:count]))
    accuracy = f"{100 * adapted.result['test_accuracy']:.2f} %"
    counts = ("1,970", "mask 626", "prompt 1,344")
    for part in ("adavipro", "tiny.safetensors", "digits", accuracy, vp.__version__, *counts):
        assert part in card, part


def test_exports_label_images_through_predict(exported, adapted, images, files, capsys):
    records = run_predict(capsys, "--workdir", exported, files / "1.png", "--json", "--top", 1)
    assert records[0]["top"][0]["label"] == adapted.predict(images)[1]
    assert_one_message(
        capsys, predict.main, ["--workdir", exported, files, "--overlay", files / "o"], "--overlay"
    )


def test_a_bare_adaptation_is_the_same_model_with_its_base(adapted, images, tmp_path, tiny_path):
    out = tmp_path / "bare"
    written = export.write(adapted, out, bare=True)
    assert {p.name for p in written} == {
        "README.md", "adaptation.safetensors", "config.json", "export.json"
    }  # fmt: skip
    for path in written:  # no folder of the machine it was made on
        assert str(tiny_path.parent).encode() not in path.read_bytes()
    with pytest.raises(UserError, match=r"no checkpoint 'tiny.safetensors'"):
        export.load(out)
    config = json.loads((out / "config.json").read_text())
    config["model"]["checkpoint"] = str(tiny_path)
    (out / "config.json").write_text(json.dumps(config))
    loaded = export.load(out)
    for name, leaf in leaves_by_path(loaded.params).items():
        np.testing.assert_array_equal(leaf, leaves_by_path(adapted.params)[name])
    np.testing.assert_array_equal(loaded.logits(images), adapted.logits(images))
    about = json.loads((out / "export.json").read_text())
    (out / "export.json").write_text(json.dumps(about | {"frozen_sha256": "0" * 64}))
    with pytest.raises(UserError, match="trained on other weights than"):
        export.load(out)


def test_another_input_size_is_resized_inside(adapted, images, tmp_path):
    export.write(adapted, tmp_path / "out", side=48)
    larger = np.stack([np.asarray(Image.fromarray(i).resize((48, 48))) for i in images])
    loaded = export.load(tmp_path / "out")
    assert loaded.resolution == 48
    np.testing.assert_array_equal(loaded.logits(larger), adapted.logits(larger))


def test_exports_that_cannot_be_used_are_one_message(exported, adapted, tmp_path, capsys):
    import shutil

    newer = tmp_path / "newer"
    shutil.copytree(exported, newer)
    about = json.loads((newer / "export.json").read_text())
    (newer / "export.json").write_text(json.dumps(about | {"format": export.FORMAT + 1}))
    with pytest.raises(UserError, match=rf"in format {export.FORMAT + 1}.*update vprompt_jax"):
        export.load(newer)
    (newer / "export.json").write_text(json.dumps(about))
    (newer / "model.stablehlo").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=rf"damaged, or newer than this jax {jax.__version__}"):
        export.load(newer)
    with pytest.raises(UserError, match="holds other files"):
        export.write(adapted, newer.parent)
    assert_one_message(
        capsys, export_command.main, ["--workdir", tmp_path / "x", "--out", tmp_path / "y"],
        "holds no finished run",
    )  # fmt: skip


@pytest.mark.slow
def test_adapters_tuned_weights_and_heads_are_loaded_and_exported_too(
    tiny_config, images, tmp_path
):
    c = tiny_config
    c.method.name, c.tune.weights, c.head.kind = "lora", "norm", "linear"
    c.ap.positions, c.optim.epochs = (1,), 1
    fit(c, tmp_path / "run")
    adapted = vp.load(tmp_path / "run")
    assert set(adapted.params) == {"lora", "ap", "tune", "head"}
    test_a_loaded_model_has_the_accuracy_its_result_says(adapted)
    export.write(adapted, tmp_path / "whole")
    loaded = export.load(tmp_path / "whole")
    np.testing.assert_array_equal(loaded.logits(images), adapted.logits(images))
    export.write(adapted, tmp_path / "bare", bare=True)
    config = tmp_path / "bare" / "config.json"
    config.write_text(config.read_text().replace("tiny.safetensors", c.model.checkpoint))
    bare = export.load(tmp_path / "bare")
    np.testing.assert_array_equal(bare.logits(images), adapted.logits(images))

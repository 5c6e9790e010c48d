"""A run's folder: who works in it, whose it is; paths count for nothing where hashes agree."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import vprompt_jax as vp
from tests.conftest import TINY, random_tensors, small_config
from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.config import resolve
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit, workdir

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def weights(folder: Path, tiny_path: Path) -> Path:
    """A copy of the tiny CLIP in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(tiny_path, folder / "clip.safetensors")
    shutil.copy(tiny_path.with_suffix(".json"), folder / "clip.json")
    return folder / "clip.safetensors"


def other_weights(folder: Path, tiny_path: Path) -> Path:
    path = weights(folder, tiny_path)
    formats.write_safetensors(path, random_tensors(TINY, seed=1), {})
    return path


def config_of(checkpoint):
    """VP for one epoch, the shortest run that trains."""
    c = small_config(checkpoint)
    c.method.name = "vp"
    c.mask.region = c.mask.width = c.mask.learning_rate = None
    c.data.few_shot = 32
    c.optim.batch_size = 160
    c.optim.epochs = 1
    c.optim.warmup_steps = 1
    return c


@pytest.fixture(scope="module")
def original(tiny_path, tmp_path_factory):
    """A finished run on weights in first/, below one folder."""
    root = tmp_path_factory.mktemp("original")
    fit(config_of(weights(root / "first", tiny_path)), root / "run")
    return root


@pytest.fixture
def root(original, tmp_path):
    """A copy of it whose weights lie at the path that the run knows: the original's."""
    shutil.copytree(original / "run", tmp_path / "run")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_second_command_is_refused_and_writes_nothing(tiny_path, tmp_path):
    config = config_of(tiny_path)
    with workdir.in_use(tmp_path / "run"):
        before = contents(tmp_path)
        with pytest.raises(UserError, match="in use by process " + str(os.getpid()) + " on "):
            fit(config, tmp_path / "run")
        assert contents(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_a_run_that_ends_leaves_no_lock(original):
    assert not (original / "run" / ".lock").exists()


def test_a_finished_run_needs_no_lock(root, original):
    """Another command may look at it, and it may lie where no one can write."""
    before = contents(root / "run")
    with workdir.in_use(root / "run"):
        result = fit(config_of(original / "first" / "clip.safetensors"), root / "run")
    assert result == json.loads((root / "run" / "result.json").read_text())
    assert contents(root / "run") == before


def test_leftovers_make_room_before_space_is_measured(tiny_path, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("activations-train-0.bin", "activations-test-7.bin"):
        (run / name).write_bytes(b"left")
    free = shutil.disk_usage(tmp_path)

    def disk_usage(path):
        return free if not list(run.glob("activations-*")) else free._replace(free=0)

    monkeypatch.setattr(workdir.shutil, "disk_usage", disk_usage)
    with workdir.in_use(run):
        assert [p.name for p in run.iterdir()] == [".lock"]
    monkeypatch.setattr(workdir.shutil, "disk_usage", lambda path: free._replace(free=0))
    with pytest.raises(UserError, match=r"only 0 MiB free at .*: make room"), workdir.in_use(run):
        pass
    assert not run.exists()


def test_inputs_are_recorded(original):
    stored = json.loads((original / "run" / "inputs.json").read_text())
    assert stored["files"] == {"model.checkpoint": str(original / "first" / "clip.safetensors")}
    assert {len(text) for text in stored["sums"].values()} == {64}


def test_the_fingerprint_is_of_what_was_typed(tiny_path, monkeypatch):
    absolute = resolve(config_of(tiny_path)).fingerprint
    monkeypatch.chdir(tiny_path.parent)
    assert resolve(config_of(tiny_path)).fingerprint == absolute
    assert resolve(config_of(tiny_path.name)).fingerprint != absolute


def test_another_working_folder(tiny_path, tmp_path, monkeypatch):
    weights(tmp_path / "first", tiny_path)
    monkeypatch.chdir(tmp_path)
    config = config_of("first/clip.safetensors")
    result = fit(config, "run")
    expected = vp.load("run").logits(IMAGES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    np.testing.assert_array_equal(vp.load("../run").logits(IMAGES), expected)
    assert fit(config, "../run") == result  # the same command
    assert fit(config_of("../first/clip.safetensors"), "../run") == result  # an equivalent path
    other_weights(elsewhere / "first", tiny_path)
    with pytest.raises(UserError, match="weights: "):  # the same command means other weights here
        fit(config, "../run")


def test_weights_that_moved(root, original, tiny_path, monkeypatch):
    expected = vp.load(root / "run").logits(IMAGES)
    inputs = json.loads((root / "run" / "inputs.json").read_text())
    inputs["files"]["model.checkpoint"] = str(root / "first" / "clip.safetensors")  # deleted
    (root / "run" / "inputs.json").write_text(json.dumps(inputs))
    with pytest.raises(UserError, match=r"no longer at .*first.*by --checkpoint"):
        vp.load(root / "run")
    moved = weights(root / "second", tiny_path)
    loaded = vp.load(root / "run", checkpoint=moved)
    np.testing.assert_array_equal(loaded.logits(IMAGES), expected)
    wrong = other_weights(root / "third", tiny_path)
    with pytest.raises(UserError, match=r"holds other weights than .* name a copy of those"):
        vp.load(root / "run", checkpoint=wrong)
    # The command with the new path finds the run finished, and whoever loads it finds the weights.
    before = (root / "run" / "result.json").read_bytes()
    with pytest.raises(UserError, match="weights: "):
        fit(config_of(wrong), root / "run")
    fit(config_of(moved), root / "run")
    assert (root / "run" / "result.json").read_bytes() == before
    np.testing.assert_array_equal(vp.load(root / "run").logits(IMAGES), expected)


def test_an_unfinished_run_goes_on_with_weights_that_moved(root, tiny_path):
    expected = json.loads((root / "run" / "result.json").read_text())
    (root / "run" / "result.json").unlink()
    wrong = other_weights(root / "third", tiny_path)
    with pytest.raises(UserError, match=r"of another run:\n.*model.checkpoint.*\n.*weights: "):
        fit(config_of(wrong), root / "run")
    result = fit(config_of(weights(root / "second", tiny_path)), root / "run")
    assert result["test_accuracy"] == expected["test_accuracy"]
    assert result["steps"] == expected["steps"]


def test_weights_inside_of_the_workdir_move_with_it(tiny_path, tmp_path):
    fit(config_of(weights(tmp_path / "run" / "clip", tiny_path)), tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "inputs.json").read_text())
    assert stored["files"] == {"model.checkpoint": "clip/clip.safetensors"}
    expected = vp.load(tmp_path / "run").logits(IMAGES)
    (tmp_path / "run").rename(tmp_path / "renamed")
    np.testing.assert_array_equal(vp.load(tmp_path / "renamed").logits(IMAGES), expected)


def test_another_config_is_refused(root, original):
    config = config_of(original / "first" / "clip.safetensors")
    config.seed = 1
    with pytest.raises(UserError, match=r"another config:\n  seed: 0 -> 1\n"):
        fit(config, root / "run")


def follow(error: UserError, run: Path, config) -> None:
    """Deletes the file that a message says to delete, and gives the command again."""
    text = str(error)
    name = next(n for n in ("result.json", "config.json", "inputs.json") if f"{run}/{n}" in text)
    assert "delete" in text
    (run / name).unlink()
    fit(config, run)


def test_the_advice_for_lost_checkpoints_works(root, original):
    config = config_of(original / "first" / "clip.safetensors")
    expected = vp.load(root / "run").logits(IMAGES)
    shutil.rmtree(root / "run" / "checkpoints")
    with pytest.raises(UserError, match=r"no checkpoint of what was trained") as caught:
        vp.load(root / "run")
    assert not (root / "run" / "checkpoints").exists()
    follow(caught.value, root / "run", config)
    np.testing.assert_array_equal(vp.load(root / "run").logits(IMAGES), expected)


@pytest.mark.parametrize("name", ["result.json", "config.json", "inputs.json"])
@pytest.mark.parametrize("damage", ["{", "[]", "{}", b"\xff\xfe", '{"files": 3}'])
def test_the_advice_for_damaged_files_works(root, original, name, damage):
    if name == "config.json" and damage == "{}":
        pytest.skip("a config without values is the default one: another run's")
    config = config_of(original / "first" / "clip.safetensors")
    expected = vp.load(root / "run").logits(IMAGES) if damage == "{" else None
    path = root / "run" / name
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    if name == "config.json" and damage == '{"files": 3}':
        with pytest.raises(UserError, match=r"unknown config key config\.files"):
            vp.load(root / "run")
        return
    for use in (lambda: vp.load(root / "run"), lambda: fit(config, root / "run")):
        with pytest.raises(UserError, match=f"{name} is damaged") as caught:
            use()
    if damage == "{":
        follow(caught.value, root / "run", config)
        np.testing.assert_array_equal(vp.load(root / "run").logits(IMAGES), expected)


def test_a_workdir_that_cannot_be_written(tiny_path, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/1/nothing")):
        with pytest.raises(UserError, match=r"cannot use the workdir .* by --workdir"):
            fit(config_of(tiny_path), place)


def test_texts_are_encoded_under_the_precision_of_the_config(original, monkeypatch):
    """`load` and export encode them outside of `fit`, which sets the precision for itself."""
    import jax

    from vprompt_jax.adaptation import adaptation

    seen = []
    encode = adaptation.encode_texts

    def encode_texts(*args):
        seen.append(jax.config.jax_default_matmul_precision)
        return encode(*args)

    monkeypatch.setattr(adaptation, "encode_texts", encode_texts)
    vp.load(original / "run")
    assert seen == ["highest"]
    assert jax.config.jax_default_matmul_precision != "highest"

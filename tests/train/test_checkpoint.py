"""Saves: damage of any file is noticed, and neither harms the older save nor the run."""

import logging
import shutil

import numpy as np
import pytest

from vprompt_jax.process.errors import UserError
from vprompt_jax.train.checkpoint import Checkpoints

IDENTITY = {"config": {"seed": 0, "optim": {"epochs": 2}}, "weights": "ab" * 32, "data": "cd" * 32}


def tree(step: int):
    rng = np.random.default_rng(step)
    values = rng.normal(size=(40, 3)).astype(np.float32)
    return {"params": {"values": values}, "n": np.asarray(step, np.int32)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the saves of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("saves") / "checkpoints"
    checkpoints = Checkpoints(folder, IDENTITY)
    for step in (1, 2):
        checkpoints.save(step, tree(step), {"seconds": step / 3})
    checkpoints.close()
    return folder


def restored(folder) -> tuple[int, Checkpoints]:
    """The step that is restored, its arrays and record compared to what was saved."""
    checkpoints = Checkpoints(folder, IDENTITY)
    arrays, record = checkpoints.restore(tree(0))
    step = int(arrays["n"])
    np.testing.assert_array_equal(arrays["params"]["values"], tree(step)["params"]["values"])
    assert record["seconds"] == step / 3
    return step, checkpoints


def damage(path, how: str):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "zeros":
        path.write_bytes(bytes(len(content)))
    elif how == "bit" and content:
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 4]) + content[-2:])


def test_the_newest_save_is_restored(saved):
    assert restored(saved)[0] == 2


@pytest.mark.parametrize("how", ["cut", "zeros", "bit"])
def test_damage_of_any_file_is_harmless_or_falls_back(saved, tmp_path, how, caplog):
    """`restored` accepts nothing but the exact content of one of the two saves."""
    caplog.set_level(logging.WARNING)
    files = [p.relative_to(saved) for p in sorted((saved / "2").rglob("*")) if p.is_file()]
    assert len(files) >= 8
    steps = []
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(saved, folder)
        damage(folder / file, how)
        caplog.clear()
        steps.append(restored(folder)[0])
        assert ("step 2 cannot be read" in caplog.text) == (steps[-1] == 1)
    assert steps.count(1) >= 2  # data and record at the least


def test_a_damaged_save_makes_room_for_a_new_one(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for path in (folder / "2" / "record").iterdir():
        damage(path, "cut")
    step, checkpoints = restored(folder)
    assert step == 1
    checkpoints.forget_after(1)
    checkpoints.save(2, tree(2), {"seconds": 2 / 3})
    checkpoints.close()
    assert restored(folder)[0] == 2


def test_nothing_readable_is_one_message(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for path in folder.rglob("*"):
        if path.is_file():
            damage(path, "cut")
    with pytest.raises(UserError, match="no readable checkpoint"):
        Checkpoints(folder, IDENTITY).restore(tree(0))


@pytest.mark.parametrize(
    "other, message",
    [
        ({"weights": "ef" * 32}, r"weights: abababababab\.\.\. -> efefefefefef"),
        ({"data": "12" * 32}, "data: cdcdcdcdcdcd"),
        ({"config": {"seed": 1, "optim": {"epochs": 2}}}, "seed: 0 -> 1"),
    ],
)
def test_another_identity_is_refused_with_the_difference(saved, other, message):
    checkpoints = Checkpoints(saved, IDENTITY | other)
    with pytest.raises(UserError, match=message):
        checkpoints.restore(tree(0))


def test_a_save_that_cannot_be_written_is_one_message(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "checkpoints", IDENTITY)
    checkpoints.save(1, tree(1), {"seconds": 1 / 3})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path / "checkpoints", IDENTITY)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(UserError, match=r"No space left on device.*older ones are intact"):
        checkpoints.save(2, tree(2), {"seconds": 2 / 3})
    assert restored(tmp_path / "checkpoints")[0] == 1

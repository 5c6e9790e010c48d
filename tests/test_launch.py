"""launch.py from a shell: a user's mistakes end in one message and a non-zero exit status."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import GOLDEN, ROOT

QUICKSTART = "configs/quickstart.py"


def launch(*args, cwd=ROOT):
    return subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *args],
        cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ},
    )  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of sixteen small photographs in two classes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return root


def on_folder(root, *args):
    return launch(
        "--config", QUICKSTART, "--config.data.source=folder", f"--config.data.dir={root}", *args
    )


def assert_one_message(done, *parts):
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    message = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.stderr.count("rror") >= 1, done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr
    assert len(message) < 12, done.stderr


def test_what_takes_seconds_to_import_is_imported_where_it_is_used():
    """Neither help, nor a user's mistake, nor a prediction waits for TensorFlow."""
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "launch.py", "--help"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert "--config" in shown.stdout
    assert not re.search(r"\| +(jax|flax|tensorflow)$", shown.stderr, re.MULTILINE)
    script = (
        "import sys; from vprompt_jax import train; from vprompt_jax.export import files; "
        "from vprompt_jax.launching import launch, sweep; "
        "from vprompt_jax.predict import __main__; "
        "late = {'tensorflow', 'tensorflow_datasets', 'matplotlib', 'sklearn', 'scipy.stats'}; "
        "print(late & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_unknown_config_key():
    done = launch("--config", QUICKSTART, "--config.prompt.sise=3")
    assert_one_message(done, "prompt.sise", "size")


def test_a_value_of_the_wrong_type():
    done = launch("--config", QUICKSTART, "--config.optim.epochs=many")
    assert_one_message(done, "optim.epochs", "many")


def test_missing_config():
    assert_one_message(launch("--config", "configs/nowhere.py"), "nowhere.py")


def test_missing_weights(tmp_path):
    done = launch(
        "--config", QUICKSTART, "--config.model.checkpoint=gone.pt", f"--workdir={tmp_path / 'w'}"
    )
    assert_one_message(done, "gone.pt", "give the path")
    assert not list(tmp_path.iterdir())


def test_weights_of_another_tokenizer(tmp_path):
    done = launch(
        "--config", QUICKSTART, f"--config.model.checkpoint={GOLDEN / 'openai_rn_tiny.pt'}",
        f"--workdir={tmp_path / 'w'}",
    )  # fmt: skip
    assert_one_message(done, "another tokenizer")


def test_missing_and_empty_folders(tmp_path, photos):
    assert_one_message(on_folder(tmp_path / "none"), f"cannot read the folder {tmp_path / 'none'}")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "test" / "cat").mkdir(parents=True)
    assert_one_message(on_folder(tmp_path), "no images of cat")


def test_wrong_class_count(tmp_path, photos):
    import shutil

    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    (root / "test" / "bird").mkdir()
    shutil.copy(root / "test" / "cat" / "0.jpg", root / "test" / "bird")
    assert_one_message(on_folder(root), "classes that train lacks: bird")


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_corrupt_image(tmp_path, photos, damage):
    import shutil

    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    bad = root / "train" / "dog" / "2.jpg"
    bad.write_bytes(bad.read_bytes()[:700] if damage == "truncated" else b"not an image")
    assert_one_message(on_folder(root, f"--workdir={tmp_path / 'w'}"), str(bad))


def test_an_unwritable_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    done = launch("--config", QUICKSTART, f"--workdir={tmp_path / 'file' / 'w'}")
    assert_one_message(done, "cannot use the workdir")

"""The command `vprompt`, from a shell, in a checkout and from a wheel elsewhere."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from vprompt_jax import __main__ as command


def vprompt(*args, cwd=ROOT, path=None):
    env = {**os.environ} | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(
        [sys.executable, "-m", "vprompt_jax", *args],
        cwd=cwd, capture_output=True, text=True, timeout=300, env=env,
    )  # fmt: skip


def test_alone_it_shows_the_verbs_and_the_configs():
    done = vprompt()
    assert done.returncode == 0
    assert done.stdout.startswith("usage: vprompt VERB")
    for verb in command.VERBS:
        assert f"\n  {verb} " in done.stdout
    assert "  configs/quickstart.py " in done.stdout


def test_elsewhere_configs_have_names(tmp_path):
    lines = vprompt("configs", cwd=tmp_path).stdout.splitlines()
    assert any(line.startswith("  quickstart  ") for line in lines)
    assert any(line.startswith("  sweeps/adavipro_t4  ") for line in lines)
    assert len(lines) == len(vprompt("configs").stdout.splitlines())


@pytest.mark.parametrize("verb", [v for v in command.VERBS if v != "configs"])
def test_every_verb_helps(verb):
    done = vprompt(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: vprompt {verb}")


@pytest.mark.parametrize("args, message", [
    (["trian"], "no verb 'trian'; did you mean train?"),
    (["train", "nowhere/photos"], "no config file or folder 'nowhere/photos'"),
    (["train", "quickstrat"], "did you mean configs/quickstart.py"),
    (["train", "quickstart", "--config.lr=1"], "did you mean config.prompt.learning_rate"),
    (["train", "configs/quickstart.py", "--config.prompt.sise=3"], "config.prompt.size"),
])  # fmt: skip
def test_a_mistake_is_one_message(args, message):
    done = vprompt(*args)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "vprompt_jax"], cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert "vprompt_jax.launching.shipped" in done.stderr
    assert not re.search(r"\| +(jax|flax|numpy|ml_collections)$", done.stderr, re.MULTILINE)


@pytest.mark.slow
def test_a_wheel_trains_away_from_the_checkout(tmp_path):
    """Its configs travel with it and import each other."""
    wheels, site, away = tmp_path / "wheels", tmp_path / "site", tmp_path / "away"
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(ROOT)], check=True)
    (wheel,) = wheels.glob("vprompt_jax-*.whl")
    install = [*pip, "install", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    away.mkdir()
    listed = vprompt("configs", cwd=away, path=site)
    assert "  sweeps/learning_rates " in listed.stdout
    shown = vprompt("train", "sweeps/adavipro_t4:mini", "--print_commands", cwd=away, path=site)
    assert shown.stdout.count("vprompt train sweeps/adavipro_t4:mini --run=") == 9
    done = vprompt(
        "train", "quickstart", "--config.optim.epochs=1", "--config.method.name=linear",
        "--config.optim.batch_size=2048", "--config.optim.warmup_steps=1", cwd=away, path=site,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (away / "runs").is_dir()
    code = "import vprompt_jax; print(vprompt_jax.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=away, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(site)},
    ).stdout  # fmt: skip
    assert where.startswith(str(site))


def completed(line, tmp_path, cwd=ROOT):
    """What a shell is told may follow a line."""
    out = tmp_path / "out"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    env = {**os.environ, **asked}
    subprocess.run([sys.executable, "-m", "vprompt_jax"], cwd=cwd, timeout=300, env=env)
    return set(map(str.strip, out.read_text().split("\n")))


@pytest.mark.parametrize("line, some", [
    ("vprompt ", {"train", "predict", "configs"}),
    ("vprompt pre", {"predict"}),
    ("vprompt train qui", {"quickstart", "quickstart_photos"}),
    ("vprompt train quickstart --config.mask.ho", {"--config.mask.hold"}),
    ("vprompt train quickstart --config.mask.edge=so", {"--config.mask.edge=sobel"}),
    ("vprompt report run --by_", {"--by_dataset"}),
    ("vprompt clip in", {"inspect"}),
    ("vprompt nothing ", {"--help"}),
])  # fmt: skip
def test_a_shell_is_told_what_may_follow(line, some, tmp_path):
    assert some <= completed(line, tmp_path, cwd=tmp_path)
    assert "predict" not in completed("vprompt tr", tmp_path)

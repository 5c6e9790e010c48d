"""Sweeps: their runs, the commands of each, resuming, and every sweep file."""

import importlib
import shlex

import pytest

from tests.conftest import ROOT
from tests.test_launch import assert_one_message, launch
from vprompt_jax import config as config_lib
from vprompt_jax.config import sweep as sweeps
from vprompt_jax.launching import photographs, sweep
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit

OURS = ("masks", "folder_size", "paper_length")  # which have no paper's setting
FILES = sorted(
    p.stem for p in (ROOT / "configs" / "sweeps").glob("*.py") if p.stem not in ("common", *OURS)
)


def test_grid_names_every_combination():
    runs = sweeps.grid({"method.name": ("vp", "tp"), "prompt.size": (4, 8)}, seeds=(0, 3))
    assert len(runs) == 8
    assert runs[1] == ("vp-size_4-s3", (("method.name", "vp"), ("prompt.size", 4), ("seed", 3)))
    assert len({name for name, _ in runs}) == 8


@pytest.mark.parametrize("variant", ["paper", "mini"])
@pytest.mark.parametrize("name", FILES)
def test_every_run_of_every_sweep_is_a_valid_config(name, variant):
    config = importlib.import_module(f"configs.sweeps.{name}").get_config(variant)
    runs = sweeps.expand(config)
    assert len(runs) > 1
    resolved = [config_lib.resolve(one) for one in runs.values()]
    assert len({c.fingerprint for c in resolved}) == len(runs)
    sources = {c.data.source for c in resolved}
    assert sources == ({"tfds"} if variant == "paper" else {"digits"})
    if variant == "paper":
        assert {c.protocol for c in resolved} == {resolved[0].protocol}


@pytest.mark.parametrize("cifar, sources", [("", {"digits"}), ("x.npz", {"digits", "arrays"}),
                                            ("photos", {"digits", "folder"})])  # fmt: skip
def test_the_sweep_of_masks_takes_cifar_as_it_comes(cifar, sources):
    runs = sweeps.expand(importlib.import_module("configs.sweeps.masks").get_config(cifar))
    assert len(runs) == 60 * (3 if cifar else 1)
    resolved = [config_lib.resolve(one) for one in runs.values()]
    assert len({c.fingerprint for c in resolved}) == len(runs)
    assert {c.data.source for c in resolved} == sources


def test_the_sweep_at_the_papers_length_has_its_setting():
    runs = sweeps.expand(importlib.import_module("configs.sweeps.paper_length").get_config("x.npz"))
    resolved = {name: config_lib.resolve(one) for name, one in runs.items()}
    assert len({c.fingerprint for c in resolved.values()}) == len(runs) == 10
    one = resolved["adavipro-s0"]
    mask, prompt = one.parts["mask"], one.parts["prompt"]
    assert (mask.temperature, mask.temperature_decay, mask.edge) == (5.0, 0.98, "laplacian")
    assert (mask.start, mask.hold, mask.sampled, prompt.init) == ("random", 0.0, 1.0, "normal")
    assert one.optim.epochs == 1000


def test_the_sweep_of_folder_sizes_has_the_schedule_of_vprompt_train():
    runs = sweeps.expand(importlib.import_module("configs.sweeps.folder_size").get_config("x.npz"))
    resolved = {name: config_lib.resolve(one) for name, one in runs.items()}
    assert len({c.fingerprint for c in resolved.values()}) == len(runs) == 54
    assert resolved["ap-few_shot_16-s0"].optim.epochs == photographs.epochs(160)
    assert resolved["lora-few_shot_256-s0"].optim.epochs == photographs.epochs(2560)
    assert resolved["linear-few_shot_4-s0"].optim.epochs == 1


def test_a_sweep_runs_reports_and_continues(tiny_config, tmp_path, monkeypatch, capsys):
    tiny_config.sweep = sweeps.grid({"method.name": ("tp",)}, seeds=(0, 1, 2))
    name, one = sweeps.choose(tiny_config, "1")
    assert name == "tp-s1"
    fit(one, tmp_path / name)
    monkeypatch.setattr("vprompt_jax.report.write", lambda *a, **k: [tmp_path / "report"])
    cleared = []
    monkeypatch.setattr("jax.clear_caches", lambda: cleared.append(1))
    sweep.run(tiny_config, tmp_path)
    assert len(cleared) == 3
    out = capsys.readouterr().out
    assert f"wrote {tmp_path / 'report'}" in out
    first, _, third = (line for line in out.splitlines() if line.startswith("["))
    assert first.endswith(" seconds left")  # for the third alone: the second was there
    assert "left" not in third
    monkeypatch.setattr("vprompt_jax.train.run.train", None)  # nothing is trained again
    sweep.run(tiny_config, tmp_path)
    assert "[2/3] tp-s1" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no run 'tp' in this config: 0 tp-s0, 1 tp-s1"):
        sweeps.choose(tiny_config, "tp")


@pytest.mark.slow
def test_the_report_of_a_sweep_shows_its_prompts(tiny_config, tmp_path):
    tiny_config.optim.epochs = 1
    tiny_config.sweep = sweeps.grid({"method.name": ("vp", "adavipro", "tp")})
    sweep.run(tiny_config, tmp_path)
    for name in ("report.html", "table.md", "runs.csv", "parameters.png", "prompted_1.png"):
        assert (tmp_path / name).stat().st_size > 100
    assert (tmp_path / "runs.csv").read_text().count("\n") == 4
    figures = {path.stem for path in tmp_path.glob("*.png")}
    assert figures >= {"curves", "parameters", "prompted_1", "confusion", "reliability", "mistakes"}
    assert (tmp_path / "report.html").read_text().count("data:image/png") == len(figures)


def test_a_sweep_with_a_mistake_is_refused_by_name(tiny_config):
    tiny_config.sweep = (("a", (("prompt.sise", 3),)),)
    with pytest.raises(UserError, match=r"sweep run 'a'.*sise"):
        sweeps.expand(tiny_config)
    tiny_config.sweep = (("a", (("seed", 3),)), ("a", (("seed", 4),)))
    with pytest.raises(UserError, match="'a' is listed twice"):
        sweeps.expand(tiny_config)


def test_an_overridden_key_is_refused_only_if_no_run_uses_it(tiny_config):
    """A sweep over methods sets the keys of all of them at once."""
    tiny_config.sweep = sweeps.grid({"method.name": ("vp", "adavipro")})
    runs = sweeps.expand(tiny_config)
    sweeps.check_overridden(runs, ["mask.region", "prompt.size", "optim.epochs"])
    message = r"no run of this sweep uses this key: config\.lora\.alpha has no effect"
    with pytest.raises(UserError, match=message):
        sweeps.check_overridden(runs, ["mask.region", "lora.alpha"])
    tiny_config.sweep = sweeps.grid({"method.name": ("vp",), "lora.rank": (0, 2)})
    sweeps.check_overridden(sweeps.expand(tiny_config), ["lora.alpha"])


def test_a_key_that_no_run_uses_is_one_message_in_a_shell(tmp_path):
    arguments = ("--config", "configs/sweeps/adavipro_t6.py:mini", "--config.lora.alpha=8")
    for which in ((), ("--run=0",)):
        done = launch(*arguments, *which, f"--workdir={tmp_path / 'w'}")
        assert_one_message(done, "no run of this sweep uses this key: config.lora.alpha")
        assert done.returncode == 1
        assert not list(tmp_path.iterdir())


def test_print_commands_gives_a_command_per_run_that_launch_takes():
    arguments = ("--config", "configs/sweeps/adavipro_t6.py:mini", "--config.optim.epochs=2")
    done = launch(*arguments, "--print_commands")
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    assert len(commands) == 9
    assert commands[0][2:] == [*arguments, "--run=region_4-s0"]
    assert_one_message(launch(*arguments, "--run=region_3-s0"), "no run 'region_3-s0'")
    assert_one_message(
        launch("--config", "configs/sweeps/adavipro_t6.py:tiny"),
        "the variants are paper, mini and a folder",
    )
    assert_one_message(launch("--config", "configs/quickstart.py", "--run=a"), "it is no sweep")

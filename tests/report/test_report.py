"""Tables and figures from result.json files."""

import json

import numpy as np
import pytest
from PIL import Image

from vprompt_jax import report, sweep
from vprompt_jax.errors import UserError
from vprompt_jax.report import tables
from vprompt_jax.report.results import accuracies, gather, paired, spread


def write_result(folder, method, seed, accuracy, **extra):
    folder.mkdir()
    result = {
        "method": method, "seed": seed, "test_accuracy": accuracy, "zero_shot_accuracy": 0.5,
        "dataset": "d", "regions_on": None, "trainable_parameters": 7, "seconds": 2.0, **extra,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def folders(tmp_path):
    made = []
    for seed, (vp, ada) in enumerate([(0.2, 0.5), (0.3, 0.7), (0.1, 0.6)]):
        for method, value in (("vp", vp), ("adavipro", ada)):
            extra = {"prompt_init": "normal", "prompt_size": 16}
            made.append(write_result(tmp_path / f"{method}{seed}", method, seed, value, **extra))
    made.append(write_result(tmp_path / "tp", "tp", 0, 0.5))
    return made


def test_differences_are_paired_by_seed(folders):
    grouped = accuracies(gather(folders))
    table = tables.difference_table(grouped, 0.5)
    # Differences 30, 40, 50: mean 40, sample deviation 10; AdaViPro - 50: 0, 20, 10.
    assert "| normal | 16 | 40.0 ± 10.0 | 3 of 3 | 10.0 ± 10.0 |" in table


def test_accuracy_table(folders):
    results = gather(folders)
    table = tables.accuracy_table(results, accuracies(results))
    assert "| vp | normal | 16 | 20.0 ± 10.0 | - | 7 | 2 | 3 |" in table
    assert "| tp | - | - | 50.0 | - | 7 | 2 | 1 |" in table


def test_paired_uses_common_seeds_only():
    np.testing.assert_allclose(paired({0: 0.5, 1: 0.7}, {1: 0.2, 2: 0.9}), [0.5])
    assert spread(np.array([0.25])) == "25.0"


def test_unfinished_runs_and_mixed_datasets_are_refused(folders, tmp_path):
    (tmp_path / "open").mkdir()
    with pytest.raises(UserError, match="open holds no finished run"):
        gather([*folders, tmp_path / "open"])
    other = write_result(tmp_path / "other", "vp", 0, 0.1, dataset="e")
    with pytest.raises(UserError, match="one dataset, not d, e"):
        gather([*folders, other])


def test_a_sweep_runs_reports_and_continues(tiny_config, tmp_path, monkeypatch, capsys):
    tiny_config.optim.epochs = 1
    tiny_config.sweep = tuple(
        (name, (("method.name", name.split("-")[0]), ("prompt.init", init)))
        for name, init in (("vp-n", "normal"), ("adavipro-n", "normal"), ("tp-", "normal"))
    )
    sweep.run(tiny_config, tmp_path)
    names = ["table.md", "runs.csv", "accuracy_over_size.png", "prompted_normal.png"]
    for name in names:
        assert (tmp_path / name).stat().st_size > 100
    assert Image.open(tmp_path / "prompted_normal.png").width > 400
    assert (tmp_path / "runs.csv").read_text().count("\n") == 4
    monkeypatch.setattr("vprompt_jax.train.run.train", None)  # nothing is trained again
    sweep.run(tiny_config, tmp_path)
    assert "[3/3] tp-" in capsys.readouterr().out


def test_an_unknown_key_in_a_sweep_is_named(tiny_config, tmp_path):
    tiny_config.sweep = (("a", (("prompt.sise", 3),)),)
    with pytest.raises(UserError, match=r"sweep run 'a'.*sise"):
        sweep.run(tiny_config, tmp_path)


def test_the_gallery_greys_out_regions_without_a_template(tiny_config, tmp_path):
    from vprompt_jax.report.figures import prompted_images
    from vprompt_jax.train import fit
    from vprompt_jax.train.run import load_run

    tiny_config.optim.epochs = 1
    fit(tiny_config, tmp_path / "run")
    run, params = load_run(tmp_path / "run")
    shown = prompted_images(run, params, np.arange(2, dtype=np.int32))
    # Padding of 4 at 32 pixels and regions of 8: the 12 outer regions of 16.
    assert np.isnan(shown["marks"]).sum() == 2 * 4
    assert shown["image"].min() >= 0
    assert shown["prompted"].max() <= 1
    assert report.write([tmp_path / "run"], tmp_path)

"""Tables, figures and the page from finished runs' files."""

import csv
import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from vprompt_jax import config as config_lib
from vprompt_jax.clip.variants import VIT_B_32
from vprompt_jax.process.errors import UserError
from vprompt_jax.report import __main__ as program
from vprompt_jax.report import differences, figures, gallery, protocols, results, tables

pytestmark = pytest.mark.fast


def write_run(folder, accuracy, *, seed=0, zero_shot=0.5, dataset="digits", **keys):
    """A finished run's files: config.json, metrics.jsonl and result.json."""
    config = config_lib.default_config()
    config.seed = seed
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
    config = config_lib.resolve(config)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.as_json())
    lines = [{"step": s, "train/loss": 1 / s, "val/accuracy": accuracy} for s in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    result = {
        "method": config.method.name, "seed": seed, "dataset": dataset, "steps": 3,
        "protocol": config.protocol, "test_accuracy": accuracy, "test_accuracy_best_val": None,
        "val_accuracy_best": None if config.method.name == "tp" else accuracy + 0.05,
        "zero_shot_accuracy": zero_shot, "regions_on": None, "trainable_parameters": 1234,
        "seconds": 2.0, "images_per_second": None,
        "split_sizes": {"train": 10, "val": 0, "test": 1000},
        "clip": dataclasses.asdict(VIT_B_32), "versions": {"jax": "1.2.3"},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def folders(tmp_path):
    """VP and AdaViPro at two prompt sizes with three seeds, and zero-shot."""
    made = [write_run(tmp_path / "tp", 0.5, method__name="tp")]
    values = {16: [(0.2, 0.5), (0.3, 0.7), (0.1, 0.6)], 8: [(0.4, 0.4), (0.4, 0.4), (0.4, 0.4)]}
    for size, by_seed in values.items():
        for seed, pair in enumerate(by_seed):
            for method, value in zip(("vp", "adavipro"), pair, strict=True):
                keys = {"method__name": method, "prompt__size": size}
                made.append(
                    write_run(tmp_path / f"{method}{size}s{seed}", value, seed=seed, **keys)
                )
    return made


def grouped(folders):
    return results.group(results.gather(folders))


def test_settings_are_what_differs_within_a_method(folders, tmp_path):
    assert results.varying(results.gather(folders)) == ["method.name", "prompt.size"]
    extra = write_run(tmp_path / "x", 0.1, method__name="adavipro", mask__edge="none")
    other = write_run(tmp_path / "y", 0.1, method__name="linear", protocol="paper")
    keys = results.varying(results.gather([*folders, extra, other]))
    # The edge differs within AdaViPro; the protocol counts even if each method has its own.
    assert keys == ["method.name", "prompt.size", "mask.edge", "protocol"]


def test_settings_whose_baseline_is_below_zero_shot_are_pooled_too(folders, tmp_path):
    for seed in range(3):
        for method, accuracy in (("vp", 0.8), ("adavipro", 0.7)):
            folder = tmp_path / f"more-{method}-{seed}"
            keys = {"seed": seed, "method__name": method, "prompt__size": 4}
            folders.append(write_run(folder, accuracy, **keys))
    rows = differences.table(grouped(folders)).rows
    # By seed: (-10, 0, 30), (-10, 0, 40), (-10, 0, 50) over the sizes 4, 8, 16.
    assert rows[-2][0] == "all settings"
    assert rows[-2][3].startswith("+10.00 (95 %")
    assert rows[-1][0] == "those with VP below zero-shot"
    assert rows[-1][3].startswith("+20.00 (95 %")


def test_summary_has_means_and_sample_deviations(folders):
    table = tables.summary(grouped(folders)).markdown()
    assert "| method | prompt size (px) | test accuracy (%) |" in table
    assert "| VP | 16 | 20.0 ± 10.0 | 25.0 ± 10.0 | 1,234 | 2 | 3 |" in table
    assert "| AdaViPro | 8 | 40.0 ± 0.0 | 45.0 ± 0.0 | 1,234 | 2 | 3 |" in table
    assert "| TP (zero-shot) | - | 50.0 | - | 1,234 | 2 | 1 |" in table
    assert "regions on" not in table  # as no run has any
    sizes = [row[1] for row in tables.summary(grouped(folders)).rows if row[0] == "VP"]
    assert sizes == ["8", "16"]  # as numbers


def test_differences_are_paired_by_seed(folders):
    # Differences 30, 40, 50: mean 40, sample deviation 10; AdaViPro - 50: 0, 20, 10.
    table = differences.table(grouped(folders)).markdown()
    assert "| 16 | -30.0 ± 10.0 | 10.0 ± 10.0 | 40.0 ± 10.0 | 3 of 3 |" in table
    # Means over the two sizes by seed: 15, 20, 25. Student's t for three seeds is 4.303.
    pooled = f"+20.00 (95 %: {20 - 4.303 * 5 / 3**0.5:+.2f} to {20 + 4.303 * 5 / 3**0.5:+.2f})"
    assert f"| all settings | - | - | {pooled} | 3 of 6 |" in table
    assert "below zero-shot" not in table  # VP is so in both
    assert differences.table(grouped(folders[:1])) is None
    first = [results.read(f) for f in folders if f.name in ("vp16s0", "vp16s2", "adavipro16s2")]
    by_seed = {r.result["seed"]: r for r in first[:2]}
    other = {7: first[0], 2: first[-1]}
    np.testing.assert_allclose(results.paired(by_seed, other), [by_seed[2].accuracy - 0.6])


def test_exchanged_masks_stand_beside_the_differences(tmp_path):
    made = [
        write_run(tmp_path / f"{method}{seed}", 0.6, seed=seed, method__name=method)
        for method in ("vp", "adavipro")
        for seed in (0, 1)
    ]
    for folder, exchanged in zip(made[2:], (0.5, 0.6), strict=True):
        result = json.loads((folder / "result.json").read_text())
        result |= {"controls": {"masks_exchanged": exchanged}, "regions_on": 0.25}
        (folder / "result.json").write_text(json.dumps(result))
    table = differences.table(grouped(made)).markdown()
    assert "| regions on (%) | own masks - others' (points) |" in table
    assert "| 0 of 2 | 25.0 ± 0.0 | 5.0 ± 7.1 |" in table


def test_datasets_stand_beside_each_other_only_when_asked(folders, tmp_path):
    other = write_run(tmp_path / "other", 0.25, method__name="vp", dataset="photos",
                      data__source="folder", data__dir="photos", prompt__size=8)  # fmt: skip
    with pytest.raises(UserError, match=r"one dataset, not digits, photos.*--by_dataset"):
        results.gather([*folders, other])
    groups = results.group(results.gather([*folders, other], by_dataset=True))
    (grid,) = protocols.grids(groups)
    table = grid.table()
    assert table.header == ["method", "digits", "photos", "mean"]
    assert ["VP, prompt size 8", "40.0 ± 0.0", "25.0", "32.5"] in table.rows


def test_runs_that_cannot_be_reported(folders, tmp_path, capsys):
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"open holds no finished run.*finish it"):
        results.gather([*folders, tmp_path / "open"])
    with pytest.raises(UserError, match=r"no folder .*gone"):
        results.find([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no run"):
        results.find([tmp_path / "empty"])
    twice = write_run(tmp_path / "twice", 0.9, method__name="tp")
    with pytest.raises(UserError, match=r"twice and .*tp have the same setting and seed"):
        results.group(results.gather([*folders, twice]))
    (folders[0] / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result\.json is damaged"):
        results.gather(folders)
    with pytest.raises(SystemExit) as stop:
        program.main([str(tmp_path)])
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "open holds no finished run" in message


def test_a_folder_of_runs_is_all_of_them(folders, tmp_path):
    (tmp_path / "table.md").write_text("")
    assert results.find([tmp_path]) == sorted(folders)
    assert results.find([folders[0], tmp_path])[0] == folders[0]


def test_printed_values_stand_beside_ours_with_what_differs(tmp_path):
    paper = {
        "method__name": "adavipro", "protocol": "paper", "data__source": "tfds",
        "data__name": "cifar10", "prompt__size": 30, "mask__region": 32,
    }  # fmt: skip
    same = write_run(tmp_path / "same", 0.951, dataset="cifar10", **paper)
    table, note = tables.against_published([results.read(same)])
    assert table.rows == [["AdaViPro, cifar10", "95.4", "table 1", "95.1", "nothing"]]
    assert "eurosat 96.8" in note
    assert "AdaViPro - VP at prompt size 30, mean over nine datasets: +2.2 (section 4)" in note
    assert "cifar10" not in note
    short = write_run(tmp_path / "short", 0.9, dataset="cifar10",
                      **(paper | {"protocol": "val", "optim__epochs": 5}))  # fmt: skip
    table, _ = tables.against_published([results.read(short)])
    assert table.rows[0][-1] == "5 epochs, not 1,000; protocol val, not paper"
    for keys in ({"mask__region": 16}, {"prompt__size": 60}, {"data__name": "svhn_cropped"}):
        folder = write_run(tmp_path / str(keys), 0.9, dataset="cifar10", **(paper | keys))
        table, note = tables.against_published([results.read(folder)])
        assert table is None
        assert ("cifar10 95.4" in note) == ("data__name" not in keys)  # of datasets that were run


def test_latex_escapes_and_has_a_cell_per_column():
    table = tables.Table("50 % & more", ["a_b", "c"], [["x < y", "1 ± 2"]])
    latex = table.latex()
    assert r"\caption{50 \% \& more}" in latex
    assert r"a\_b & c \\" in latex
    assert r"x \textless{} y & 1 $\pm$ 2 \\" in latex
    assert r"\begin{tabular}{lr}" in latex


def test_the_lines_of_a_chart_are_the_means(folders):
    figure = figures.over(grouped(folders), "prompt.size")
    [axes] = figure.axes
    drawn, places = {}, set()
    for container in axes.containers:
        x, y = container.lines[0].get_data()
        x = x.astype(float)
        np.testing.assert_allclose(x, [8, 16], atol=0.1)
        places |= set(x)
        points = zip(x.round().tolist(), np.round(y, 6).tolist(), strict=True)
        drawn[container.get_label()] = list(points)
    assert len(places) == 4  # beside each other: no bar hides another
    assert drawn == {"AdaViPro": [(8, 40), (16, 60)], "VP": [(8, 40), (16, 20)]}
    assert axes.get_xlabel() == "prompt size (pixels)"
    assert figures.over(grouped(folders), "mask.region") is None
    assert figures.over(grouped(folders[:1]), "prompt.size") is None


def test_curves_are_means_over_seeds(folders):
    figure = figures.curves(grouped(folders))
    loss, val = figure.axes
    assert [a.get_ylabel() for a in (loss, val)] == ["training loss (nats)", "val accuracy (%)"]
    lines = {line.get_label(): line.get_ydata() for line in val.lines}
    np.testing.assert_allclose(lines["VP, prompt size 16"], [20, 20, 20])
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1, 1 / 2, 1 / 3])


def test_a_faint_prompt_is_shown_magnified():
    drawn = np.zeros((8, 8, 3), np.float32)
    drawn[:2] = np.random.default_rng(0).choice([-0.3, 0.3], (2, 8, 3))
    shown, factor = gallery.magnified(drawn)
    assert factor == 3
    np.testing.assert_array_equal(shown, 3 * drawn)
    for visible in (4 * drawn, 0 * drawn):
        assert gallery.magnified(visible)[1] == 1


def test_settings_of_one_method_have_a_look_of_their_own():
    """As many as one panel of curves shows for two methods, and for one."""
    for methods in (("vp", "adavipro"), ("vp",)):
        each = 12 // len(methods)
        settings = [(("method.name", m), ("seed", i)) for m in methods for i in range(each)]
        looks = figures.styles(settings).values()
        assert len({(s["color"], s["linestyle"]) for s in looks}) == 12


def test_the_report_of_a_folder_is_whole(folders, tmp_path, capsys):
    program.main([str(tmp_path), "--out", str(tmp_path / "out"), "--title", "A & B"])
    out = tmp_path / "out"
    names = {p.name for p in out.iterdir()}
    assert names == {
        "report.html", "table.md", "table.tex", "runs.csv", "accuracy_over_size.png",
        "accuracy_over_size.svg", "parameters.png", "parameters.svg", "curves.png", "curves.svg",
    }  # fmt: skip
    said = capsys.readouterr().out
    assert all(f"wrote {out / name}" in said for name in names)
    lines = list(csv.DictReader(io.StringIO((out / "runs.csv").read_text())))
    assert len(lines) == 13
    assert {(x["method"], x["config.prompt.size"]) for x in lines} == {
        ("tp", ""), ("vp", "8"), ("vp", "16"), ("adavipro", "8"), ("adavipro", "16")
    }  # fmt: skip
    page = (out / "report.html").read_text()
    assert "<h1>A &amp; B</h1>" in page
    assert not re.search(r'src="(?!data:)', page)  # nothing outside the page
    links = re.findall(r'href="([^"]*)"', page)
    assert len(links) == 13
    assert all((out / link / "result.json").is_file() for link in links)
    assert page.count("data:image/png;base64,") == 3
    for svg in out.glob("*.svg"):
        ET.parse(svg)
    for png in out.glob("*.png"):
        with Image.open(png) as image:
            assert image.width > 600
    markdown = (out / "table.md").read_text()
    assert "13 runs of mini-clip-rn. digits: 10 train, 0 val and 1,000 test images" in markdown
    assert "zero-shot accuracy on test 50.0 %" in markdown


def test_runs_that_trained_nothing_are_said_to_be(tmp_path):
    from vprompt_jax.report.write import _facts

    folder = write_run(tmp_path / "a", 0.5, method__name="vp")
    assert "trained nothing" not in _facts([results.read(folder)])
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"steps": 0}))
    assert "1 of the runs trained nothing (0 steps)" in _facts([results.read(folder)])


def test_towers_without_texts_have_no_zero_shot(tmp_path):
    for size, value in ((4, 0.1), (8, 0.2)):
        write_run(tmp_path / str(size), value, zero_shot=None, method__name="vp", prompt__size=size)
    groups = grouped(results.find([tmp_path]))
    [axes] = figures.over(groups, "prompt.size").axes
    assert axes.get_legend_handles_labels()[1] == ["VP"]
    assert differences.table(groups) is None

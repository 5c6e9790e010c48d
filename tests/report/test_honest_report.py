"""A report shows what was measured: no magnified noise, no numbers of other data."""

import dataclasses
import json

import numpy as np
import pytest

from vprompt_jax.clip.variants import VIT_B_32
from vprompt_jax.config import default_config, resolve
from vprompt_jax.process.errors import UserError
from vprompt_jax.report import differences, figures, gallery, protocols, results, tables, write


def finished(folder, accuracy=0.5, *, seed=0, dataset="digits", facts=None, **keys):
    """A finished run's files, with more `facts` in its result."""
    c = default_config()
    c.seed = seed
    c.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
    config = resolve(c)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.as_json())
    lines = [{"step": s, "train/loss": 1 / s, "val/accuracy": accuracy} for s in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    result = {
        "method": config.method.name, "seed": seed, "dataset": dataset, "steps": 3,
        "protocol": config.protocol, "test_accuracy": accuracy, "test_accuracy_best_val": None,
        "val_accuracy_best": accuracy, "zero_shot_accuracy": 0.5, "regions_on": None,
        "trainable_parameters": 1234, "seconds": 2.0, "images_per_second": None,
        "split_sizes": {"train": 10, "val": 0, "test": 1000},
        "clip": dataclasses.asdict(VIT_B_32), "versions": {"jax": "1.2.3"},
    } | (facts or {})  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def grouped(folders):
    return results.group(results.gather(folders))


def test_rounding_noise_is_not_magnified():
    noise = np.zeros((8, 8, 3), np.float32)
    noise[:2] = np.random.default_rng(0).choice([-4e-10, 4e-10], (2, 8, 3))
    shown, factor = gallery.magnified(noise)
    assert factor == 1
    np.testing.assert_array_equal(shown, noise)
    assert gallery._heading("VP", noise, factor) == "VP\nprompt, nearly zero"
    assert gallery._heading("VP", 0 * noise, 1) == "VP\nprompt, nearly zero"
    faint = noise * np.float32(0.01 / 4e-10)
    assert gallery.magnified(faint)[1] in (99, 100)
    assert gallery._heading("VP", faint, 100) == "VP\nprompt x 100"
    assert gallery._heading("VP", 100 * faint, 1) == "VP\nprompt"


def looks_in(figure):
    """Colours and markers by label, of the lines with a label."""
    found = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            line = handle.lines[0] if hasattr(handle, "lines") else handle
            found.setdefault(label.split(",")[0], set()).add((line.get_color(), line.get_marker()))
    return found


def test_a_method_looks_the_same_in_every_figure(tmp_path):
    """TP and the linear probe have no prompt size: figures show different sets of methods."""
    folders = [finished(tmp_path / "linear", method__name="linear")]
    folders += [finished(tmp_path / "tp", method__name="tp")]
    for method in ("ap", "adavipro", "vp"):
        folders.append(finished(tmp_path / method, method__name=method))
    for size in (2, 6):
        folders.append(finished(tmp_path / f"vp{size}", method__name="vp", prompt__size=size))
    groups = grouped(folders)
    drawn = [
        figures.over(groups, "prompt.size"),
        figures.parameters(groups),
        figures.curves(groups),
    ]
    by_figure = [looks_in(figure) for figure in drawn]
    for method in ("VP", "AdaViPro", "AP", "linear probe"):
        colours = {colour for found in by_figure for colour, _ in found.get(method, ())}
        assert len(colours) == 1, method
        markers = {m for found in by_figure for _, m in found.get(method, ())} - {"none", "None"}
        assert len(markers) <= 1, method
    assert figures.methods_of(groups) == ["tp", "vp", "adavipro", "ap", "linear"]
    all_colours = [next(iter(by_figure[1][m]))[0] for m in ("VP", "AdaViPro", "AP", "linear probe")]
    assert len(set(all_colours)) == 4


PAPER = {"method__name": "adavipro", "protocol": "paper", "prompt__size": 30, "mask__region": 32}


def test_the_papers_numbers_stand_beside_its_own_datasets_alone(tmp_path):
    cifar = {"data__source": "tfds", "data__name": "cifar10"}
    same = finished(tmp_path / "same", dataset="cifar10", **PAPER, **cifar)
    table, note = tables.against_published([results.read(same)])
    assert [row[0] for row in table.rows] == ["AdaViPro, cifar10"]
    assert "eurosat" in note
    for number, keys in enumerate((
        {"data__source": "folder", "data__dir": "cifar10"},
        {"data__source": "folder", "data__dir": "photos", "data__name": "cifar10"},
        {},
    )):  # fmt: skip
        other = finished(tmp_path / str(number), dataset="cifar10", **PAPER, **keys)
        assert tables.against_published([results.read(other)]) == (None, "")
    few = finished(tmp_path / "few", dataset="cifar10", data__few_shot=4, **PAPER, **cifar)
    assert tables.against_published([results.read(few)])[0] is None
    for number, keys in enumerate((
        {"data__split_file": "split.json"}, {"data__classes": "base"}, {"data__split": "vtab"},
    )):  # fmt: skip
        dealt = finished(tmp_path / f"dealt{number}", dataset="cifar10", **keys, **PAPER, **cifar)
        assert tables.against_published([results.read(dealt)])[0] is None
    both = finished(tmp_path / "both", dataset="cifar10", ap__positions=(1,), **PAPER, **cifar)
    assert tables.against_published([results.read(both)])[0] is None  # AP is not in the paper


def test_combinations_are_methods_of_their_own(tmp_path):
    more = {"ap__positions": (1,), "head__kind": "linear"}
    folders = [
        finished(tmp_path / "a", 0.7, method__name="adavipro", **more),
        finished(tmp_path / "b", 0.6, method__name="vp", **more),
        finished(tmp_path / "c", 0.5, method__name="adavipro"),
    ]
    table = tables.summary(grouped(folders))
    names = {row[0] for row in table.rows}
    assert names == {"AdaViPro", "AdaViPro + AP + linear head", "VP + AP + linear head"}
    paired = differences.table(grouped(folders)).markdown()
    assert "AdaViPro + AP + linear head - VP + AP + linear head (points)" in paired
    assert "| 10.0 |" in paired


def test_runs_whose_data_changed_in_between_are_not_put_together(tmp_path):
    """Another method, or another seed, of the same config.data."""
    kept = {"dataset_fingerprint": "a", "dataset_contents": "c"}
    first = finished(tmp_path / "first", facts=kept, method__name="vp")
    for number, (fact, what) in enumerate((
        ("dataset_fingerprint", "other names, labels or splits"),
        ("dataset_contents", "other images under the same names"),
    )):  # fmt: skip
        for method, seed in (("vp", 1), ("adavipro", 0)):
            folder = tmp_path / f"{number}{method}"
            other = finished(folder, facts=kept | {fact: "b"}, seed=seed, method__name=method)
            for by_dataset in (False, True):
                with pytest.raises(UserError, match=f"{method} and .*first are both.*{what}"):
                    results.gather([first, other], by_dataset=by_dataset)
    alike = finished(tmp_path / "alike", facts=kept, seed=2, method__name="vp")
    old = finished(tmp_path / "old", method__name="adavipro")  # does not say what its data were
    few = finished(tmp_path / "few", facts={"dataset_fingerprint": "b"}, data__few_shot=4)
    assert len(results.gather([first, alike, old, few])) == 4
    with pytest.raises(UserError, match="both on digits"):
        results.gather([old, first, other])


def dealt(name, sha256):
    return {"split_file": {"name": name, "sha256": sha256}}


def test_other_splits_are_other_datasets(tmp_path):
    """By the content of the split file, wherever it lay; cut splits are marked."""
    keys = {"method__name": "vp", "data__source": "folder", "data__dir": "x", "dataset": "dtd"}
    cut = {"splits_cut": ["val", "test"], "split_file": None}
    folders = [
        finished(tmp_path / "cut", 0.1, facts=cut, **keys),
        finished(tmp_path / "a", 0.2, facts=dealt("s.json", "1" * 64),
                 data__split_file="/here/s.json", **keys),
        finished(tmp_path / "b", 0.4, facts=dealt("s.json", "1" * 64), seed=1,
                 data__split_file="/there/s.json", **keys),
        finished(tmp_path / "c", 0.7, facts=dealt("s.json", "2" * 64),
                 data__split_file="/here/s.json", **keys),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"one dataset, not dtd \(s\.json 1{8}\), dtd \(s\.json 2"):
        results.gather(folders)
    assert len(results.group(results.gather(folders[1:3]))) == 1
    grid, *_ = protocols.grids(results.group(results.gather(folders, by_dataset=True)))
    named = ["dtd (s.json 11111111)", "dtd (s.json 22222222)", "dtd (test cut by hash)"]
    assert grid.table().header == ["method", *named, "mean"]
    assert grid.table().rows == [["VP", "30.0 ± 10.0", "70.0", "10.0", "36.7"]]
    write(folders[:1], tmp_path / "out")
    assert "0 (cut by hash) val and 1,000 (cut by hash) test" in (
        tmp_path / "out" / "table.md"
    ).read_text().replace("\\", "")


def test_no_cell_holds_two_settings(tmp_path):
    """Few shots, seeds of a cut: the data may differ under one name."""
    folders = [
        finished(tmp_path / f"{method}{shots}", 0.1 * shots, method__name=method,
                 data__few_shot=shots)
        for method in ("vp", "linear") for shots in (1, 4)
    ]  # fmt: skip
    folders += [finished(tmp_path / "cut", 0.6, method__name="vp", data__few_shot=4,
                         data__split_seed=1)]  # fmt: skip
    folders += [finished(tmp_path / "other", 0.8, method__name="vp", dataset="other",
                         data__source="folder", data__dir="x")]  # fmt: skip
    grid, *_ = protocols.grids(results.group(results.gather(folders, by_dataset=True)))
    cells = {(row[0], *row[1:3]) for row in grid.table().rows}
    assert {(name.split(",")[0], *numbers) for name, *numbers in cells} >= {
        ("VP", "10.0", "-"), ("VP", "40.0", "-"), ("VP", "60.0", "-"), ("VP", "-", "80.0"),
    }  # fmt: skip
    assert len(cells) == 6
    same = [
        finished(tmp_path / place / "run", method__name="vp", dataset="mine",
                 data__source="folder", data__dir=f"/{place}/photos")
        for place in ("here", "there")
    ]  # fmt: skip
    with pytest.raises(UserError, match="two datasets named mine would share a cell"):
        protocols.grids(results.group(results.gather(same)))


def test_towers_keep_their_names_and_lose_their_folders(tmp_path):
    towers = ("ViT-B/32", "/home/someone/mine/clip.safetensors")
    folders = [
        finished(tmp_path / str(i), method__name="vp", model__checkpoint=tower)
        for i, tower in enumerate(towers)
    ]
    for path in write(folders, tmp_path / "out"):
        if path.suffix != ".png":
            assert "/home/someone" not in path.read_text(), path
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert "2 runs of ViT-B/32, clip.safetensors." in markdown
    assert "| VP | ViT-B/32 |" in markdown


def test_a_report_replaces_reports_alone(tmp_path):
    folders = [finished(tmp_path / "vp", method__name="vp")]
    out = tmp_path / "out"
    out.mkdir()
    (out / "curves.png").write_text("mine")
    with pytest.raises(UserError, match=r"holds curves\.png, which no report wrote: .*--out"):
        write(folders, out)
    assert (out / "curves.png").read_text() == "mine"
    (out / "curves.png").unlink()
    assert set(write(folders, out)) == set(write(folders, out))  # again: its own files

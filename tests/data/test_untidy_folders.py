"""Folders, manifests and tables as users have them: named otherwise, with copies and leftovers."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vprompt_jax import config as config_lib
from vprompt_jax import data
from vprompt_jax.data import card, copies, folder, huggingface, images, listing, manifest, splits
from vprompt_jax.data.dataset import Dataset, Split, split_of_arrays
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable


def picture(number):
    """No two alike."""
    pixels = np.zeros((6, 6, 3), np.uint8)
    pixels[0, 0] = number % 256, number // 256, 9
    pixels[3:] = 60
    return Image.fromarray(pixels)


class Painter:
    """Writes new pictures below a folder."""

    def __init__(self, root):
        self.root, self.count = root, 0

    def __call__(self, place, count=4, suffix=".png"):
        (self.root / place).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            self.count += 1
            picture(self.count).save(self.root / place / f"{i:02d}{suffix}")


@pytest.fixture
def paint(tmp_path):
    return Painter(tmp_path / "shapes")


def configured(root, source, protocol="paper", **keys):
    config = config_lib.default_config()
    config.data.source, config.data.dir, config.protocol = source, str(root), protocol
    config.data.update(keys)
    return config_lib.resolve(config)


def load(root, source="folder", protocol="paper", **keys):
    config = configured(root, source, protocol, **keys)
    return data.load(config.data, config.protocol, 8)


def prepare(dataset, **keys):
    config = configured("", "given", name=dataset.name, **keys)
    return data.prepare(dataset, config.data, config.protocol)


def sizes(dataset):
    return {name: len(split) for name, split in dataset.splits()}


@pytest.mark.parametrize(
    "name",
    [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".AppleDouble", "$RECYCLE.BIN", ".git", "@EADIR"],
)
@pytest.mark.parametrize("place", ["", "disc"])
def test_hidden_folders_are_ignored_everywhere(paint, name, place):
    for label in ("disc", "tile"):
        paint(label, 5)
    paint(os.path.join(place, name, "deeper"), 3)
    dataset = load(paint.root)
    assert dataset.class_names == ("disc", "tile")
    assert sizes(dataset) == {"train": 8, "test": 2}
    assert not dataset.skipped


@pytest.mark.parametrize("name", ["._00.png", "Thumbs.db", "desktop.ini", ".DS_Store", "Icon\r"])
def test_hidden_files_are_ignored(paint, name):
    for label in ("disc", "tile"):
        paint(label, 5)
        (paint.root / label / name).write_bytes(b"\0\5\x16\7")
    assert sizes(load(paint.root)) == {"train": 8, "test": 2}


@pytest.mark.parametrize(
    "names",
    [("Train", "Valid", "Test"), ("training", "validation", "testing"), ("TRAIN", "dev", "eval"),
     ("train", "val", "Evaluation")],
)  # fmt: skip
def test_usual_names_of_splits_are_known_in_any_case(paint, names):
    for name, count in zip(names, (4, 3, 2), strict=True):
        for label in ("disc", "tile"):
            paint(f"{name}/{label}", count)
    dataset = folder.load(paint.root, 8, 2)
    assert sizes(dataset) == {"train": 8, "val": 6, "test": 4}
    assert dataset.class_names == ("disc", "tile")


def test_two_folders_that_mean_one_split_are_refused(paint):
    for name in ("train", "valid", "validation"):
        for label in ("disc", "tile"):
            paint(f"{name}/{label}")
    with pytest.raises(UserError, match="'valid' and 'validation', which mean one, val"):
        folder.load(paint.root, 8, 2)


def test_a_class_may_have_a_split_s_name(paint):
    for label in ("bus", "train", "tram"):
        paint(label)
    assert folder.load(paint.root, 8, 2).class_names == ("bus", "train", "tram")
    assert len(folder.load(paint.root, 8, 2).train) == 12


def test_splits_without_train_and_splits_without_classes_are_refused(paint):
    for label in ("disc", "tile"):
        paint(f"test/{label}")
    with pytest.raises(UserError, match=r"no folder .*train beside test"):
        folder.load(paint.root, 8, 2)
    paint("train")
    with pytest.raises(UserError, match="train holds no class folders"):
        folder.load(paint.root, 8, 2)


@pytest.mark.parametrize("inner", ["shapes-main", "a/b"])
@pytest.mark.parametrize("with_splits", [False, True])
def test_an_extra_level_is_entered_and_said(paint, inner, with_splits, capsys):
    for label in ("disc", "tile"):
        paint(f"{inner}/train/{label}" if with_splits else f"{inner}/{label}", 5)
    paint("__MACOSX/shapes-main/disc", 5)
    (paint.root / "README.md").write_text("# Shapes")
    dataset = load(paint.root)
    assert dataset.class_names == ("disc", "tile")
    assert sizes(dataset) == {"train": 8, "test": 2}
    assert dataset.train.keys[0].startswith("train/disc" if with_splits else "disc")
    assert f"note: {paint.root} holds one folder" in capsys.readouterr().err


def test_one_class_is_refused(paint):
    paint("disc")
    with pytest.raises(UserError, match="shapes has one class, 'disc'"):
        load(paint.root)
    paint("train/disc")
    with pytest.raises(UserError, match="one class"):
        load(paint.root / "train")


def leftovers(paint):
    """Ways in which pictures belong to no class; returns what a message has to name."""
    for name in ("train", "test"):
        for label in ("disc", "tile"):
            paint(f"{name}/{label}", 3)
    paint(".", 1)
    paint("train", 2, ".jpg")
    paint("unsorted/more", 2)
    (paint.root / "test" / "holiday.HEIC").write_bytes(b"heic")
    (paint.root / "train" / "disc" / "gone.png").symlink_to(paint.root / "nowhere.png")
    (paint.root / "train" / "tile" / "self.png").symlink_to(paint.root / "train/tile/self.png")
    (paint.root / "train" / "tile" / "up").symlink_to(paint.root / "train" / "tile")
    (paint.root / "train" / "tile" / "a.heic").write_bytes(b"heic")
    (paint.root / "notes.txt").write_text("of no interest")
    return [
        "shapes/00.png (in no class's folder)", "train/00.jpg", "train/01.jpg",
        "unsorted (a folder of 2 images", "test/holiday.HEIC", "gone.png (a link to nothing)",
        "self.png (a link to nothing)", "up (a link to a folder that it is in)",
        "a.heic (.heic cannot be read here: convert it",
    ]  # fmt: skip


def test_whatever_is_left_over_stops_the_run_or_is_listed(paint, capsys):
    expected = leftovers(paint)
    with pytest.raises(UserError, match=f"{len(expected)} files are not readable") as error:
        load(paint.root)
    dataset = load(paint.root, on_bad_image="skip")
    assert sizes(dataset) == {"train": 6, "test": 6}
    shown = capsys.readouterr().err
    assert len(dataset.skipped) == len(expected)
    for part in expected:
        assert part in str(error.value)
        assert [line for line in dataset.skipped if part in line]
        assert part in shown
    assert "notes.txt" not in str(error.value)


def test_linked_folders_are_followed_at_all_depths(paint):
    for label in ("disc", "tile"):
        paint(label, 3)
    paint("../elsewhere/year", 4)
    (paint.root / "disc" / "more").symlink_to(paint.root / "../elsewhere")
    (paint.root / "cone").symlink_to(paint.root / "../elsewhere/year")
    dataset = folder.load(paint.root, 8, 2)
    assert np.bincount(dataset.train.labels).tolist() == [4, 7, 3]


@pytest.mark.parametrize(
    "names", [("hot-dog", "hot_dog"), ("cat", "Cat"), ("cat", "cat "), ("a  b", "a_b"),
              ("caf\u00e9", "cafe\u0301")]
)  # fmt: skip
def test_names_that_make_one_text_are_refused(paint, names):
    for label in (*names, "soup"):
        paint(label, 2)
    with pytest.raises(UserError, match="have the same name") as error:
        load(paint.root)
    for name in names:
        assert repr(name) in str(error.value)
    assert "soup" not in str(error.value)


def test_names_that_are_no_text_are_refused_or_shown_with_escapes(paint):
    for label in ("disc", "tile"):
        paint(label, 5)
    raw = os.fsencode(paint.root / "disc") + b"/b\xfcro \x1b[31m.png"
    os.rename(paint.root / "disc" / "00.png", raw)
    dataset = load(paint.root)
    assert sizes(dataset) == {"train": 8, "test": 2}
    assert len(dataset.fingerprint) == 16
    with open(raw, "wb") as file:
        file.write(b"no picture")
    with pytest.raises(UserError, match=r"disc/b\\xfcro \\x1b\[31m\.png \(empty, or in no format"):
        load(paint.root)
    os.mkdir(os.fsencode(paint.root) + b"/\xff")
    with pytest.raises(UserError, match=r"'\\\\xff' is not: rename the folder"):
        load(paint.root)


def test_printable_text_stays_and_the_rest_becomes_visible():
    assert printable("Größe 東京.png") == "Größe 東京.png"
    assert printable("a\nb\u202e\udc80") == "a\\nb\\u202e\\x80"


@pytest.mark.parametrize("link", [False, True])
def test_one_content_in_two_splits_is_refused_or_left_out_of_train(paint, link):
    for name in ("train", "test"):
        for label in ("disc", "tile"):
            paint(f"{name}/{label}", 4)
    source, copy = paint.root / "test/disc/02.png", paint.root / "train/disc/copy.png"
    copy.symlink_to(source) if link else copy.write_bytes(source.read_bytes())
    with pytest.raises(UserError, match=r"1 images are in two splits(.|\n)*on_bad_image=skip") as e:
        load(paint.root)
    assert f"{copy} is {source}" in str(e.value)
    dataset = load(paint.root, on_bad_image="skip")
    assert sizes(dataset) == {"train": 8, "test": 8}
    assert len(dataset.skipped) == 1
    assert str(copy) in dataset.skipped[0]


def test_copies_are_found_without_reading_whole_files(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    base = rng.bytes(50_000)
    contents = [base, base, base[:-1] + b"?", rng.bytes(50_000), base[:100], b"", b""]
    contents[2] = bytes([base[0] ^ 1]) + base[1:]  # equal in the middle
    files = []
    for i, content in enumerate(contents):
        files.append(tmp_path / str(i))
        files[-1].write_bytes(content)
    files.append(tmp_path / "gone")
    whole = []
    monkeypatch.setattr(
        copies.hashlib, "file_digest",
        lambda f, kind, real=copies.hashlib.file_digest: whole.append(f.name) or real(f, kind),
    )  # fmt: skip
    names = copies.file_contents(files, 2)
    assert names[0] == names[1]
    assert names[5] == names[6]
    assert len(set(names)) == 6
    assert {os.path.basename(name) for name in whole} == {"0", "1", "2", "5", "6"}


def test_a_cut_takes_all_copies_of_an_image_or_none(paint):
    for label in ("disc", "tile"):
        paint(label, 12)
        for i in range(0, 12, 2):  # each second one twice
            content = (paint.root / label / f"{i:02d}.png").read_bytes()
            (paint.root / label / f"again{i}.png").write_bytes(content)
    shared = (paint.root / "disc" / "01.png").read_bytes()
    (paint.root / "tile" / "shared.png").write_bytes(shared)  # of two classes
    for seed in range(8):
        dataset = load(paint.root, test_fraction=0.4, split_seed=seed)
        assert not set(dataset.train.content_keys) & set(dataset.test.content_keys)
        # 40 % of each class, less a copy that did not fit any more.
        assert all(7 <= n <= 8 for n in np.bincount(dataset.test.labels))


def test_copies_of_arrays_in_two_splits_are_refused():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(12) % 2
    given = data.from_arrays(pixels[:8], labels[:8], ["a", "b"], test=(pixels[7:], labels[7:]))
    with pytest.raises(UserError, match="train image 7 is test image 0"):
        prepare(given)
    assert sizes(prepare(given, on_bad_image="skip")) == {"train": 7, "test": 5}


def test_a_rare_class_that_is_not_tested_is_named(paint, capsys):
    for label, count in (("disc", 5), ("tile", 5), ("cone", 1)):
        paint(label, count)
    dataset = load(paint.root)
    assert sizes(dataset) == {"train": 9, "test": 2}
    assert "the test split has no image of cone" in capsys.readouterr().err
    assert "cone" in dataset.notes[0]


def test_a_test_split_may_lack_a_class_and_then_it_is_named(paint, capsys):
    for place in ("train/disc", "train/tile", "train/cone", "test/disc", "test/tile"):
        paint(place)
    (paint.root / "test" / "cone").mkdir()
    assert sizes(load(paint.root)) == {"train": 12, "test": 8}
    assert "the test split has no image of cone" in capsys.readouterr().err


def test_a_split_of_nothing_is_refused_not_cut_anew(paint, tmp_path):
    for label in ("disc", "tile"):
        paint(f"train/{label}")
        (paint.root / "test" / label).mkdir(parents=True)
    with pytest.raises(UserError, match="test: no images of disc, tile"):
        load(paint.root)
    save_parquet(tmp_path / "p", {"train": rows_of([0, 1]), "test": rows_of([0])[:0]})
    with pytest.raises(UserError, match="the test split has no rows"):
        huggingface.load(tmp_path / "p", "", 8, 2)
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(UserError, match="the test split has no images"):
        data.from_arrays(pixels, np.arange(2), ["a", "b"], test=(pixels[:0], np.arange(0)))


def test_a_name_of_dollar_signs_is_drawn_as_it_is(paint, tmp_path):
    for label in ("a$b_{$", "tile"):
        paint(label, 5)
    card.save_grid(load(paint.root), tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000


def test_one_image_per_class_says_what_to_do(paint):
    for label in ("disc", "tile"):
        paint(label, 1)
    with pytest.raises(UserError, match=r"test split holds no images.*add images, or a test split"):
        load(paint.root)
    for label in ("disc", "tile"):
        paint(f"split/train/{label}", 1)
        paint(f"split/test/{label}", 1)
    with pytest.raises(UserError, match=r"val split holds no images.*protocol=paper"):
        load(paint.root / "split", protocol="val")
    assert sizes(load(paint.root / "split")) == {"train": 2, "test": 2}


def write_manifest(paint, rows, header="path,label", bom="", name="m.csv"):
    for label in ("disc", "tile"):
        paint(f"img/{label}", 5)
    (paint.root / name).write_text(bom + "\n".join([header, *rows]) + "\n", encoding="utf-8")
    return paint.root / name


def listed(classes=("disc", "tile"), more=""):
    return [f"img/{d}/{i:02d}.png,{c}{more}" for d, c in zip(("disc", "tile"), classes, strict=True)
            for i in range(5)]  # fmt: skip


def test_a_manifest_with_a_byte_order_mark(paint):
    dataset = load(write_manifest(paint, listed(), bom="\ufeff"), "manifest")
    assert dataset.class_names == ("disc", "tile")
    assert sizes(dataset) == {"train": 8, "test": 2}


def test_white_space_at_the_ends_of_names_is_dropped_and_said(paint, capsys):
    rows = listed()
    rows[0] += " "
    dataset = load(write_manifest(paint, rows, header=" path ,label "), "manifest")
    assert dataset.class_names == ("disc", "tile")
    assert "class name 'disc ' (line 2 is the first) was dropped" in capsys.readouterr().err


def test_names_of_a_manifest_that_differ_in_case_are_refused(paint):
    rows = [*listed(("disc", "Disc"))]
    with pytest.raises(UserError, match="'Disc' = 'disc'"):
        load(write_manifest(paint, rows), "manifest")


@pytest.mark.parametrize("other", ["./img/disc/00.png", "img/../img/disc/00.png", "link.png",
                                   "linked/00.png"])  # fmt: skip
def test_one_file_by_two_paths_is_listed_twice(paint, other):
    path = write_manifest(paint, [*listed(more=",train"), f"{other},disc,test"], "path,label,split")
    (paint.root / "link.png").symlink_to(paint.root / "img/disc/00.png")
    (paint.root / "linked").symlink_to(paint.root / "img/disc")
    with pytest.raises(UserError, match="1 images are listed twice") as error:
        load(path, "manifest")
    assert f"{other} (test)" in str(error.value)
    assert "img/disc/00.png (train)" in str(error.value)


def test_splits_of_a_manifest_by_their_usual_names(paint):
    rows = [row + split for row, split in zip(
        listed(), [",Train"] * 3 + [",DEV"] + [", testing"] + [",train"] * 3 + [",dev", ",testing"],
        strict=True)]  # fmt: skip
    dataset = manifest.load(write_manifest(paint, rows, "path,label,split"), "", 8, 2)
    assert sizes(dataset) == {"train": 6, "val": 2, "test": 2}
    rows[0] = rows[0].replace("Train", "valid")
    with pytest.raises(UserError, match="'dev' and 'valid', which mean one, val"):
        manifest.load(write_manifest(paint, rows, "path,label,split"), "", 8, 2)


def test_a_manifest_that_is_no_csv_is_named(paint):
    path = write_manifest(paint, ["x" * 200_000])
    with pytest.raises(UserError, match="cannot read the manifest"):
        manifest.load(path, "", 8, 2)
    path.write_bytes(b"path,label\nb\xfcro.png,x\n")
    with pytest.raises(UserError, match="cannot read the manifest"):
        manifest.load(path, "", 8, 2)


def test_a_split_file_that_names_an_image_twice_is_refused(tmp_path):
    pixels = np.zeros((6, 2, 2, 3), np.uint8)
    whole = Split(np.arange(6) % 2, lambda i: pixels[i], [f"{i}.png" for i in range(6)])
    source = Dataset("d", ("a", "b"), whole, None, whole.take(np.array([], int)))
    rows = {"train": [["img/0.png", 0, "a"], ["img/1.png", 1, "b"]], "val": [],
            "test": [["other/0.png", 0, "a"], ["img/3.png", 1, "b"]]}  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(rows))
    listed = splits.read_coop_file(tmp_path / "s.json")
    with pytest.raises(UserError, match="1 images are listed twice") as error:
        splits.arranged(source, listed)
    assert "img/0.png (train), other/0.png (test)" in str(error.value)


def test_class_names_of_bytes_are_text(tmp_path):
    pixels = np.arange(96, dtype=np.uint8).reshape(8, 2, 2, 3)
    np.savez(tmp_path / "a.npz", class_names=np.array(["caf\u00e9".encode(), b"disc"]),
             train_images=pixels, train_labels=np.arange(8) % 2)  # fmt: skip
    assert load(tmp_path / "a.npz", "arrays").class_names == ("café", "disc")
    with pytest.raises(UserError, match="is not UTF-8"):
        data.from_arrays(pixels, np.arange(8) % 2, [b"\xff", b"b"])


def rows_of(labels, start=0, names=("disc", "tile"), image="bytes"):
    """A table of new pictures; labels are numbers of `names`, or text if there are none."""
    cells = []
    for i in range(len(labels)):
        sink = pa.BufferOutputStream()
        picture(start + i + 1).save(sink, "PNG")
        cells.append({"bytes": sink.getvalue().to_pybytes(), "path": None})
    table = pa.table({"image": cells, "label": labels})
    if names is None:
        return table
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
    stored = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": stored})


def save_parquet(root, tables):
    for name, table in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, root / f"{name}.parquet")
    return root


def test_labels_agree_by_name_where_splits_and_files_number_them_otherwise(tmp_path):
    save_parquet(tmp_path, {
        "train-00000-of-00002": rows_of([0, 0, 1]),
        "train-00001-of-00002": rows_of([0, 0, 1], 100, ("tile", "disc")),
        "test-00000-of-00001": rows_of([0, 1, 1], 200, ("tile", "disc")),
    })  # fmt: skip
    dataset = huggingface.load(tmp_path, "", 8, 2)
    assert dataset.class_names == ("disc", "tile")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 1, 0]
    assert dataset.test.labels.tolist() == [1, 0, 0]
    save_parquet(tmp_path, {"test-00000-of-00001": rows_of([0, 1], 200, ("tile", "cone"))})
    with pytest.raises(UserError, match="the test split has classes that train lacks: cone"):
        huggingface.load(tmp_path, "", 8, 2)


@pytest.mark.parametrize(
    "train, test",
    [
        ("train-00000-of-00001", "test-00000-of-00001"),
        ("data/train-00000-of-00001-a0b1", "data/test-00000-of-00001-c2d3"),
        ("plain_text/train-00000-of-00001", "plain_text/test-00000-of-00001"),
        ("default/train/0000", "default/test/0000"),
        ("Training", "evaluation"),
        ("shapes-train", "shapes-test"),
    ],
)
def test_tables_are_found_wherever_they_are(tmp_path, train, test):
    save_parquet(tmp_path, {train: rows_of([0, 0, 1]), test: rows_of([0, 1], 50)})
    (tmp_path / ".cache").mkdir()
    pq.write_table(rows_of([0], 70), tmp_path / ".cache" / "train-old.parquet")
    assert sizes(huggingface.load(tmp_path, "", 8, 2)) == {"train": 3, "test": 2}


def test_several_configurations_of_a_dataset_are_named(tmp_path):
    save_parquet(tmp_path, {"a/train-0": rows_of([0, 1]), "b/train-0": rows_of([0, 1], 9)})
    with pytest.raises(
        UserError, match=r"several datasets: set config\.data\.dir to one of .*/a, "
    ):
        huggingface.load(tmp_path, "", 8, 2)


def test_splits_of_usual_and_unusual_names(tmp_path):
    save_parquet(tmp_path, {"train": rows_of([0, 1, 1]), "dev": rows_of([0, 1], 50)})
    assert sizes(huggingface.load(tmp_path, "", 8, 2)) == {"train": 3, "val": 2, "test": 0}
    save_parquet(tmp_path, {"extra": rows_of([0, 1], 70)})
    with pytest.raises(UserError, match=r"split 'extra' \(2 rows; a split's name is one of train"):
        huggingface.load(tmp_path, "", 8, 2)
    skipped = huggingface.load(tmp_path, "", 8, 2, "skip")
    assert "'extra'" in skipped.skipped[0]
    save_parquet(tmp_path, {"validation": rows_of([0, 1], 90)})
    with pytest.raises(UserError, match="'dev' and 'validation', which mean one, val"):
        huggingface.load(tmp_path, "", 8, 2)


@pytest.mark.parametrize(
    "table, message",
    [
        (rows_of([0, 1], 50).drop_columns(["label"]), "test has no column 'label', only image"),
        (rows_of([0, 1], 50).drop_columns(["image"]), "test has no column 'image', only label"),
        (rows_of([0, -1], 50), "row 1 has the label -1, but there are 2 class names"),
        (rows_of([0, None], 50), "row 1 has no label"),
        (rows_of(["disc", None], 50, None), "row 1 has no label"),
        (rows_of([0, 1], 50, None), "does not say what they stand for"),
    ],
)
def test_a_test_split_without_images_or_labels_is_named(tmp_path, table, message):
    save_parquet(tmp_path, {"train": rows_of([0, 1, 1]), "test": table})
    with pytest.raises(UserError, match=message):
        huggingface.load(tmp_path, "", 8, 2)


def test_image_columns_of_paths_stay_in_the_folder(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    for i, path in enumerate(("a.png", "b.png", "../outside.png")):
        picture(i + 1).save(root / path)
    os.mkfifo(root / "pipe")

    def of(*paths):
        pq.write_table(pa.table({"image": list(paths), "label": ["x", "y"] * (len(paths) // 2)}),
                       root / "train.parquet")  # fmt: skip
        return huggingface.load(root, "", 8, 2)

    assert len(of("a.png", "b.png").train) == 2
    bad = ("../outside.png", "/dev/zero", str(tmp_path / "outside.png"), "pipe", "none.png", "")
    with pytest.raises(UserError, match="6 files are not readable") as error:
        of(*bad)
    assert str(error.value).count("leads out of") == 3
    assert str(error.value).count("there is no file") == 2
    pq.write_table(pa.table({"image": [3, 4], "label": ["x", "y"]}), root / "train.parquet")
    with pytest.raises(UserError, match="the row has no image"):
        huggingface.load(root, "", 8, 2)


def test_copies_in_two_splits_of_a_table_are_named_by_row(tmp_path):
    save_parquet(tmp_path, {"train": rows_of([0, 1, 1]), "test": rows_of([1, 0], 2)})
    with pytest.raises(UserError, match=r"train row 2 is .*test row 0"):
        load(tmp_path, "huggingface")


def test_a_dataset_is_shown_in_a_line():
    many = split_of_arrays(np.zeros((5000, 1, 1, 3), np.uint8), np.arange(5000) % 7)
    dataset = Dataset("d", tuple("abcdefg"), many, None, many)
    assert repr(dataset) == "<Dataset d: 7 classes; train 5,000, test 5,000>"
    assert repr(many) == "<Split: 5,000 images of 7 classes>"


@pytest.mark.parametrize("suffix", sorted(listing.SUFFIXES - {".jp2", ".apng", ".mpo", ".jpe"}))
def test_every_suffix_is_one_that_pillow_writes_and_reads(paint, suffix):
    for label in ("disc", "tile"):
        paint(label, 1, suffix)
    assert images.read(paint.root / "disc" / f"00{suffix}", 8).shape == (8, 8, 3)
    assert len(folder.load(paint.root, 8, 2).train) == 2

"""Folders, manifests, Hugging Face's files and arrays: the same images, however they are stored."""

import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vprompt_jax import config as config_lib
from vprompt_jax import data
from vprompt_jax.data import arrays, folder, huggingface, images, manifest
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast

SPLITS = {"train": 4, "val": 2, "test": 3}  # images per class
CLASSES = ("cat", "dog")


def pixels(split, label, i):
    """A plain picture that says what it is."""
    value = 40 * list(SPLITS).index(split) + 10 * i
    return np.full((6, 5, 3), (value, 200 * label, 7), np.uint8)


def encoded(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


EXAMPLES = [(s, c, i) for s, n in SPLITS.items() for c in range(2) for i in range(n)]


def loaded(config):
    """What a resolved config names, for a tower of eight pixels."""
    return data.load(config.data, config.protocol, 8)


def write_files(root):
    for split, label, i in EXAMPLES:
        path = root / split / CLASSES[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels(split, label, i)))
    return root


def table(split, strings=False):
    chosen = [(label, i) for s, label, i in EXAMPLES if s == split]
    cells = [{"bytes": encoded(pixels(split, label, i)), "path": None} for label, i in chosen]
    labels = [CLASSES[label] if strings else label for label, _ in chosen]
    names = {"_type": "ClassLabel", "names": list(CLASSES)}
    features = {"image": {"_type": "Image"}, "label": names}
    made = pa.table({"image": cells, "label": labels})
    if strings:
        return made
    stored = json.dumps({"info": {"features": features}})
    return made.replace_schema_metadata({"huggingface": stored})


def as_folder(root):
    return folder.load(write_files(root), 8, 2)


def as_csv(root):
    rows = [f"{s}/{CLASSES[c]}/{i}.png,{CLASSES[c]},{s}" for s, c, i in EXAMPLES]
    (write_files(root) / "m.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    return manifest.load(root / "m.csv", "", 8, 2)


def as_jsonl(root):
    rows = [
        {"path": f"{s}/{CLASSES[c]}/{i}.png", "kind": CLASSES[c], "split": s}
        for s, c, i in EXAMPLES
    ]
    (write_files(root) / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return manifest.load(root / "m.jsonl", "kind", 8, 2)


def as_coop(root):
    rows = {
        s: [[f"{s}/{CLASSES[c]}/{i}.png", c, CLASSES[c]] for t, c, i in EXAMPLES if t == s]
        for s in SPLITS
    }
    write_files(root)
    (root / "split.json").write_text(json.dumps(rows))
    config = config_lib.default_config()
    config.data.source = "folder"
    config.data.dir = str(root)
    config.data.split_file = str(root / "split.json")
    return loaded(config_lib.resolve(config))


def as_parquet(root, strings=False):
    (root / "data").mkdir()
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        whole = table(split, strings)
        half = whole.num_rows // 2
        for i, part in enumerate((whole[:half], whole[half:])):
            pq.write_table(part, root / "data" / f"{name}-{i:05d}-of-00002.parquet")
    return huggingface.load(root, "", 8, 2)


def as_strings(root):
    return as_parquet(root, strings=True)


def as_saved(root):
    """The layout of `save_to_disk`, written by hand."""
    names = {"train": "train", "val": "validation", "test": "test"}
    (root / "dataset_dict.json").write_text(json.dumps({"splits": list(names.values())}))
    for split, name in names.items():
        (root / name).mkdir()
        made = table(split)
        file = "data-00000-of-00001.arrow"
        path = str(root / name / file)
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
            writer.write_table(made)
        state = {"_data_files": [{"filename": file}], "_indices_data_files": None}
        (root / name / "state.json").write_text(json.dumps(state))
    return huggingface.load(root, "", 8, 2)


def as_arrays(root):
    made = {
        s: (
            np.stack([pixels(*e) for e in EXAMPLES if e[0] == s]),
            np.array([e[1] for e in EXAMPLES if e[0] == s]),
        )
        for s in SPLITS
    }
    kept = data.from_arrays(*made.pop("train"), CLASSES, **made)
    data.save(kept, root / "a.npz")
    return arrays.load(root / "a.npz")


SOURCES = [as_folder, as_csv, as_jsonl, as_coop, as_parquet, as_strings, as_saved, as_arrays]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_images_and_labels(tmp_path, source):
    dataset = source(tmp_path)
    assert dataset.class_names == CLASSES
    for name, split in dataset.splits():
        expected = [(c, pixels(s, c, i)) for s, c, i in EXAMPLES if s == name]
        assert split.labels.tolist() == [label for label, _ in expected]
        assert split.labels.dtype == np.int32
        order = np.arange(len(split))[::-1]
        fetched = split.fetch(order)
        assert fetched.dtype == np.uint8
        np.testing.assert_array_equal(fetched[::-1], [image for _, image in expected])
        assert len(set(split.keys)) == len(split)


def test_hugging_face_s_own_writer_is_understood(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "id": datasets.Value("int32"),
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(CLASSES)),
        }
    )
    kept = [(label, i) for s, label, i in EXAMPLES if s == "train"]
    columns = {
        "id": list(range(len(kept))),
        "image": [Image.fromarray(pixels("train", *k)) for k in kept],
        "label": [label for label, _ in kept],
    }
    made = datasets.Dataset.from_dict(columns, features=features).select([7, 0, 3, 4])
    expected = [pixels("train", *kept[i]) for i in (7, 0, 3, 4)]
    made.to_parquet(tmp_path / "some.parquet")
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "saved")
    made.save_to_disk(tmp_path / "alone")
    for name in ("some.parquet", "saved", "alone"):
        dataset = huggingface.load(tmp_path / name, "", 8, 2)
        assert dataset.class_names == CLASSES
        np.testing.assert_array_equal(dataset.train.fetch(np.arange(4)), expected)
        assert dataset.train.labels.tolist() == [kept[i][0] for i in (7, 0, 3, 4)]
        assert dataset.train.keys[0] == hashlib.sha256(encoded(expected[0])).hexdigest()


def test_a_folder_without_splits_is_cut(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            image = np.full((4, 4, 3), 10 * i + (name == "dog"), np.uint8)
            (tmp_path / name / f"{i}.png").write_bytes(encoded(image))
    (tmp_path / ".hidden").mkdir()
    config = config_lib.default_config()
    config.data.source = "folder"
    config.data.dir = str(tmp_path)
    config.data.few_shot = 3
    made = loaded(config_lib.resolve(config))
    assert [len(s) for _, s in made.splits()] == [6, 2, 4]
    assert len({k for _, s in made.splits() for k in s.keys}) == 12


def test_large_splits_are_decoded_as_they_are_needed(tmp_path, monkeypatch):
    split = as_folder(tmp_path).train
    whole = images.decoded(split, "stop")[0]
    monkeypatch.setattr(images, "MEMORY_LIMIT", 10)
    assert images.decoded(split, "stop")[0] is split
    (tmp_path / "train" / "cat" / "0.png").unlink()
    assert len(whole.fetch(np.arange(8))) == 8  # in memory
    with pytest.raises(UserError, match=r"0\.png"):
        split.fetch(np.arange(1))


def break_files(root):
    """Three ways to be no image; returns the offenders."""
    cut = root / "train" / "cat" / "1.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    (root / "train" / "dog" / "2.png").write_bytes(b"<html>not found</html>")
    (root / "test" / "cat" / "notes.txt").write_text("seen on Monday")
    return ["train/cat/1.png", "train/dog/2.png", "test/cat/notes.txt"]


def config_of(root, **keys):
    config = config_lib.default_config()
    config.data.source = "folder"
    config.data.dir = str(root)
    config.data.update(keys)
    return config_lib.resolve(config)


def test_bad_files_stop_the_run_or_are_skipped_and_listed(tmp_path):
    offenders = break_files(write_files(tmp_path))
    with pytest.raises(UserError, match="3 files are not readable images") as error:
        loaded(config_of(tmp_path))
    assert all(path in str(error.value) for path in offenders)
    made = loaded(config_of(tmp_path, on_bad_image="skip"))
    assert len(made.skipped) == 3
    for path in offenders:
        assert [line for line in made.skipped if path in line]
        assert not [k for _, s in made.splits() for k in s.keys if k == path]
    assert [len(s) for _, s in made.splits()] == [6, 4, 6]
    for name, split in made.splits():
        for key, label, image in zip(
            split.keys, split.labels, split.fetch(np.arange(len(split))), strict=True
        ):
            _, class_name, file = key.split("/")
            assert class_name == CLASSES[label]
            np.testing.assert_array_equal(image, pixels(name, label, int(file[0])))


def test_skipping_looks_at_every_image_of_a_large_split(tmp_path, monkeypatch):
    break_files(write_files(tmp_path))
    monkeypatch.setattr(images, "MEMORY_LIMIT", 10)
    made = loaded(config_of(tmp_path, on_bad_image="skip"))
    assert len(made.skipped) == 3
    assert len(made.train.fetch(np.arange(len(made.train)))) == 6


def test_a_damaged_image_at_the_start_of_a_large_split_stops_the_run(tmp_path, monkeypatch):
    write_files(tmp_path)
    path = tmp_path / "train" / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:-30])
    monkeypatch.setattr(images, "MEMORY_LIMIT", 10)
    with pytest.raises(UserError, match=r"1 file (.|\n)*train/cat/0.png"):
        loaded(config_of(tmp_path))


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"label": "kind"}, "leave config.data.label"),
        ({"split": "vtab"}, "works with config.data.source=tfds alone"),
        ({"split_file": "none.json"}, r"cannot read config\.data\.split_file=none\.json"),
        ({"source": "arrays", "split_file": "a"}, "works with config.data.source=folder or tfds"),
        ({"source": "tfds", "name": "gtsrb"}, "gtsrb is not in TFDS: download GTSRB-Training"),
        (
            {"source": "tfds", "name": "fgvc_aircraft"},
            r"fgvc_aircraft is not in TFDS: .*images_variant_train\.txt(.|\n)*source=manifest",
        ),
        ({"name": "imagenet_a"}, r"imagenet_a has no training images: .*vprompt evaluate .*--dir="),
        ({"source": "tfds", "name": "imagenet_r"}, "evaluate .*--source=tfds --name=imagenet_r"),
    ],
)
def test_keys_that_do_not_fit_the_source_are_refused(tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        loaded(config_of(tmp_path, **keys))


def test_a_truncated_image_stops_the_run_before_it_starts(tmp_path):
    offenders = break_files(write_files(tmp_path))
    (tmp_path / offenders[1]).unlink()
    (tmp_path / offenders[2]).unlink()
    with pytest.raises(UserError, match=r"1 file (.|\n)*train/cat/1.png"):
        loaded(config_of(tmp_path))


def test_a_class_of_which_everything_was_skipped_is_refused(tmp_path):
    write_files(tmp_path)
    for file in (tmp_path / "train" / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match="no image of dog"):
        loaded(config_of(tmp_path, on_bad_image="skip"))


def test_faults_of_a_folder(tmp_path, monkeypatch):
    write_files(tmp_path)
    (tmp_path / "test" / "cow").mkdir()
    with pytest.raises(UserError, match="classes that train lacks: cow"):
        folder.load(tmp_path, 8, 2)
    (tmp_path / "test" / "cow").rmdir()
    (tmp_path / "train" / "ant").mkdir()
    with pytest.raises(UserError, match="no images of ant"):
        folder.load(tmp_path, 8, 2)
    with pytest.raises(UserError, match=r"cannot read the folder .*nowhere"):
        folder.load(tmp_path / "nowhere", 8, 2)
    with pytest.raises(UserError, match="holds no class folders"):
        folder.load(tmp_path / "train" / "ant", 8, 2)

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refused)
    with pytest.raises(UserError, match=r"cannot read the folder .*: Permission denied"):
        folder.load(tmp_path, 8, 2)


@pytest.mark.parametrize(
    "text, message",
    [
        ("path,label\na.png,cat\ngone.png,dog\n", r"1 file (.|\n)*gone.png \(no such file"),
        ("path,label\na.png,cat\na.png,dog\n", r"listed twice(.|\n)*a.png"),
        ("file,label\na.png,cat\n", "line 2: no 'path'"),
        ("path,label\na.png,\n", "line 2: no 'label'"),
        ("path,label,split\na.png,cat,trian\n", "line 2: split 'trian' is none of train"),
        ("path,label\n", "lists no images"),
    ],
)
def test_faults_of_a_manifest(tmp_path, text, message):
    (tmp_path / "a.png").write_bytes(encoded(pixels("train", 0, 0)))
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        manifest.load(tmp_path / "m.csv", "", 8, 2)


def test_a_broken_line_of_a_manifest_is_named(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"path": "a.png", "label": "x"}\n{"path"\n')
    with pytest.raises(UserError, match=r"m\.jsonl, line 2"):
        manifest.load(tmp_path / "m.jsonl", "", 8, 2)
    with pytest.raises(UserError, match=r"ends in \.csv or \.jsonl"):
        manifest.load(tmp_path / "m.txt", "", 8, 2)


def test_faults_of_hugging_face_s_files(tmp_path):
    with pytest.raises(UserError, match="cannot read the dataset"):
        huggingface.load(tmp_path, "", 8, 2)
    numbers = table("train").replace_schema_metadata(None)
    pq.write_table(numbers, tmp_path / "n.parquet")
    with pytest.raises(UserError, match="label holds numbers"):
        huggingface.load(tmp_path / "n.parquet", "", 8, 2)
    with pytest.raises(UserError, match=r"config\.data\.label has to name.*image, label"):
        huggingface.load(tmp_path / "n.parquet", "kind", 8, 2)
    (tmp_path / "n.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="cannot read the dataset"):
        huggingface.load(tmp_path / "n.parquet", "", 8, 2)


def test_rows_that_point_to_files_and_rows_without_an_image(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(pixels("train", 1, 2)))
    cells = [{"bytes": None, "path": p} for p in ("a.png", "gone.png", None)]
    rows = pa.table({"image": cells, "label": ["dog", "cat", "cat"]})
    pq.write_table(rows[:1], tmp_path / "good.parquet")
    good = huggingface.load(tmp_path / "good.parquet", "", 8, 2)
    np.testing.assert_array_equal(good.train.fetch(np.arange(1))[0], pixels("train", 1, 2))
    pq.write_table(rows, tmp_path / "bad.parquet")
    message = r"2 files(.|\n)*train row 1 \(FileNotFoundError(.|\n)*row 2 .*the row has no image"
    with pytest.raises(UserError, match=message):
        huggingface.load(tmp_path / "bad.parquet", "", 8, 2)


def test_faults_of_arrays(tmp_path):
    good = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(UserError, match=r"train images are float32 \[2, 4, 4, 3\]"):
        data.from_arrays(good.astype(np.float32), np.zeros(2, int), CLASSES)
    with pytest.raises(UserError, match=r"test labels are int64 \[3\]"):
        data.from_arrays(good, np.zeros(2, int), CLASSES, test=(good, np.zeros(3, int)))
    np.savez(tmp_path / "a.npz", train_images=good)
    with pytest.raises(UserError, match="has no array 'train_labels'"):
        arrays.load(tmp_path / "a.npz")
    with pytest.raises(UserError, match="cannot read the arrays"):
        arrays.load(tmp_path / "none.npz")

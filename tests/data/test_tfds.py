"""The TFDS source, on a dataset prepared here in both of TFDS's formats."""

import dataclasses
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from vprompt_jax import config as config_lib
from vprompt_jax import data
from vprompt_jax.data import card, catalogue, splits, tfds_source
from vprompt_jax.data.info import DatasetInfo, texts
from vprompt_jax.process.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")


def png(pixels: np.ndarray) -> io.BytesIO:
    """An encoded image, which TFDS stores without TensorFlow."""
    encoded = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(encoded, "PNG")
    encoded.seek(0)
    return encoded


class Films(tfds.core.GeneratorBasedBuilder):
    """Six films of three frames, with a name, masks of 0 and 1 and a label to be derived."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "video": tfds.features.Video(shape=(None, 4, 4, 3)),
                "image": tfds.features.Image(shape=(4, 4, 1)),
                "name": tfds.features.Text(),
                "kind": tfds.features.Text(),
                "label": tfds.features.ClassLabel(num_classes=3),
                "label_x_position": tfds.features.ClassLabel(num_classes=32),
            }
        )
        return self.dataset_info_from_configs(features=features, supervised_keys=None)

    def _split_generators(self, dl_manager):
        return {"train": self._examples()}

    def _generate_examples(self):
        raise NotImplementedError

    def _examples(self):
        for i in range(6):
            frames = [png(np.full((4, 4, 3), 40 * i + k, np.uint8)) for k in range(3)]
            yield (
                i,
                {
                    "video": frames,
                    "image": png(np.eye(4, dtype=np.uint8)[..., None]),
                    "name": f"film{i}",
                    "kind": f"00{i % 3}.Kind_{i % 3}",
                    "label": i % 3,
                    "label_x_position": 4 * i + 1,
                },
            )


class HandMade(tfds.core.GeneratorBasedBuilder):
    """Six images of two classes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 3)),
                "label": tfds.features.ClassLabel(names=["left", "right"]),
            }
        )
        return self.dataset_info_from_configs(features=features, supervised_keys=None)

    def _split_generators(self, dl_manager):
        return {"train": self._examples(4), "test": self._examples(2)}

    def _generate_examples(self):
        raise NotImplementedError

    def _examples(self, count):
        for i in range(count):
            yield i, {"image": png(np.full((8, 8, 3), 20 * i, np.uint8)), "label": i % 2}


class Renditions(HandMade):
    """Two images of each of three of ImageNet's thousand classes, all in test."""

    CHOSEN = (3, 998, 20)

    def _info(self):
        label = tfds.features.ClassLabel(names=texts()["ids"]["imagenet"].split())
        image = tfds.features.Image(shape=(8, 8, 3))
        features = {"image": image, "label": label, "file_name": tfds.features.Text()}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"test": self._examples(6)}

    def _examples(self, count):
        for i in range(count):
            image = png(np.full((8, 8, 3), 20 * i, np.uint8))
            yield i, {"image": image, "label": self.CHOSEN[i % 3], "file_name": f"{i}.jpg"}


def prepare(folder, file_format, kind=HandMade):
    if kind is Films:
        pytest.importorskip("tensorflow")  # TFDS has it encode videos
    builder = kind(data_dir=folder, file_format=file_format)
    builder.download_and_prepare()
    return str(folder)


def test_random_access(tmp_path):
    where = prepare(tmp_path, "array_record")
    dataset = tfds_source.load("hand_made", where, resolution=8)
    assert dataset.class_names == ("left", "right")
    assert (len(dataset.train), dataset.val, len(dataset.test)) == (4, None, 2)
    for split in (dataset.train, dataset.test):
        images = split.fetch(np.arange(len(split)))
        np.testing.assert_array_equal(images[:, 0, 0, 0] // 20 % 2, split.labels)
    assert dataset.train.fetch(np.array([0])).shape == (1, 8, 8, 3)


def test_images_larger_than_the_tower_are_resized_on_the_host(tmp_path):
    where = prepare(tmp_path, "array_record")
    dataset = tfds_source.load("hand_made", where, resolution=4)
    assert dataset.train.fetch(np.array([0])).shape == (1, 4, 4, 3)


def test_a_tfrecord_preparation_is_refused_with_the_way_out(tmp_path):
    pytest.importorskip("tensorflow")
    where = prepare(tmp_path, "tfrecord")
    with pytest.raises(UserError, match="file_format='array_record'"):
        tfds_source.load("hand_made", where, resolution=8)


def test_an_unknown_dataset_is_named(tmp_path):
    with pytest.raises(UserError, match="no dataset 'cifar11': did you mean cifar10"):
        tfds_source.load("cifar11", str(tmp_path), resolution=8)


def without_tensorflow(monkeypatch):
    monkeypatch.setattr(tfds_source, "find_spec", lambda name: None)


def test_what_needs_tensorflow_says_so(tmp_path, monkeypatch):
    without_tensorflow(monkeypatch)
    with pytest.raises(UserError, match=r'with TensorFlow: pip install "vprompt_jax\[tfds\]"'):
        tfds_source.load("hand_made", str(tmp_path), resolution=8)


def test_what_is_prepared_is_read_without_tensorflow(tmp_path, monkeypatch):
    where = prepare(tmp_path, "array_record")
    without_tensorflow(monkeypatch)
    assert len(tfds_source.load("hand_made", where, resolution=8).train) == 4


def film_row(**fields):
    splits = {"train": "train[:4]", "test": "train[4:]"}
    vtab = {"train": "train[:3]", "val": "train[3:4]", "test": "train[4:]"}
    row = dict(texts="cifar", image="video", key="name", licence="none", url="http://")
    return DatasetInfo("films", 3, "films:1.*.*", splits, None, vtab=vtab, **{**row, **fields})


def test_a_row_says_where_image_label_key_and_names_are(tmp_path):
    where = prepare(tmp_path, "array_record", Films)
    row = film_row(name_field="kind")
    dataset = tfds_source.load("films", where, 8, row=row)
    assert dataset.class_names == ("000.Kind_0", "001.Kind_1", "002.Kind_2")
    assert (len(dataset.train), dataset.val, len(dataset.test)) == (4, None, 2)
    for split in (dataset.train, dataset.test):
        for key, label, image in zip(
            split.keys, split.labels, split.fetch(np.arange(len(split))), strict=True
        ):
            number = int(key.removeprefix("film"))
            assert label == number % 3
            assert (image == 40 * number + 1).all()  # the middle frame
    vtab = tfds_source.load("films", where, 8, row=row, vtab=True)
    assert [len(s) for _, s in vtab.splits()] == [3, 1, 2]
    assert vtab.val.keys == [dataset.train.keys[3]]


def test_derived_labels_grey_levels_and_keys_by_content(tmp_path):
    where = prepare(tmp_path, "array_record", Films)
    row = film_row(image="image", key=None, label="dsprites_x", scale=255)
    dataset = tfds_source.load("films", where, 8, row=row)
    assert sorted(dataset.train.labels.tolist() + dataset.test.labels.tolist()) == [
        2 * i for i in range(6)
    ]
    np.testing.assert_array_equal(
        dataset.train.fetch(np.arange(1))[0],
        255 * np.eye(4, dtype=np.uint8)[..., None].repeat(3, 2),
    )
    assert len(set(dataset.train.keys)) == 1  # equal images
    assert len(dataset.train.keys[0]) == len(hashlib.sha256().hexdigest())


def test_the_whole_way_from_a_config(tmp_path, monkeypatch):
    where = prepare(tmp_path, "array_record", Films)
    monkeypatch.setitem(
        catalogue.CATALOGUE, "films", film_row(name_field="kind", template="{} film")
    )
    config = config_lib.default_config()
    config.data.source = "tfds"
    config.data.name = "films"
    config.data.dir = where
    config.data.split = "vtab"
    resolved = config_lib.resolve(config)
    section = resolved.data
    dataset = data.load(section, resolved.protocol, 8)
    assert dataset.class_names == ("Kind 0", "Kind 1", "Kind 2")
    assert [len(s) for _, s in dataset.splits()] == [3, 1, 2]
    assert data.text_templates(section, dataset) == ("{} film",)
    config.data.templates = "ensemble"
    assert len(data.text_templates(config_lib.resolve(config).data, dataset)) == 18
    config.data.template = "my {}"
    assert data.text_templates(config_lib.resolve(config).data, dataset) == ("my {}",)
    config.protocol = "paper"  # VTAB-1k trains on its 800 and 200 together
    paper = config_lib.resolve(config)
    assert [len(s) for _, s in data.load(paper.data, paper.protocol, 8).splits()] == [4, 2]


def test_a_split_file_finds_examples_by_name(tmp_path):
    where = prepare(tmp_path, "array_record", Films)
    dataset = tfds_source.load("films", where, 8, row=film_row())
    entries = [splits.Entry(f"frames/film{i}", "ab"[i % 2], "train") for i in (5, 0)]
    made = splits.arranged(dataset, splits.SplitFile("split.json", "0", entries, ["a", "b"]))
    assert made.train.fetch(np.arange(2))[:, 0, 0, 0].tolist() == [201, 1]
    assert made.train.labels.tolist() == [1, 0]


def test_test_sets_of_some_of_imagenets_classes(tmp_path, monkeypatch):
    """As ImageNet-A and R are in TFDS: labels among a thousand, and no training images."""
    where = prepare(tmp_path, "array_record", Renditions)
    row = dataclasses.replace(
        catalogue.CATALOGUE["imagenet_r"], tfds="renditions:1.*.*", classes=3, sizes=(0, 0, 6)
    )
    monkeypatch.setitem(catalogue.CATALOGUE, "renditions", row)
    config = config_lib.default_config()
    config.data.source, config.data.name, config.data.dir = "tfds", "renditions", where
    section = config_lib.resolve(config).data
    made = data.labelled(section, "test", 8)
    names = texts()["classes"]["imagenet"]
    assert made.class_names == (names[3], names[20], names[998])
    by_key = dict(zip(made.test.keys, made.test.labels.tolist(), strict=True))
    assert by_key == {f"{i}.jpg": (0, 2, 1)[i % 3] for i in range(6)}
    assert not len(made.train)
    assert "evaluation alone" in card.of_row("renditions", row)
    card.save_grid(made, tmp_path / "grid.png")
    with pytest.raises(UserError, match=r"has no training images: .*--name=renditions"):
        data.load(section, "val", 8)
    monkeypatch.setitem(catalogue.CATALOGUE, "renditions", dataclasses.replace(row, classes=4))
    with pytest.raises(UserError, match="3 classes found, but there are 4"):
        data.labelled(section, "test", 8)
    monkeypatch.delitem(catalogue.CATALOGUE, "renditions")  # without a row, too
    with pytest.raises(UserError, match="renditions has no training images"):
        data.load(section, "val", 8)


def test_an_unfinished_preparation_is_named(tmp_path):
    where = prepare(tmp_path, "array_record")
    next(tmp_path.rglob("*test*array_record*")).unlink()
    with pytest.raises(UserError, match=r"hand_made in .* is not complete(.|\n)*prepare it again"):
        tfds_source.load("hand_made", where, resolution=8)


def test_a_field_that_is_no_label_is_refused(tmp_path):
    where = prepare(tmp_path, "array_record")
    with pytest.raises(UserError, match=r"config\.data\.label has to name the field: image, label"):
        tfds_source.load("hand_made", where, 8, label="kind")
    with pytest.raises(UserError, match="is not part of VTAB-1k"):
        tfds_source.load("hand_made", where, 8, vtab=True)


def test_offline_nothing_is_fetched(tmp_path, monkeypatch):
    where = prepare(tmp_path / "prepared", "array_record")
    monkeypatch.setenv("VPROMPT_OFFLINE", "1")

    def fetched(self, *args, **kwargs):
        raise AssertionError("an attempt to fetch")

    assert len(tfds_source.load("hand_made", where, 8).train) == 4
    monkeypatch.setattr(HandMade, "download_and_prepare", fetched)
    with pytest.raises(UserError, match=r"is not prepared in .* VPROMPT_OFFLINE forbids to fetch"):
        tfds_source.load("hand_made", str(tmp_path / "empty"), 8)


def test_a_split_file_that_deals_an_example_to_two_splits_is_refused(tmp_path):
    where = prepare(tmp_path, "array_record", Films)
    dataset = tfds_source.load("films", where, 8, row=film_row())
    entries = [splits.Entry("a/film1", "a", "train"), splits.Entry("film1", "a", "test")]
    with pytest.raises(UserError, match=r"listed twice(.|\n)*a/film1 \(train\), film1 \(test\)"):
        splits.arranged(dataset, splits.SplitFile("split.json", "0", entries, ["a", "b"]))

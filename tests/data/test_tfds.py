"""The TFDS source, on a dataset prepared here in both of TFDS's formats."""

import numpy as np
import pytest

from vprompt_jax.data import tfds_source
from vprompt_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")


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
            yield i, {"image": np.full((8, 8, 3), 20 * i, np.uint8), "label": i % 2}


def prepare(folder, file_format):
    builder = HandMade(data_dir=folder, file_format=file_format)
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
    where = prepare(tmp_path, "tfrecord")
    with pytest.raises(UserError, match="file_format='array_record'"):
        tfds_source.load("hand_made", where, resolution=8)


def test_an_unknown_dataset_is_named(tmp_path):
    with pytest.raises(UserError, match="no dataset 'cifar11'"):
        tfds_source.load("cifar11", str(tmp_path), resolution=8)

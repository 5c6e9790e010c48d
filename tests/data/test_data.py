"""Splits, sources and the order of examples."""

import functools
import hashlib

import joblib
import numpy as np
import pytest
from PIL import Image

from vprompt_jax import config as config_lib
from vprompt_jax import data
from vprompt_jax.data import digits, folder, pipeline
from vprompt_jax.data.dataset import Dataset, Split, check, split_of_arrays
from vprompt_jax.data.splits import with_validation
from vprompt_jax.process.errors import UserError


def small_dataset(count=40, classes=4):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int32) % classes
    split = Split(labels, lambda indices: images[indices], [str(i) for i in range(count)])
    return Dataset("small", tuple("abcd"[:classes]), split, None, split)


def test_digits_are_split_by_digit_before_they_are_placed(monkeypatch):
    placed = []
    place = digits._place

    def recording(digit, key):
        placed.append((digit.tobytes(), key[1], key[2]))
        return place(digit, key)

    monkeypatch.setattr(digits, "_place", recording)
    with joblib.parallel_config(backend="sequential"):  # other processes have their own `_place`
        arrays = digits._painted()
    sizes = [len(arrays[f"{name}_labels"]) for name in ("train", "val", "test")]
    assert sizes == [51_744, 1436, 2880]
    ends = np.cumsum(sizes)
    parts = [placed[: ends[0]], placed[ends[0] : ends[1]], placed[ends[1] :]]
    sources = [{index for _, index, _ in part} for part in parts]
    assert sum(map(len, sources)) == len(set().union(*sources)) == 1797
    # Placement is deterministic: what is kept, and read again, is the same pixel for pixel.
    dataset = digits.load()
    for name, split in dataset.splits():
        np.testing.assert_array_equal(split.fetch(np.arange(len(split))), arrays[f"{name}_images"])


def test_digit_scenes_are_varied_and_every_class_is_present():
    dataset = digits.load()
    images = dataset.test.fetch(np.arange(len(dataset.test)))
    assert images.shape[1:] == (32, 32, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == len(images)
    assert (np.bincount(dataset.test.labels, minlength=10) > 200).all()


def test_validation_cut_is_stratified_disjoint_and_follows_the_documented_rule():
    dataset = small_dataset()
    cut = with_validation(dataset, 0.2)
    assert len(cut.train) + len(cut.val) == 40
    assert not set(cut.train.keys) & set(cut.val.keys)
    assert np.bincount(cut.val.labels).tolist() == [2, 2, 2, 2]
    members = [k for k in dataset.train.keys if int(k) % 4 == 1]
    by_hash = sorted(members, key=lambda k: hashlib.sha256(f"0:{k}".encode()).hexdigest())
    assert {k for k in cut.val.keys if int(k) % 4 == 1} == set(by_hash[:2])
    first = cut.val.fetch(np.array([0]))
    np.testing.assert_array_equal(first, dataset.train.fetch(np.array([int(cut.val.keys[0])])))


def test_a_class_of_one_image_keeps_it_in_train():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    split = split_of_arrays(images, np.array([0, 1, 1]))
    cut = with_validation(Dataset("d", ("a", "b"), split, None, split), 0.5)
    assert set(cut.train.labels) == {0, 1}


def test_labels_without_a_class_name_and_empty_splits_are_refused():
    good = small_dataset()
    with pytest.raises(UserError, match=r"labels 0\.\.3, but there are 2 class names"):
        check(Dataset("d", ("a", "b"), good.train, None, good.test))
    empty = split_of_arrays(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0))
    with pytest.raises(UserError, match="the test split holds no images"):
        check(Dataset("d", tuple("abcd"), good.train, None, empty))


def batches(split, **kwargs):
    options = dict(batch_size=16, epochs=3, seed=1, start=0, workers=2)
    return list(pipeline.train_batches(split, **{**options, **kwargs}))


def indices(batch):
    return batch["index"].ravel()[batch["weight"].ravel() > 0]


def test_every_epoch_sees_every_example_once_in_a_new_order():
    split = small_dataset().train
    seen = [indices(b) for b in batches(split)]
    assert len(seen) == 9  # the partial batch is kept: 16 + 16 + 8
    epochs = [np.concatenate(seen[i : i + 3]) for i in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(40))
    assert not np.array_equal(epochs[0], epochs[1])


def test_batches_carry_the_right_images_and_labels():
    split = small_dataset().train
    for batch in batches(split):
        flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in batch.items()}
        real = flat["weight"] > 0
        np.testing.assert_array_equal(flat["image"][real], split.fetch(flat["index"][real]))
        np.testing.assert_array_equal(flat["label"][real], split.labels[flat["index"][real]])
        assert (flat["index"][~real] == -1).all()


def test_the_position_in_the_data_is_the_step_number():
    split = small_dataset().train
    whole = batches(split)
    for start in (1, 4, 8):
        for a, b in zip(whole[start:], batches(split, start=start), strict=True):
            np.testing.assert_array_equal(a["index"], b["index"])


def test_the_order_of_an_epoch_is_drawn_once(monkeypatch):
    drawn = []
    draw = pipeline._drawn.__wrapped__

    @functools.lru_cache(maxsize=2)
    def counting(*key):
        drawn.append(key)
        return draw(*key)

    monkeypatch.setattr(pipeline, "_drawn", counting)
    # Two epochs, as many as are kept: a thread that lags behind finds its own still there.
    seen = np.concatenate([indices(b) for b in batches(small_dataset().train, epochs=2)])
    assert sorted(drawn) == [(1, epoch, 40) for epoch in range(2)]
    expected = [np.random.default_rng((1, epoch)).permutation(40) for epoch in range(2)]
    np.testing.assert_array_equal(seen, np.concatenate(expected))


@pytest.mark.parametrize("batch_size", [1, 7, 16, 40, 100])
def test_one_evaluation_pass_sees_every_example_once(batch_size):
    split = small_dataset().train
    passed = pipeline.eval_batches(split, batch_size=batch_size, workers=2)
    seen = np.concatenate([indices(b) for b in passed])
    assert sorted(seen) == list(range(40))


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_folder(photos):
    dataset = folder.load(photos, 64, 2)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.val is None
    np.testing.assert_array_equal(dataset.train.labels, [0, 0, 0, 1, 1, 1])
    stored = np.asarray(Image.open(photos / "train" / "dog" / "1.png"))
    np.testing.assert_array_equal(dataset.train.fetch(np.array([4]))[0], stored)
    assert dataset.train.keys[4] == "train/dog/1.png"


def test_folder_of_several_sizes_is_resized_on_the_host(photos):
    Image.new("L", (90, 50)).save(photos / "test" / "cat" / "wide.png")
    dataset = folder.load(photos, 64, 2)
    assert dataset.test.fetch(np.arange(3)).shape == (3, 64, 64, 3)


def test_folder_lists_every_file_that_is_no_image(photos):
    for name in ("train/cat/0.png", "test/dog/1.png"):
        (photos / name).write_bytes(b"not an image")
    with pytest.raises(UserError, match="2 files are not readable images") as error:
        folder.load(photos, 64, 2)
    assert "train/cat/0.png" in str(error.value)
    assert "test/dog/1.png" in str(error.value)


def test_protocols_differ_in_what_is_trained_on(photos):
    config = config_lib.default_config()
    config.data.source = "folder"
    config.data.dir = str(photos)
    resolved = config_lib.resolve(config)
    assert resolved.protocol == "val"
    val = data.load(resolved.data, resolved.protocol, 64)
    assert (len(val.train), len(val.val)) == (4, 2)
    paper = data.load(resolved.data, "paper", 64)
    assert (len(paper.train), paper.val) == (6, None)

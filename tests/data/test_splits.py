"""Cuts by hash, few shots, and lists of CoOp."""

import hashlib
import json
import math

import numpy as np
import pytest

from vprompt_jax.data import splits
from vprompt_jax.data.dataset import Dataset, Split, split_of_arrays
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast


def dataset(order=None, count=60, classes=3):
    """Image i is filled with i and called "i"; its class is i mod 3."""
    order = np.arange(count) if order is None else order
    images = order.astype(np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    split = Split(
        (order % classes).astype(np.int32), lambda i: images[i], [f"x/{i}.png" for i in order]
    )
    return Dataset("d", tuple("abc"), split, None, split.take(np.array([], int)))


def parts(made):
    return [set(s.keys) for _, s in made.splits()]


def test_cuts_are_disjoint_stratified_and_do_not_depend_on_the_order():
    made = splits.with_validation(splits.with_test(dataset(), 0.3), 0.1)
    train, val, test = parts(made)
    assert train | val | test == set(dataset().train.keys)
    assert len(train) + len(val) + len(test) == 60
    assert np.bincount(made.test.labels).tolist() == [6, 6, 6]
    assert np.bincount(made.val.labels).tolist() == [2, 2, 2]
    assert (made.cut, dataset().cut) == (("test", "val"), ())
    shuffled = dataset(np.random.default_rng(0).permutation(60))
    again = splits.with_validation(splits.with_test(shuffled, 0.3), 0.1)
    assert parts(again) == [train, val, test]
    assert again.fingerprint == made.fingerprint
    assert parts(splits.with_test(dataset(), 0.3, seed=1))[1] != test
    by_hash = sorted(
        (k for k in dataset().train.keys if int(k[2:-4]) % 3 == 2),
        key=lambda k: hashlib.sha256(f"0:{k}".encode()).hexdigest(),
    )
    assert {k for k in test if int(k[2:-4]) % 3 == 2} == set(by_hash[: math.ceil(0.3 * 20)])


def test_existing_splits_are_kept():
    made = splits.with_validation(splits.with_test(dataset(), 0.3), 0.1)
    assert splits.with_validation(splits.with_test(made, 0.5), 0.5) is made


def test_few_shots_are_nested_and_validate_on_few():
    whole = splits.with_validation(splits.with_test(dataset(), 0.3), 0.5)
    kept = {k: splits.few_shot(whole, k) for k in (1, 2, 6)}
    for shots, made in kept.items():
        assert np.bincount(made.train.labels).tolist() == [shots] * 3
        assert np.bincount(made.val.labels).tolist() == [min(shots, 4)] * 3
        assert parts(made)[2] == parts(whole)[2]
    assert parts(kept[1])[0] < parts(kept[2])[0] < parts(kept[6])[0]
    assert np.bincount(splits.few_shot(whole, 2, 6).val.labels).tolist() == [6] * 3
    with pytest.raises(UserError, match=r"few_shot=8, but class 'a' has 7 training images"):
        splits.few_shot(whole, 8)


def test_fingerprints_change_with_labels_names_and_splits():
    made = splits.with_test(dataset(), 0.3)
    prints = {
        made.fingerprint,
        Dataset("d", tuple("abd"), made.train, None, made.test).fingerprint,
        Dataset("d", tuple("abc"), made.test, None, made.train).fingerprint,
        splits.with_test(dataset(), 0.3, seed=1).fingerprint,
        splits.with_test(dataset(classes=2), 0.3).fingerprint,
    }
    assert len(prints) == 5
    expected = hashlib.sha256("\n".join(sorted(made.test.keys)).encode()).hexdigest()
    assert made.test.digest == expected


def test_joined_splits_give_the_images_of_both():
    made = splits.with_test(dataset(), 0.3)
    both = made.train.joined(made.test)
    order = np.random.default_rng(0).permutation(60)
    values = both.fetch(order)[:, 0, 0, 0]
    assert [f"x/{v}.png" for v in values] == [both.keys[i] for i in order]
    np.testing.assert_array_equal(both.labels[order], values % 3)


def coop(tmp_path, content):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(content))
    return path


def rows(numbers):
    return [[f"x/{i}.png", i % 3, "cab"[i % 3]] for i in numbers]


def test_a_split_file_deals_the_examples_it_names(tmp_path):
    path = coop(tmp_path, {"train": rows([3, 1, 2]), "val": rows([9]), "test": rows([50, 4])})
    source = splits.with_test(dataset(), 0.3)
    made = splits.arranged(source, splits.read_coop_file(path))
    assert made.class_names == ("c", "a", "b")
    assert made.split_file == ("split.json", hashlib.sha256(path.read_bytes()).hexdigest())
    assert made.train.keys == ["x/3.png", "x/1.png", "x/2.png"]
    assert made.test.fetch(np.arange(2))[:, 0, 0, 0].tolist() == [50, 4]
    assert (made.train.labels.tolist(), made.val.labels.tolist()) == ([0, 1, 2], [0])
    # Other folders, but unique file names.
    elsewhere = [[f"jpg/{i}.png", i % 3, "cab"[i % 3]] for i in (3, 1, 2)]
    path = coop(tmp_path, {"train": elsewhere, "val": rows([9]), "test": rows([50])})
    made = splits.arranged(source, splits.read_coop_file(path))
    assert made.train.keys == ["x/3.png", "x/1.png", "x/2.png"]


def test_a_split_file_with_images_that_are_not_there_is_refused(tmp_path):
    path = coop(tmp_path, {"train": rows([3, 1, 99]), "val": rows([2]), "test": rows([5])})
    with pytest.raises(UserError, match=r"1 of the 5 images of split\.json(.|\n)*x/99.png"):
        splits.arranged(dataset(), splits.read_coop_file(path))


def listed(*rows):
    return {"train": list(rows), "val": [], "test": [["z.png", 0, "x"]]}


@pytest.mark.parametrize(
    "content, message",
    [
        ({"train": [], "test": []}, "KeyError: 'val'"),
        ([1], "TypeError"),
        (listed(["a.png", 0]), "has to be CoOp's JSON"),
        (listed(["a.png", "0", "x"]), "a label is no whole number"),
        (listed(["a.png", 0.5, "x"]), "a label is no whole number"),
        (listed(["a.png", True, "x"]), "a label is no whole number"),
        (listed(["a.png", 0, None]), "a path or class name is no text"),
        (listed(["a.png", 2, "y"]), "2 labels have to be 0 to 1, but the largest is 2.* no 1"),
        (listed(["a.png", -1, "y"]), "2 labels have to be 0 to 1.* smallest -1.* no 1"),
        (listed(["b.png", 0, "y"]), "one class name:\n  label 0 is called 'x', 'y'"),
        (listed(["b.png", 1, "x"]), "one class name:\n  'x' has the labels 0, 1"),
        ({"train": [["a", 0, "x"]], "val": [], "test": []}, "lists no images for test"),
        ({"train": [], "val": [["a", 0, "x"]], "test": [["b", 0, "x"]]}, "no images for train"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        splits.read_coop_file(coop(tmp_path, content))
    assert f"config.data.split_file={tmp_path / 'split.json'}" in str(error.value)


def test_array_keys_are_hashes_of_pixels():
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    keys = split_of_arrays(images, np.zeros(2, int)).keys
    assert list(keys) == [hashlib.sha256(image.tobytes()).hexdigest() for image in images]

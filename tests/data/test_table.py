"""The table of datasets against TFDS, and class names fit for a text prompt."""

import re
from importlib.util import find_spec

import numpy as np
import pytest

from vprompt_jax.data import catalogue, derived
from vprompt_jax.data.info import class_names, ensemble, readable, texts
from vprompt_jax.process.errors import UserError

NINE = {"cifar10", "cifar100", "dtd", "food101", "sun397"}
NINE |= {"oxford_flowers102", "ucf101", "eurosat", "oxford_iiit_pet"}
COOP = NINE - {"cifar10", "cifar100"} | {"imagenet2012", "caltech101", "cars196", "fgvc_aircraft"}
IMAGENETS = {"imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r"}
SPELLINGS = {"McLaren", "TrailBlazer", "ActiveHybrid", "SuperCab", "xD", "iPod"}  # of makers


def test_the_table_has_every_dataset_of_both_papers():
    assert set(catalogue.CATALOGUE) >= NINE
    assert len([r for r in catalogue.CATALOGUE.values() if r.vtab]) == 19
    fgvc = {"caltech_birds2011", "nabirds", "oxford_flowers102", "stanford_dogs", "cars196"}
    assert fgvc | {"svhn_cropped", "gtsrb", "resisc45", "imagenet2012"} <= set(catalogue.CATALOGUE)
    assert set(catalogue.CATALOGUE) >= COOP | IMAGENETS
    evaluated = {name for name, row in catalogue.CATALOGUE.items() if row.for_evaluation}
    assert evaluated == IMAGENETS


@pytest.mark.parametrize("name", sorted(catalogue.CATALOGUE))
def test_a_row_is_complete(name):
    row = catalogue.CATALOGUE[name]
    assert row.licence
    assert row.url.startswith("http")
    for template in (row.template, *ensemble(row)):
        assert template.count("{}") == 1
    assert row.tfds or row.fetch  # what TFDS does not have, the user is told to fetch
    assert not row.tfds or row.for_evaluation or "train" in row.splits
    names = texts()["classes"].get(row.names)
    assert row.names in ("", "CamelCase") or row.is_part or len(names) == row.classes
    assert row.label in derived.LABELS or re.fullmatch("label(_[a-z]+)?", row.label)
    if names:
        assert_fit_for_a_prompt(names)


def assert_fit_for_a_prompt(names):
    assert len({n.lower() for n in names}) == len(names)
    for name in names:
        assert "_" not in name
        assert name == " ".join(name.split())
        words = set(name.split()) - SPELLINGS
        assert not [w for w in words if re.search("[a-z][A-Z]", w)], name


def test_every_builder_resolves_and_agrees_with_its_row(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    for name, row in catalogue.CATALOGUE.items():
        if row.tfds is None or (name == "ucf101" and not find_spec("tensorflow")):
            continue
        features = tfds.builder(row.tfds, data_dir=tmp_path).info.features
        assert row.image in features, name
        assert row.key is None or row.key in features, name
        assert row.name_field is None or row.name_field in features, name
        if row.side:
            assert features[row.image].shape[:2] == (row.side, row.side), name
        if row.label in derived.LABELS:
            continue
        label = features[row.label]
        if row.is_part:
            assert label.names == texts()["ids"][row.names].split(), name
            continue
        assert label.num_classes == row.classes, name
        assert_fit_for_a_prompt(class_names(row, label.names))


def test_names_that_clip_s_authors_chose():
    by = catalogue.CATALOGUE
    raw = ["AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture"]
    raw += ["PermanentCrop", "Residential", "River", "SeaLake"]
    names = class_names(by["eurosat"], raw)
    assert names[2] == "brushland or shrubland"
    assert names[9] == "lake or sea"
    wnids = texts()["ids"]["imagenet"].split()
    assert class_names(by["imagenet2012"], wnids) == tuple(texts()["classes"]["imagenet"])
    folders = [f"{i:05d}" for i in range(43)]  # as GTSRB's archive names them
    assert class_names(by["gtsrb"], folders)[14] == "stop"


def test_ids_and_numbers_are_looked_up_whatever_their_order():
    """ImageNet-V2's folders 0 to 999 sort as texts; ImageNet-A has a fifth of the ids."""
    names, wnids = texts()["classes"]["imagenet"], texts()["ids"]["imagenet"].split()
    as_text = sorted(map(str, range(1000)))
    by_number = class_names(catalogue.CATALOGUE["imagenet_v2"], as_text)
    assert as_text[2] == "10"
    assert by_number[2] == names[10] == "brambling"
    chosen = range(999, 0, -5)
    by_id = class_names(catalogue.CATALOGUE["imagenet_a"], [wnids[i] for i in chosen])
    assert by_id == tuple(names[i] for i in chosen)
    with pytest.raises(UserError, match=r"numbers have to be 0 to 999, not 1 to 1000"):
        class_names(catalogue.CATALOGUE["imagenet2012"], [str(i) for i in range(1, 1001)])
    with pytest.raises(UserError, match=r"no class has the id n00000001"):
        class_names(catalogue.CATALOGUE["imagenet_r"], ["n00000001", *wnids[:199]])


@pytest.mark.parametrize(
    "raw, words",
    [
        ("/a/apartment_building/outdoor", "apartment building outdoor"),
        ("n02085620-chihuahua", "chihuahua"),
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("apple_pie", "apple pie"),
        ("Ram C/V Cargo Van Minivan 2012", "Ram C/V Cargo Van Minivan 2012"),
    ],
)
def test_names_become_words(raw, words):
    assert readable(raw) == words


def test_the_users_own_names_stay_and_a_wrong_number_of_classes_is_refused():
    assert class_names(None, ["my_class", "B"]) == ("my_class", "B")
    with pytest.raises(UserError, match="9 classes found, but there are 10"):
        class_names(catalogue.CATALOGUE["cifar10"], list("012345678"))


def test_vtab_slices_are_1000_training_examples_apart_from_test():
    for name, row in catalogue.CATALOGUE.items():
        if not row.vtab:
            continue
        assert row.vtab["train"] == "train[:800]", name
        of, span = re.fullmatch(r"(\w+)\[(.*)\]", row.vtab["val"]).groups()
        first, last = (int(x or 0) for x in span.split(":"))
        assert last - first == 200, name
        if of == "train":
            assert first >= 800, name
            cut = re.fullmatch(r"train\[(\d+)(%?):\]", row.vtab["test"])
            if cut and cut[2]:
                assert last <= int(cut[1]) * sum(row.sizes) // 100, name
            elif cut:
                assert last <= int(cut[1]), name
        if of == "test":
            assert row.vtab["test"] == "test[50%:]"


def test_derived_labels():
    rng = np.random.default_rng(0)
    for _ in range(200):
        depths = rng.uniform(7, 12, (rng.integers(3, 11), 3))
        objects = {"size": np.zeros(len(depths)), "pixel_coords": depths}
        assert derived.clevr_count({"objects": objects}) == len(depths) - 3
        nearest = min(row[2] for row in depths)
        expected = sum(nearest > edge for edge in (8.0, 8.5, 9.0, 9.5, 10.0))
        assert derived.clevr_distance({"objects": objects}) == expected

    def kitti(kinds, depths):
        location = [[0.0, 0.0, z] for z in depths]
        return derived.kitti_distance({"objects": {"type": kinds, "location": location}})

    assert kitti([0, 3], [7.0, 1.0]) == 0  # the pedestrian at 1 m is no vehicle
    assert kitti([2, 0], [30.0, 19.0]) == 1
    assert kitti([1], [20.5]) == 2
    assert kitti([4, 7], [3.0, 3.0]) == 3
    assert kitti([], []) == 3
    x = [derived.dsprites_x({"label_x_position": i}) for i in range(32)]
    assert np.bincount(x).tolist() == [2] * 16
    o = [derived.dsprites_orientation({"label_orientation": i}) for i in range(40)]
    assert (len(set(o)), o[0], o[39], o[2], o[3]) == (16, 0, 15, 0, 1)

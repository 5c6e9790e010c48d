"""Measures against loops, other libraries and small cases known by hand."""

import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from vprompt_jax.measures import calibration, compare, table
from vprompt_jax.measures.split import measured
from vprompt_jax.measures.table import Predictions
from vprompt_jax.process.errors import UserError

NAMES = tuple("abcdefghijklmno")


@pytest.fixture(scope="module")
def drawn():
    """Logits [300, 15] of which about half are right, twice, and labels that leave out a class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 14, 300)
    logits = rng.normal(size=(300, 15)).astype(np.float32)
    logits[np.arange(300), labels] += 1.5
    return logits, labels, (logits + rng.normal(size=(300, 15))).astype(np.float32)


def test_a_split_is_measured_as_a_loop_does(drawn):
    logits, labels, before = drawn
    found = measured(logits, labels, NAMES, temperature=2.0, zero_shot=before)
    powers = np.exp(logits.astype(np.float64))
    p = powers / powers.sum(1, keepdims=True)
    hits, top5, losses, confusion = [], [], [], np.zeros((15, 15), int)
    for row, label in zip(p, labels, strict=True):
        order = sorted(range(15), key=lambda c: -row[c])
        hits.append(order[0] == label)
        top5.append(label in order[:5])
        losses.append(-np.log(row[label]))
        confusion[label, order[0]] += 1
    assert found["images"] == 300
    assert found["accuracy"] == np.mean(hits)
    assert found["top5_accuracy"] == np.mean(top5)
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    np.testing.assert_array_equal(found["confusion"], confusion)
    for label, row in enumerate(found["by_class"]):
        mine = [h for h, own in zip(hits, labels, strict=True) if own == label]
        assert row["class"] == NAMES[label]
        assert row["images"] == len(mine)
        assert row["accuracy"] == (np.mean(mine) if mine else None)
    assert found["by_class"][14]["zero_shot_accuracy"] is None  # without images
    error = 0.0
    for b in range(15):
        inside = [i for i in range(300) if b / 15 < p[i].max() <= (b + 1) / 15]
        if inside:
            said, right = np.mean([p[i].max() for i in inside]), np.mean([hits[i] for i in inside])
            error += len(inside) / 300 * abs(said - right)
    assert found["calibration_error"] == pytest.approx(error, rel=1e-6)
    others = before.argmax(1) == labels
    assert found["against_zero_shot"]["difference"] == pytest.approx(
        np.mean(hits) - np.mean(others)
    )


def test_what_cannot_be_measured_is_none(drawn):
    logits, labels, _ = drawn
    found = measured(logits[:, :8], labels % 8, NAMES[:8], temperature=None, zero_shot=None)
    for name in ("top5_accuracy", "calibration_error_scaled", "against_zero_shot"):
        assert found[name] is None


def test_the_temperature_is_the_one_of_least_loss():
    """Logits three times as large as the probabilities that drew the labels ask for three."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 4))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    found = calibration.fitted_temperature(3 * logits, labels)
    assert found == pytest.approx(3, rel=0.05)
    least = calibration.loss(3 * logits, labels, found)
    for other in (0.9, 1.1):
        assert least < calibration.loss(3 * logits, labels, other * found)


@pytest.mark.parametrize("confidence, hits, error", [
    ([1.0, 1.0], [True, False], 0.5),
    ([0.5, 0.5], [True, False], 0.0),
    ([0.9, 0.1], [False, True], 0.9),
    ([1 / 15, 1 / 15 + 1e-9], [True, True], 14 / 15),  # the edge belongs to the lower bin
])  # fmt: skip
def test_calibration_error_by_hand(confidence, hits, error):
    found = calibration.calibration_error(np.array(confidence), np.array(hits))
    assert found == pytest.approx(error, abs=1e-6)


def test_the_interval_is_that_of_drawn_resamples():
    hits = np.arange(200) < 150
    drawn = np.random.default_rng(0).choice(hits, (20_000, 200)).mean(1)
    expected = np.percentile(drawn, (2.5, 97.5))
    np.testing.assert_allclose(compare.interval(hits), expected, atol=0.006)


def test_a_comparison_by_hand():
    """Five images won and one lost: p is the share of 64 equally likely splits as uneven."""
    ours = np.array([True] * 5 + [False] + [True] * 14)
    theirs = np.array([False] * 5 + [True] + [True] * 14)
    found = compare.compare(ours, theirs)
    assert found.difference == pytest.approx(4 / 20)
    uneven = sum(sum(split) in (0, 1, 5, 6) for split in itertools.product((0, 1), repeat=6))
    assert found.p == pytest.approx(uneven / 64)
    drawn = np.random.default_rng(3).integers(0, 20, (20_000, 20))
    resampled = (ours[drawn].astype(int) - theirs[drawn]).mean(1)
    np.testing.assert_allclose(found.interval, np.percentile(resampled, (2.5, 97.5)), atol=0.051)


def test_equal_classifiers_do_not_differ():
    found = compare.compare(np.array([True, False]), np.array([True, False]))
    assert vars(found) == {"difference": 0.0, "interval": (0.0, 0.0), "p": 1.0}


def test_chance_alone_is_rarely_called_a_difference():
    """Of two classifiers that are equally good, p falls below 0.05 in at most that share."""
    rng = np.random.default_rng(0)
    values = [
        compare.compare(rng.random(100) < 0.7, rng.random(100) < 0.7).p for _ in range(400)
    ]  # fmt: skip
    assert np.mean(np.array(values) < 0.05) < stats.binom.ppf(0.999, 400, 0.05) / 400


def test_the_table_has_a_row_per_image(drawn, tmp_path):
    logits, labels, before = drawn
    keys = [f"photo{i}.jpg" for i in range(299)] + ["caf\udce9.jpg"]  # no UTF-8
    by_split = {
        "test": Predictions(keys, labels, logits, before),
        "val": Predictions(keys[:9], labels[:9], logits[:9], None),
    }
    table.write(tmp_path / table.NAME, by_split, None, NAMES)
    assert pq.read_table(tmp_path / table.NAME).num_rows == 309
    rows = table.read(tmp_path, "test")
    assert list(rows["image"][:2]) == ["photo0.jpg", "photo1.jpg"]
    assert "\udce9" not in rows["image"][-1]
    assert list(rows["label"]) == [NAMES[i] for i in labels]
    assert list(rows["predicted"]) == [NAMES[i] for i in logits.argmax(1)]
    assert list(rows["zero_shot"]) == [NAMES[i] for i in before.argmax(1)]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(rows["probability"], p.max(1), rtol=1e-5)
    np.testing.assert_allclose(rows["probability_of_label"], p[np.arange(300), labels], rtol=1e-5)
    assert set(rows["probability_scaled"]) == {None}  # nothing was fitted
    assert set(table.read(tmp_path, "val")["zero_shot"]) == {None}
    assert table.read(tmp_path, "train") is None
    assert table.read(tmp_path / "elsewhere", "test") is None


def test_a_damaged_table_is_one_message(tmp_path):
    (tmp_path / table.NAME).write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(UserError, match=r"predictions.parquet is damaged .* delete it"):
        table.read(tmp_path, "test")

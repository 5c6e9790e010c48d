"""What is no result: numbers that are not finite, a run that only warms up, other data."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vprompt_jax as vp
from vprompt_jax.config import resolve
from vprompt_jax.data.arrays import from_arrays
from vprompt_jax.launching.launch import launch
from vprompt_jax.process import finite
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import final, fit, training, validation
from vprompt_jax.train.evaluate import evaluate, evaluate_all

WEIGHT = ("params", "visual", "resblocks_1", "mlp", "c_fc", "bias")


def few_images(config, per_class: int = 8):
    """Makes runs of a tenth of a second: two steps per epoch."""
    config.data.few_shot = per_class
    config.optim.batch_size = 40
    config.optim.epochs = 1
    config.optim.warmup_steps = 1
    return config


@pytest.fixture
def nan_weight(monkeypatch):
    """Puts a NaN into one weight of whatever tower a run loads, after loading."""

    def load(config):
        clip, variables = vp.adaptation.load_clip(config)
        variables = jax.tree.map(np.array, variables)
        leaf = variables
        for name in WEIGHT:
            leaf = leaf[name]
        leaf[0] = np.nan
        return clip, variables

    monkeypatch.setattr(training, "load_clip", load)
    return "visual.resblocks_1.mlp.c_fc.bias (1 numbers)"


@pytest.mark.parametrize(
    "method, epochs", [("vp", 1), ("vp", 10), ("tp", 1), ("linear", 1), ("norm", 1)]
)
def test_weights_that_are_not_finite_end_a_run_by_their_name(
    tiny_config, tmp_path, capsys, nan_weight, method, epochs
):
    c = few_images(tiny_config)
    c.method.name, c.optim.epochs = method, epochs  # of two steps: 2 and 20
    with pytest.raises(SystemExit) as stop:
        launch(c, str(tmp_path / "run"))
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert "not finite" in message
    assert nan_weight in message
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("protocol", ["val", "paper"])
def test_a_run_all_of_whose_steps_were_undone_is_no_result(tiny_config, tmp_path, protocol):
    c = few_images(tiny_config)
    c.protocol = protocol
    c.method.name, c.prompt.learning_rate = "vp", 1e30
    with pytest.raises(UserError, match=r"all 2 steps of the run had .* not finite.*\n.*prompt"):
        fit(c, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("name", ["val", "test"])
def test_logits_that_are_not_finite_name_their_split(tiny_config, tmp_path, monkeypatch, name):
    """Weights and training images are fine; what is evaluated overflows."""
    c = few_images(tiny_config)
    c.method.name = "vp"

    def overflowing(on_batch, batch):
        sums, logits, index = on_batch(batch)
        return sums, logits.at[0, 0].set(np.inf), index

    def broken(on_batch, batches):
        return evaluate(functools.partial(overflowing, on_batch), batches)

    def all_broken(steps, batches):
        return evaluate_all([functools.partial(overflowing, s) for s in steps], batches)

    if name == "val":
        monkeypatch.setattr(validation, "evaluate", broken)
    else:
        monkeypatch.setattr(final, "evaluate_all", all_broken)
    message = (
        rf"the {name} split: the logits of .* not finite: the weights are finite.*lower config"
    )
    with pytest.raises(UserError, match=message):
        fit(c, tmp_path / "run")


@pytest.fixture
def photos(tmp_path):
    """Two classes of a dozen small photographs each."""
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            draw(tmp_path / "photos" / name / f"{i}.bmp", rng)  # all files have one size
    return tmp_path / "photos"


def draw(path, rng):
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)


def photo_config(config, photos):
    config.data.few_shot = None
    config.data.source, config.data.dir = "folder", str(photos)
    config.data.test_fraction, config.data.val_fraction = 0.3, 0.2
    config.method.name = "vp"
    config.optim.batch_size, config.optim.epochs, config.optim.warmup_steps = 40, 1, 0
    return config


def manifest_of(photos):
    path = photos.parent / "list.csv"
    rows = [
        f"photos/{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(photos.rglob("*.bmp"))
    ]
    path.write_text("\n".join(["path,label", *rows]) + "\n")
    return path


@pytest.mark.parametrize("source", ["folder", "manifest"])
def test_a_finished_run_is_that_of_its_photographs_alone(
    tiny_config, tmp_path, photos, capsys, source
):
    c = photo_config(tiny_config, photos)
    if source == "manifest":
        c.data.source, c.data.dir = "manifest", str(manifest_of(photos))
    first = fit(c, tmp_path / "run")
    assert len(first["dataset_contents"]) == 64
    assert fit(c, tmp_path / "run") == first
    for path in photos.rglob("*.bmp"):  # other times, the same photographs
        path.touch()
    assert fit(c, tmp_path / "run") == first
    capsys.readouterr()

    kept = (photos / "left" / "0.bmp").read_bytes()
    draw(photos / "left" / "0.bmp", np.random.default_rng(1))
    with pytest.raises(UserError, match=r"run on other data: other images under the same names\n"
                       r"choose another --workdir"):  # fmt: skip
        fit(c, tmp_path / "run")
    (photos / "left" / "0.bmp").write_bytes(kept)
    assert fit(c, tmp_path / "run") == first

    draw(photos / "left" / "new.bmp", np.random.default_rng(2))
    if source == "manifest":
        manifest_of(photos)
    with pytest.raises(UserError, match=r"on other data: (train|val|test) \d+ -> \d+ images"):
        fit(c, tmp_path / "run")
    (photos / "left" / "new.bmp").unlink()
    (photos / "left" / "1.bmp").unlink()
    if source == "folder":
        with pytest.raises(UserError, match=r"on other data: .*-> \d+ images"):
            fit(c, tmp_path / "run")
    else:  # the list names a file that is gone
        with pytest.raises(UserError, match=r"data have changed since: (.|\n)*1\.bmp"):
            fit(c, tmp_path / "run")
    assert capsys.readouterr().out == ""

    moved = photos.parent / "elsewhere"
    photos.rename(moved)
    if source == "manifest":
        (tmp_path / "list.csv").unlink()
    assert fit(c, tmp_path / "run") == first
    assert "cannot be read any more" in capsys.readouterr().err


def test_a_damaged_photograph_added_to_a_finished_run_is_named(tiny_config, tmp_path, photos):
    c = photo_config(tiny_config, photos)
    fit(c, tmp_path / "run")
    (photos / "left" / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"data have changed since: (.|\n)*bad\.png"):
        fit(c, tmp_path / "run")


def test_a_save_of_other_photographs_is_not_continued(tiny_config, tmp_path, photos):
    c = photo_config(tiny_config, photos)
    fit(c, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()  # as if it had been stopped
    draw(photos / "left" / "0.bmp", np.random.default_rng(1))
    with pytest.raises(UserError, match=r"of another run:\n +data: .*SHA-256"):
        fit(c, tmp_path / "run")


def test_results_of_earlier_versions_are_compared_as_far_as_they_go(tiny_config, tmp_path, photos):
    c = photo_config(tiny_config, photos)
    result = fit(c, tmp_path / "run")
    del result["dataset_contents"]
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    assert fit(c, tmp_path / "run") == result
    draw(photos / "left" / "new.bmp", np.random.default_rng(2))
    with pytest.raises(UserError, match="on other data"):
        fit(c, tmp_path / "run")


def test_images_given_in_python_are_compared_as_a_whole(tiny_config, tmp_path):
    """Six hundred images, of which one pixel of one changes: no sample would see it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (600, 8, 8, 3), np.uint8)
    labels = np.arange(600) % 2
    c = tiny_config
    c.data.few_shot, c.method.name = None, "vp"
    c.optim.epochs, c.optim.warmup_steps = 1, 0
    first = vp.fit(c, from_arrays(images, labels, ["a", "b"]), tmp_path / "run")
    again = vp.fit(c, from_arrays(images.copy(), labels, ["a", "b"]), tmp_path / "run")
    assert again.result == first.result
    changed = images.copy()
    changed[301, 3, 3, 1] ^= 1
    for other in (
        from_arrays(changed, labels, ["a", "b"]),
        from_arrays(images, labels[::-1], ["a", "b"]),
        from_arrays(images, labels, ["a", "c"]),
        from_arrays(images.reshape(600, 4, 16, 3), labels, ["a", "b"]),
    ):
        with pytest.raises(UserError, match="choose another --workdir"):
            vp.fit(c, other, tmp_path / "run")


def test_tfds_is_compared_by_its_version(tiny_config, tmp_path, monkeypatch):
    from vprompt_jax.data import tfds_source
    from vprompt_jax.train import recheck

    c = tiny_config
    c.data.source, c.data.name = "tfds", "cifar10"
    result = {"dataset_contents": "cifar10/3.0.2"}
    monkeypatch.setattr(tfds_source, "builder", lambda *_: None)
    monkeypatch.setattr(tfds_source, "version", lambda _: "cifar10/3.0.2")
    recheck.check(resolve(c), result, tmp_path)
    monkeypatch.setattr(tfds_source, "version", lambda _: "cifar10/4.0.0")
    with pytest.raises(UserError, match=r"on other data: cifar10/3\.0\.2 -> cifar10/4\.0\.0"):
        recheck.check(resolve(c), result, tmp_path)


def test_a_warm_up_left_open_fits_the_run(tiny_config, tmp_path, capsys):
    c = few_images(tiny_config)
    c.method.name, c.prompt.learning_rate = "vp", 4.0
    c.optim.warmup_steps, c.optim.epochs = None, 25
    assembled = training.assemble(resolve(c))
    assert (assembled.steps, assembled.warmup) == (50, 5)
    rates = [float(assembled.learning_rates(jnp.int32(step))["prompt"]) for step in (0, 4, 49)]
    assert rates[:2] == pytest.approx([4.0 / 5, 4.0])
    assert rates[2] < 0.02
    c.optim.epochs = 2
    result = fit(c, tmp_path / "run")
    assert result["warmup_steps"] == 0
    assert "warm-up shortened to 0 of 4 steps" in capsys.readouterr().err
    assert training.warmup_of(resolve(c), 9_999) == 999
    assert training.warmup_of(resolve(c), 200_000) == 1000  # VP's


def test_a_warm_up_as_long_as_the_run_is_refused(tiny_config, tmp_path):
    c = few_images(tiny_config)
    c.optim.epochs, c.optim.warmup_steps = 2, 4
    with pytest.raises(
        UserError, match=r"warmup_steps=4, but the run has 4 steps.*warmup_fraction"
    ):
        fit(c, tmp_path / "run")
    c.optim.warmup_steps = 3
    assert fit(c, tmp_path / "three")["warmup_steps"] == 3
    c.optim.warmup_steps, c.optim.warmup_fraction = 1000, 0.5
    assert fit(c, tmp_path / "half")["warmup_steps"] == 2
    c.method.name = "tp"  # no steps, no warm-up
    assert fit(c, tmp_path / "tp")["warmup_steps"] == 0


def test_the_papers_warm_up_is_its_own(tiny_path):
    from configs.adaviprompt_cifar10 import get_config

    config = resolve(get_config())
    assert training.warmup_of(config, 196_000) == 1000
    assert training.warmup_of(config, 5_000) == 1000


def test_finite_names_what_is_not():
    tree = {"a": np.array([1.0, np.nan]), "b": {"c": np.array([np.inf, np.nan]), "d": np.arange(3)}}
    assert finite.not_finite(tree) == {"a": 1, "b.c": 2}
    assert finite.not_finite(None) == {}
    with pytest.raises(finite.NotFinite, match="logits are not finite for 1 of 2"):
        finite.check("logits", np.array([[1.0, 2.0], [3.0, np.nan]]))
    finite.check("logits", np.zeros((0, 3)))


def test_evaluation_counts_what_is_not_finite():
    """A batch is its number and how many of its four images overflow; the fifth is padding."""

    def on_batch(batch, loss=1.0):
        number, bad = batch
        logits = np.arange(5.0)[:, None] + np.array([[0.0, 10.0 * number]])
        logits[:bad, 1] = -np.inf
        index = np.array([4 * number, -1, *range(4 * number + 1, 4 * number + 4)])
        return {"loss": loss, "accuracy": 1.0, "count": 4.0}, logits, index

    found = evaluate(on_batch, [(0, 0), (1, 0)])
    assert found.metrics == {"loss": 0.25, "accuracy": 0.25}
    np.testing.assert_array_equal(found.logits[:, 0], [0, 2, 3, 4, 0, 2, 3, 4])
    np.testing.assert_array_equal(found.logits[:, 1], [0, 2, 3, 4, 10, 12, 13, 14])
    with pytest.raises(finite.NotFinite, match="logits of 2 of 8 images"):
        evaluate(on_batch, [(0, 1), (1, 1)])
    with pytest.raises(finite.NotFinite, match="the loss is not finite"):
        evaluate(lambda batch: on_batch(batch, math.nan), [(0, 0)])


def test_several_are_evaluated_in_one_pass():
    """Each gives what it gives alone, and each batch is fetched once."""

    def giving(sign):
        def on_batch(batch):
            loss = np.float32(sign * batch)
            logits = np.full((2, 3), sign * batch, np.float32)
            return {"loss": loss, "count": np.float32(2)}, logits, 2 * batch + np.arange(2)

        return on_batch

    fetched = []

    def batches():
        for batch in (1, 0):
            fetched.append(batch)
            yield batch

    both = evaluate_all([giving(1), giving(-1)], batches())
    assert fetched == [1, 0]
    for found, sign in zip(both, (1, -1), strict=True):
        alone = evaluate(giving(sign), [1, 0])
        assert found.metrics == alone.metrics == {"loss": 0.25 * sign}
        np.testing.assert_array_equal(found.logits, alone.logits)
        np.testing.assert_array_equal(found.logits[:, 0], [0, 0, sign, sign])

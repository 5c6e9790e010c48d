"""What may be passed as images, and that nothing else is taken for images."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from PIL import Image

import vprompt_jax as vp
from tests.conftest import small_config
from vprompt_jax.export import files as export
from vprompt_jax.inference.images import batch_of
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit


@pytest.fixture(scope="module")
def adapted(tiny_path, tmp_path_factory):
    c = small_config(tiny_path)
    c.data.few_shot, c.optim.batch_size, c.optim.epochs, c.optim.warmup_steps = 4, 40, 1, 0
    workdir = tmp_path_factory.mktemp("run")
    fit(c, workdir)
    return vp.load(workdir)


@pytest.fixture(scope="module")
def exported(adapted, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    export.write(adapted, out)
    return export.load(out)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.fixture(params=["adapted", "exported"])
def model(request):
    """A run as it is and as an export of it."""
    return request.getfixturevalue(request.param)


def test_the_same_images_in_every_form(model, images, tmp_path):
    expected = model.logits(images)
    assert expected.shape == (4, 10)
    paths = []
    for i, pixels in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    pictures = [Image.fromarray(pixels) for pixels in images]
    mixed = [images[0], pictures[1], paths[2], str(paths[3])]
    for form in (list(images), tuple(pictures), paths, mixed, jax.numpy.asarray(images)):
        np.testing.assert_array_equal(model.logits(form), expected)
    alone = model.logits(images[:1])
    for one in (images[0], pictures[0], paths[0], str(paths[0]), [pictures[0]]):
        given = model.logits(one)
        assert given.shape == (1, 10)  # a batch of one
        np.testing.assert_array_equal(given, alone)
        np.testing.assert_array_equal(model.probabilities(one), model.probabilities(images[:1]))


def test_images_of_different_sizes_are_decoded_as_in_training(model, images, tmp_path):
    from vprompt_jax.clip.preprocess import resize_and_crop

    wide = Image.fromarray(images[0]).resize((70, 45))
    deep = Image.fromarray(
        (np.arange(1200, dtype=np.uint32) * 50).astype(np.uint16).reshape(30, 40)
    )
    path = tmp_path / "deep.png"
    deep.save(path)  # 16-bit grey
    expected = np.stack([resize_and_crop(x, 32) for x in (wide, images[1], deep)])
    given = batch_of([wide, images[1], path], 32)
    np.testing.assert_array_equal(given, expected)
    np.testing.assert_array_equal(
        model.logits([np.asarray(wide), images[1], path]), model.logits(expected)
    )


def test_one_channel_stands_for_three(model, images):
    grey = images[..., :1]
    np.testing.assert_array_equal(model.logits(grey), model.logits(np.repeat(grey, 3, -1)))


def test_no_images_have_no_labels(adapted, exported, images):
    for model in (adapted, exported):
        for nothing in ([], (), images[:0], np.zeros((0, 50, 20, 3), np.uint8)):
            assert model.logits(nothing).shape == (0, 10)
            assert model.probabilities(nothing).shape == (0, 10)
    assert adapted.predict([]) == []
    shown = adapted.inspect([])
    like = adapted.inspect(images[:2])
    assert {k: v.shape for k, v in shown.items()} == {k: (0, *v.shape[1:]) for k, v in like.items()}


BAD = {
    "floats": np.zeros((2, 32, 32, 3), np.float32),
    "integers": np.zeros((2, 32, 32, 3), int),
    "bools": np.zeros((2, 32, 32, 3), bool),
    "four channels": np.zeros((2, 32, 32, 4), np.uint8),
    "channels first": np.zeros((2, 3, 32, 32), np.uint8),
    "no channels": np.zeros((32, 32), np.uint8),
    "five axes": np.zeros((1, 2, 32, 32, 3), np.uint8),
    "no pixels": np.zeros((2, 0, 32, 3), np.uint8),
    "a number": 3,
    "nothing": None,
    "batches in a list": [np.zeros((2, 32, 32, 3), np.uint8)],
    "floats in a list": [np.zeros((32, 32, 3), np.float32)],
    "a float image": np.zeros((32, 32, 3), np.float64),
    "a list in a list": [[np.zeros((32, 32, 3), np.uint8)]],
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_refused_with_what_to_pass(adapted, exported, name):
    calls = [
        *(getattr(adapted, call) for call in ("logits", "probabilities", "predict", "inspect")),
        *(getattr(exported, call) for call in ("logits", "probabilities")),
    ]
    for call in calls:
        with pytest.raises(UserError, match=r"give uint8 \[B, h, w, 3\] or \[h, w, 3\].*path"):
            call(BAD[name])


def test_a_refusal_says_what_was_given(adapted):
    with pytest.raises(UserError, match=re.escape("the images are float32 [2, 32, 32, 3]: give")):
        adapted.logits(BAD["floats"])
    with pytest.raises(UserError, match=re.escape("image 0 of the list is float32 [32, 32, 3]")):
        adapted.logits(BAD["floats in a list"])


def test_files_that_cannot_be_decoded_are_named(adapted, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.png"):
        adapted.predict([tmp_path / "empty.png"])
    with pytest.raises(UserError, match=r"gone\.png"):
        adapted.predict(tmp_path / "gone.png")


@pytest.mark.parametrize("bad", [
    np.zeros((32, 32, 3), np.float32), np.zeros((2, 32, 32, 3), np.uint8),
    np.zeros((32, 32, 4), np.uint8), np.zeros((32, 32, 3), int), None,
])  # fmt: skip
def test_preprocess_takes_pil_or_grey_levels_alone(bad):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(
        vp.clip.preprocess(pixels, 16), vp.clip.preprocess(Image.fromarray(pixels), 16)
    )
    with pytest.raises(UserError, match=r"give a PIL image, or one image as uint8 \[h, w, 3\]"):
        vp.clip.preprocess(bad, 16)


def test_logits_that_are_not_finite_label_nothing(adapted, images, capsys, tmp_path):
    from vprompt_jax.inference.adapted import Adapted
    from vprompt_jax.predict import __main__ as predict

    frozen = jax.tree.map(np.array, jax.device_get(adapted.adaptation.frozen))
    frozen["params"]["clip"]["visual"]["proj"][0] = np.nan
    broken = Adapted(
        dataclasses.replace(adapted.adaptation, frozen=frozen),
        adapted.params, adapted.assigned, adapted.result,
    )  # fmt: skip
    for call in (broken.logits, broken.probabilities, broken.predict):
        with pytest.raises(UserError, match=r"logits are not finite for 4 of 4.*visual\.proj"):
            call(images)
    export.write(broken, tmp_path / "broken")
    Image.fromarray(images[0]).save(tmp_path / "0.png")
    with pytest.raises(SystemExit) as stop:
        predict.main(["--workdir", str(tmp_path / "broken"), str(tmp_path / "0.png")])
    assert stop.value.code == 1
    shown = capsys.readouterr()
    assert "%" not in shown.out
    assert "not finite" in shown.err

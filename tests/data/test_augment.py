"""Augmentation: against Pillow, keyed per example, and inside the train step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vprompt_jax import config as config_lib
from vprompt_jax.data import pipeline
from vprompt_jax.data.augment import augment, crop_box, resized_crop
from vprompt_jax.parts import keys
from vprompt_jax.process import parallel
from vprompt_jax.train import step, training


def example_keys(indices):
    return keys.per_example(jax.random.key(3), jnp.asarray(indices))


def images(count, height=20, width=30):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_half_of_the_images_are_flipped_and_nothing_else():
    x = images(200)
    out = np.asarray(augment(x, example_keys(range(200)), "flip"))
    same = (out == x).all((1, 2, 3))
    flipped = (out == x[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ flipped).all()
    assert 75 <= flipped.sum() <= 125
    assert augment(x, example_keys(range(200)), "none") is x


def test_an_examples_crop_does_not_depend_on_its_batch():
    x = images(6)
    crop = jax.jit(augment, static_argnums=2)
    whole = np.asarray(crop(x, example_keys(range(6)), "flip_crop"))
    order = [4, 1, 0, 2, 5, 3]
    moved = np.asarray(crop(x[order], example_keys(order), "flip_crop"))
    np.testing.assert_array_equal(moved, whole[order])
    assert not (whole == x).all((1, 2, 3)).any()
    assert whole.min() >= 0
    assert whole.max() <= 255
    np.testing.assert_array_equal(whole, np.round(whole))


def test_boxes_are_inside_and_of_the_stated_areas():
    boxes = np.asarray(jax.jit(jax.vmap(crop_box))(jax.random.split(jax.random.key(0), 2000)))
    assert boxes.min() >= 0
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= 1 + 1e-6
    area, aspect = boxes[:, 2] * boxes[:, 3], boxes[:, 3] / boxes[:, 2]
    inside = (boxes[:, 2:] < 1).all(1)  # where no side was cut
    assert 0.499 < area[inside].min() < 0.52
    assert 0.97 < area[inside].max() <= 1
    assert aspect.min() >= 0.749
    assert aspect.max() <= 1.334


@pytest.mark.parametrize("box", [(0.1, 0.25, 0.5, 0.7), (0, 0, 1, 1), (0.4, 0, 0.6, 1)])
def test_crops_agree_with_pillow_within_one_grey_level(box):
    image = images(1)[0]
    image[:10] = np.linspace(0, 255, 30, dtype=np.uint8)[None, :, None]
    top, left, height, width = box
    edges = (30 * left, 20 * top, 30 * (left + width), 20 * (top + height))
    pillow = Image.fromarray(image).resize((30, 20), Image.Resampling.BILINEAR, box=edges)
    ours = np.round(resized_crop(jnp.asarray(image, jnp.float32), jnp.array(box, jnp.float32)))
    assert np.abs(np.asarray(ours) - np.asarray(pillow, np.float32)).max() <= 1


@pytest.mark.slow  # two train steps to compile
def test_the_train_step_augments_with_its_own_keys(tiny_config):
    tiny_config.method.name = "vp"
    tiny_config.optim.batch_size = 8
    run = training.assemble(config_lib.resolve(tiny_config))
    stream = pipeline.train_batches(
        run.dataset.train, batch_size=8, epochs=1, seed=0, start=0, workers=1
    )
    batch = next(stream)

    adaptation = run.adaptation
    steps = {
        kind: step.make_train_step(
            adaptation.model,
            run.optimizer(),
            run.values,
            weights=adaptation.weights,
            augmentation=kind,
        )
        for kind in ("none", "flip")
    }

    def loss(kind, batch):
        sent = parallel.to_devices(batch)
        _, sums = steps[kind](run.initial_state(), adaptation.frozen, run.root, sent)
        return float(sums["loss"])

    drawn = jax.random.fold_in(keys.stream(run.root, "augment"), 0)
    flat = batch["image"].reshape(-1, *batch["image"].shape[2:])
    flipped = augment(flat, keys.per_example(drawn, batch["index"].ravel()), "flip")
    by_hand = {**batch, "image": np.asarray(flipped, np.uint8).reshape(batch["image"].shape)}
    assert 0 < (by_hand["image"] != batch["image"]).any((2, 3, 4)).sum() < 8
    assert loss("flip", batch) == pytest.approx(loss("none", by_hand), rel=1e-6)

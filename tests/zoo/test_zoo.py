"""The mini CLIPs that ship: what their JSON says, and how they are made."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import vprompt_jax as vp
from vprompt_jax.clip.checkpoints.locate import ZOO
from vprompt_jax.data import folder
from vprompt_jax.zoo import glyphs, images, pretrain, steps
from vprompt_jax.zoo.recipe import TOWERS, Recipe, flipped, moved, plain


@pytest.fixture(scope="module")
def unseen():
    """Other renderings than those of the JSONs' numbers, and fewer."""
    return images.Labelled(*glyphs.render_set(480, glyphs.HELD_OUT_FONTS, seed=77))


@pytest.mark.parametrize("tower", ["rn", "vit"])
def test_a_shipped_model_is_the_one_its_json_describes(tower, unseen):
    name = f"mini-clip-{tower}"
    notes = json.loads((ZOO / f"{name}.json").read_text())
    clip, variables = vp.clip.load(name)
    assert clip.config == vp.clip.CLIPConfig.from_json(notes["clip"]) == TOWERS[tower]
    assert notes["glyphs"] == list(glyphs.CLASSES)
    assert len(notes["photograph_classes"]) == 200
    vectors = pretrain.zero_shot_vectors(clip.config, variables, glyphs.CLASSES)
    measured = pretrain.accuracy(clip.config, variables, vectors, unseen)
    assert abs(measured - notes["accuracy"]["unseen_renderings"]) < 0.06


def test_all_weights_are_small():
    files = list(ZOO.glob("*.safetensors"))
    assert len(files) == 3  # two image towers and one text tower
    assert sum(path.stat().st_size for path in files) < 12e6


def test_the_towers_share_their_texts():
    texts = [vp.clip.load(f"mini-clip-{t}")[1]["params"]["text"] for t in TOWERS]
    jax.tree.map(np.testing.assert_array_equal, *texts)


def test_rendering_is_deterministic_and_covers_all_classes():
    a, labels = glyphs.render_set(64, glyphs.TRAIN_FONTS, seed=3)
    b, _ = glyphs.render_set(64, glyphs.TRAIN_FONTS, seed=3)
    np.testing.assert_array_equal(a, b)
    assert set(labels) == set(range(len(glyphs.CLASSES)))
    assert not set(glyphs.HELD_OUT_FONTS) & set(glyphs.TRAIN_FONTS)


def test_the_vit_sees_one_polarity_first_then_scenes():
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    shown = np.asarray(plain(x))
    np.testing.assert_allclose(shown, plain(-x), atol=1e-5)  # dark on bright, bright on dark
    np.testing.assert_allclose(shown.max((1, 2, 3)), 2.0, rtol=1e-6)
    assert (shown >= -1).all()
    assert (shown == shown[..., :1]).all()
    recipe = Recipe(steps=1000, plain_fraction=0.2, ramp_fraction=0.1)
    for step, scenes in {0: 0, 200: 0, 250: 0.5, 300: 1, 1000: 1}.items():
        np.testing.assert_allclose(recipe.scenes(step), scenes, atol=1e-6)
    assert Recipe().scenes(0) == 1


def test_images_are_moved_and_flipped_and_nothing_else():
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    wide = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    places = set()
    for image, source in zip(np.asarray(moved(jax.random.key(0), x, 2)), wide, strict=True):
        places |= {
            (i, j) for i in range(5) for j in range(5)
            if (source[i : i + 8, j : j + 8] == image).all()
        }  # fmt: skip
    assert len(places) > 15  # of 25; each image is at one of them
    mirrored = np.asarray(flipped(jax.random.key(0), x))
    is_same, is_flipped = ((mirrored == y).all((1, 2, 3)) for y in (x, x[:, :, ::-1]))
    assert (is_same ^ is_flipped).all()
    assert 16 < is_flipped.sum() < 48


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes with forty photographs each."""
    rng = np.random.default_rng(0)
    for name in ("n02124075", "my dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(40):
            image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
            image.save(tmp_path / "photos" / name / f"{i:02}.png")
    return tmp_path / "photos"


def test_one_photograph_in_twenty_of_each_class_is_kept_unseen(photos):
    got = images.photographs(photos)
    assert got.classes == ("my dog", "n02124075")
    assert [len(got.train.labels), len(got.unseen.labels)] == [76, 4]
    np.testing.assert_array_equal(np.bincount(got.unseen.labels), [2, 2])
    whole = folder.load(photos, 32, 2).train
    every = {image.tobytes() for image in whole.fetch(np.arange(80))}
    seen = {image.tobytes() for image in got.train.images}
    unseen = {image.tobytes() for image in got.unseen.images}
    assert seen | unseen == every
    assert not seen & unseen


@pytest.mark.slow
@pytest.mark.usefixtures("dtypes_promote")
def test_pretraining_continues_where_it_stopped(tmp_path, photos, monkeypatch):
    """A run cut in two exports the same weights as a whole one."""
    recipe = Recipe(
        renderings=1000, steps=4, text_steps=4, photos=6, glyphs=2, words=4, warmup_steps=1
    )
    pretrain.pretrain(recipe, photos, tmp_path / "whole", "m", save_every=2)

    class Cut(Exception):
        pass

    def cut_after_three(make):
        def made(*args):
            step, done = make(*args), []

            def limited(state):
                if len(done) == 3:
                    raise Cut
                done.append(1)
                return step(state)

            return limited

        return made

    for name in ("image_step", "text_step"):
        monkeypatch.setattr(steps, name, cut_after_three(getattr(steps, name)))
    (tmp_path / "parts").mkdir()
    for name in ("train.npz", "unseen.npz"):
        (tmp_path / "parts" / name).symlink_to(tmp_path / "whole" / name)
    for cut in (True, True, False):  # in the image tower's steps, then in the text tower's
        try:
            pretrain.pretrain(recipe, photos, tmp_path / "parts", "m", save_every=2)
            assert not cut
        except Cut:
            assert cut
            assert (tmp_path / "parts" / "image.msgpack").exists()
    trees = [
        vp.clip.load(tmp_path / n / "m.safetensors.index.json", activation="quick_gelu")[1]
        for n in ("whole", "parts")
    ]
    jax.tree.map(np.testing.assert_array_equal, *trees)

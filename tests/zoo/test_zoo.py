"""The mini CLIPs that ship: what their JSON says, and how they are made."""

import json

import jax
import numpy as np
import pytest

import vprompt_jax as vp
from vprompt_jax.clip.checkpoints.locate import ZOO
from vprompt_jax.zoo import glyphs, pretrain
from vprompt_jax.zoo.recipe import RECIPES, TOWERS, Recipe, plain


@pytest.fixture(scope="module")
def unseen():
    """Other renderings than those of the JSONs' numbers, and fewer."""
    return glyphs.render_set(480, glyphs.HELD_OUT_FONTS, seed=77)


@pytest.mark.parametrize("tower", ["rn", "vit"])
def test_a_shipped_model_is_the_one_its_json_describes(tower, unseen):
    name = f"mini-clip-{tower}"
    notes = json.loads((ZOO / f"{name}.json").read_text())
    clip, variables = vp.clip.load(name)
    assert clip.config == vp.clip.CLIPConfig.from_json(notes["clip"]) == TOWERS[tower]
    assert notes["classes"] == list(glyphs.CLASSES)
    assert notes["recipe"].items() >= RECIPES[tower].items()
    assert (ZOO / f"{name}.safetensors").stat().st_size < 12 * 2**20
    measured = pretrain.accuracy(clip.config, variables, *unseen)
    assert abs(measured - notes["accuracy_unseen_renderings"]) < 0.06


def test_the_towers_share_their_texts():
    texts = [vp.clip.load(f"mini-clip-{t}")[1]["params"]["text"] for t in TOWERS]
    jax.tree.map(np.testing.assert_array_equal, *texts)


def test_rendering_is_deterministic_and_covers_all_classes():
    a, labels = glyphs.render_set(64, glyphs.TRAIN_FONTS, seed=3)
    b, _ = glyphs.render_set(64, glyphs.TRAIN_FONTS, seed=3)
    np.testing.assert_array_equal(a, b)
    assert set(labels) == set(range(len(glyphs.CLASSES)))
    assert not set(glyphs.HELD_OUT_FONTS) & set(glyphs.TRAIN_FONTS)


def test_every_caption_fits_the_mini_text_tower():
    for glyph in glyphs.CLASSES:
        tokens = vp.clip.tokenize(glyphs.captions(glyph), TOWERS["rn"].text.context_length)
        assert len(np.unique(tokens, axis=0)) == len(tokens)


def test_the_vit_sees_one_polarity_first_then_scenes_then_distortions():
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    shown = np.asarray(plain(x))
    np.testing.assert_allclose(shown, plain(-x), atol=1e-5)  # dark on bright, bright on dark
    np.testing.assert_allclose(shown.max((1, 2, 3)), 2.0, rtol=1e-6)
    assert (shown >= -1).all()
    assert (shown == shown[..., :1]).all()
    recipe = Recipe(**RECIPES["vit"])  # plain for 2,400 steps, then 1,600 for each ramp
    stages = {s: tuple(map(float, recipe.stage(s))) for s in (2400, 3200, 4000, 4800, 8000)}
    expected = {2400: (0, 0), 3200: (0.5, 0), 4000: (1, 0), 4800: (1, 0.5), 8000: (1, 1)}
    for step, stage in stages.items():
        np.testing.assert_allclose(stage, expected[step], atol=1e-5)
    np.testing.assert_allclose(Recipe().stage(600), (1, 0.5), atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("dtypes_promote")
def test_pretraining_continues_where_it_stopped(tmp_path, monkeypatch):
    """A run cut in two exports the same weights as a whole one."""
    monkeypatch.setattr(pretrain, "accuracy", lambda *args: 0.0)
    recipe = Recipe(images=1000, steps=4, batch=8)
    pretrain.pretrain(recipe, tmp_path / "whole", "m", save_every=2)

    class Cut(Exception):
        pass

    make = pretrain.make_step

    def cut_after_three(*args):
        step, done = make(*args), []

        def limited(state):
            if len(done) == 3:
                raise Cut
            done.append(1)
            return step(state)

        return limited

    monkeypatch.setattr(pretrain, "make_step", cut_after_three)
    (tmp_path / "parts").mkdir()
    for name in ("train.npz", "unseen.npz"):
        (tmp_path / "parts" / name).symlink_to(tmp_path / "whole" / name)
    for _ in range(2):
        try:
            pretrain.pretrain(recipe, tmp_path / "parts", "m", save_every=2)
        except Cut:
            assert (tmp_path / "parts" / "state.msgpack").exists()
    trees = [vp.clip.load(tmp_path / n / "m.safetensors")[1] for n in ("whole", "parts")]
    jax.tree.map(np.testing.assert_array_equal, *trees)

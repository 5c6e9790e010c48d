"""A part from outside of the package: declared, trained, resumed, predicted with, exported."""

import dataclasses
import json

import flax.linen as nn
import jax
import numpy as np
import pytest

from vprompt_jax import methods, report
from vprompt_jax.config import default_config
from vprompt_jax.data import digits
from vprompt_jax.export import files as export
from vprompt_jax.inference.adapted import load
from vprompt_jax.methods import registry
from vprompt_jax.parts import Canvas, Context, Part, Surroundings
from vprompt_jax.process.errors import Interrupted
from vprompt_jax.schema import TrainedSection, key, learning_rate
from vprompt_jax.train import fit
from vprompt_jax.train.interrupt import Interrupts


# What its author writes, from here ...
class Tint(nn.Module):
    """A learned colour over every image."""

    @nn.compact
    def prompted(self, canvas: Canvas, context: Context) -> Canvas:
        colour = self.param("colour", nn.initializers.zeros, (3,))
        return canvas.replace(image=canvas.image + colour[None, None, None])


@dataclasses.dataclass(frozen=True, kw_only=True)
class TintSection(TrainedSection):
    """A colour."""

    strength: int = key(0, "0: none", low=0, high=1)
    learning_rate: float = learning_rate(0.5, "ours")


class TintPart(Part[TintSection]):
    """A learned colour over every image."""

    name = "tint"
    section = TintSection
    switch = "strength"
    side = "pixels"
    order = 10

    def build(self, section: TintSection, around: Surroundings) -> Tint:
        return Tint()


# ... to here; registering it takes one line, and so does a method.


@pytest.fixture
def tint(monkeypatch):
    monkeypatch.setattr(registry, "PARTS", list(registry.PARTS))
    registry.register(TintPart())
    monkeypatch.setitem(methods.METHODS, "tint", methods.row("a colour", tint__strength=1))


@pytest.mark.usefixtures("tint")
def test_a_part_from_outside_is_trained_resumed_predicted_with_exported_and_reported(
    tiny_path, tmp_path, monkeypatch
):
    config = default_config()
    config.model.checkpoint = str(tiny_path)
    config.method.name = "tint"
    config.data.few_shot = 8
    config.optim.batch_size, config.optim.epochs, config.optim.warmup_steps = 16, 2, 1
    whole = fit(config, tmp_path / "whole")
    assert whole["trainable_parameters_by_part"] == {"tint": 3}

    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "asked", lambda self, step: step == 3)
        with pytest.raises(Interrupted):
            fit(config, tmp_path / "resumed")
    fit(config, tmp_path / "resumed")
    adapted, resumed = load(tmp_path / "whole"), load(tmp_path / "resumed")
    colour = np.asarray(adapted.params["tint"]["colour"])
    assert np.abs(colour).max() > 0
    np.testing.assert_array_equal(resumed.params["tint"]["colour"], colour)

    images = digits.load().test.fetch(np.arange(4))
    assert set(adapted.predict(images)) <= set(adapted.class_names)
    export.write(adapted, tmp_path / "exported")
    again = export.load(tmp_path / "exported")
    np.testing.assert_array_equal(again.logits(images), adapted.logits(images))
    report.write([tmp_path / "whole"], tmp_path / "report")
    assert "tint" in (tmp_path / "report" / "table.md").read_text()
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["tint"]["strength"] == 1


def test_its_gradient_is_that_of_the_image(tint, tiny):
    """The colour's gradient is the sum of the image's, over examples and places."""
    clip, variables = tiny
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    module = Tint()
    context = Context(jax.random.key(0), np.zeros(2, np.int32))

    def loss(colour, x):
        canvas = module.apply({"params": {"colour": colour}}, Canvas(x), context, method="prompted")
        return (clip.apply(variables, canvas.result, method="encode_image") ** 2).sum()

    by_colour, by_image = jax.grad(loss, argnums=(0, 1))(np.zeros(3, np.float32), x)
    np.testing.assert_allclose(by_colour, by_image.sum((0, 1, 2)), rtol=1e-4)

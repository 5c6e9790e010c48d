"""Any parts together: each composition traces through the train step, or is refused in one line."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.adapters.conftest import RESNET, random_variables
from tests.conftest import TINY
from tests.test_properties import answer
from vprompt_jax.adaptation import adaptation as adaptation_lib
from vprompt_jax.adaptation.build import build, parts_of
from vprompt_jax.clip import CLIP
from vprompt_jax.config import default_config, resolve
from vprompt_jax.export import files as export
from vprompt_jax.inference import adapted
from vprompt_jax.methods import registry
from vprompt_jax.process.errors import Interrupted
from vprompt_jax.schema import keys as schema
from vprompt_jax.train import fit, step
from vprompt_jax.train.interrupt import Interrupts
from vprompt_jax.train.training import initial_state, optimizer_of

TOWERS = {
    "vit": dataclasses.replace(TINY, logit_bias=True),  # which the sigmoid head needs
    "resnet": RESNET,
    "supervised": dataclasses.replace(TINY, text=None, classes=12),
}
NAMES = ("cat", "dog", "owl", "fox", "bee")
DRAWS = 100  # per tower
# What a composition takes beside the switches: sizes that fit 32 pixels and short texts.
SIZES = {"prompt.size": 4, "prompt.rank": 2, "mask.region": 8, "mask.width": 4, "vpt.tokens": 2}
SIZES |= {"context.tokens": 3}
ON = {int: (2,), tuple: ((0,), (1,), (2,)), float: (0.5,)}  # by the type of a switch


def values_of(name: str) -> list[Any]:
    """Every value of the switch of a part's name, "off" first."""
    options = registry.alternatives(name)
    field = schema.fields(options[0].section)[options[0].switch]
    kinds = [kind for part in options for kind in part.kinds]
    on = kinds or [v for v in field.choices or ON[field.kind] if v != field.default]
    return [field.default, *(value for value in on if value != field.default)]


def drawn(rng: np.random.Generator, tower: str) -> dict[str, Any]:
    """A random composition, in which a part is on with a probability of 0.3.

    What a tower cannot have is drawn more seldom, so that most compositions have a chance.
    """
    keys = {}
    for name in registry.names():
        off, *on = values_of(name)
        side = registry.alternatives(name)[0].side
        likely = 0.3
        if tower == "supervised":
            likely = {"text": 0.05, "head": 0.95}.get(side, likely)
            if side == "head" and rng.random() < 0.8:
                on = [v for v in on if not registry.part_of(name, v).reads_texts]
        keys[_switch(name)] = on[rng.integers(len(on))] if rng.random() < likely else off
    keys["ap.shape"] = ("full", "channel")[rng.integers(2)]
    return keys


def config_of(keys: dict[str, Any]) -> Any:
    """A config with the switches as given, and sizes for the parts that are on."""
    config = default_config()
    config.method.name = "tp"
    config.update_from_flattened_dict(keys)
    for key, value in SIZES.items():
        name, field = key.split(".")
        part = registry.part_of(name, keys[_switch(name)])
        if part is not None and field in schema.fields(part.section):
            config.update_from_flattened_dict({key: value})
    if not keys["ap.positions"]:
        config.ap.shape = None
    return config


def _switch(name: str) -> str:
    return f"{name}.{registry.alternatives(name)[0].switch}"


def parts_on(keys: dict[str, Any]) -> list[Any]:
    """The declarations of the parts that a composition switches on."""
    found = (registry.part_of(name, keys[_switch(name)]) for name in registry.names())
    return [part for part in found if part is not None]


def traced(config: Any, tower: CLIP, variables: dict[str, Any]) -> dict[str, Any]:
    """Traces a train step and an evaluation; the parameters by part."""
    made = adaptation_lib.adapt(resolve(config), tower, variables, NAMES, ("a {}",))
    state = jax.eval_shape(lambda: initial_state(made, 10))
    values = {
        name: jnp.float32(1)
        for part in parts_of(made.config.parts)
        for name in part.schedules(made.config.parts[part.name])
    }
    optimizer = optimizer_of(made.config, 10)
    train = step.make_train_step(made.model, optimizer, lambda _: values, weights=made.weights)
    devices = jax.device_count()
    batch = {
        "image": jax.ShapeDtypeStruct((devices, 2, 32, 32, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((devices, 2), np.int32),
        "weight": jax.ShapeDtypeStruct((devices, 2), np.float32),
        "index": jax.ShapeDtypeStruct((devices, 2), np.int32),
    }
    root = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
    frozen = jax.eval_shape(lambda: made.frozen)
    if state.params:
        after, sums = jax.eval_shape(train, state, frozen, root, batch)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert sums["loss"].shape == ()
    return state.params


@pytest.mark.parametrize("name", TOWERS)
def test_random_compositions_trace_or_are_refused_in_one_line(name, monkeypatch):
    texts = np.random.default_rng(0).normal(size=(5, 1, 16)).astype(np.float32)
    monkeypatch.setattr(adaptation_lib, "encode_texts", lambda *_: texts)
    tower, variables = CLIP(TOWERS[name]), random_variables(TOWERS[name])
    rng = np.random.default_rng(0)
    seen, traces = set(), 0
    for _ in range(DRAWS):
        keys = drawn(rng, name)
        on = parts_on(keys)
        params, refusal = answer(traced, config_of(keys), tower, variables)
        if refusal:
            assert "\n" not in refusal, keys
            assert any(part.name in refusal for part in on), (keys, refusal)
            continue
        traces += 1
        assert set(params) == {part.name for part in on if part.trains}, keys
        seen |= set(params)
    assert traces >= DRAWS / 10
    assert len(seen) >= 5


@functools.cache
def compositions() -> list[dict[str, Any]]:
    """30 compositions that fit a ViT, of 120, each with the most pairs of parts not seen yet."""
    rng, pool = np.random.default_rng(1), []
    variables = random_variables(TINY)
    while len(pool) < 120:
        keys = drawn(rng, "vit")
        config = config_of(keys)
        _, refusal = answer(lambda c: build(resolve(c), CLIP(TINY), variables, len(NAMES)), config)
        if not refusal:
            pool.append(keys)
    chosen: list[dict[str, Any]] = []
    while len(chosen) < 30:
        covered = set().union(*map(pairs, chosen))
        chosen.append(max(pool, key=lambda keys, seen=covered: len(pairs(keys) - seen)))
    assert set().union(*map(pairs, chosen)) == set().union(*map(pairs, pool))
    return chosen


def pairs(keys: dict[str, Any]) -> set[tuple[str, str]]:
    """The pairs of parts that are on together."""
    return set(itertools.combinations(sorted(part.name for part in parts_on(keys)), 2))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(30))
def test_pairs_of_parts_train_resume_predict_and_export(number, tiny_path, tmp_path):
    config = config_of(compositions()[number])
    config.model.checkpoint = str(tiny_path)
    config.data.few_shot, config.optim.batch_size = 12, 40
    config.optim.epochs, config.optim.warmup_steps = 1, 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interrupts, "asked", lambda self, step: step == 2)
        with pytest.raises(Interrupted):
            fit(config, tmp_path / "parts")
    result = fit(config, tmp_path / "parts")
    assert result["steps"] == 3
    whole = fit(config, tmp_path / "whole")
    images = np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    model = adapted.load(tmp_path / "parts")
    logits = model.logits(images)
    np.testing.assert_array_equal(logits, adapted.load(tmp_path / "whole").logits(images))
    assert result["test_accuracy"] == whole["test_accuracy"]
    export.write(model, tmp_path / "export")
    np.testing.assert_allclose(
        export.load(tmp_path / "export").logits(images), logits, rtol=1e-4, atol=1e-4
    )

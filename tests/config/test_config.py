"""Configs: all build, every key is read, and wrong values are named."""

import importlib.util
import json
import re

import jax
import ml_collections
import numpy as np
import pytest

from tests.conftest import ROOT, abstract_variables
from vprompt_jax import config as config_lib
from vprompt_jax.adaptation.build import build
from vprompt_jax.benchmark.compiled import random_weights
from vprompt_jax.clip import CLIP, ViTConfig
from vprompt_jax.clip.variants import VARIANTS, VIT_B_32
from vprompt_jax.config import sweep as sweeps
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import assemble, fit
from vprompt_jax.zoo.recipe import TOWERS

CONFIGS = sorted((ROOT / "configs").glob("*.py"))  # those of sweeps/: test_sweep.py
# The architectures of checkpoints that configs name otherwise.
TOWER_OF = {
    "google/vit-large-patch16-224-in21k": "supervised ViT-L/16",
    "timm/resnet101.tv_in1k": "supervised ResNet-101",
}


def tower_of(checkpoint: str):
    """The architecture that a config's checkpoint has."""
    if checkpoint.startswith("mini-clip-"):
        return TOWERS[checkpoint.removeprefix("mini-clip-")]
    return VARIANTS[TOWER_OF.get(checkpoint, checkpoint)]


def load_config(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_builds(path):
    base = load_config(path)
    assert base.name == path.stem
    for config in sweeps.expand(base).values() if base.sweep else [base]:
        resolved = config_lib.resolve(config)
        tower = tower_of(config.model.checkpoint)
        model = build(resolved, CLIP(tower), abstract_variables(tower), 10)
        jax.eval_shape(model.init_trained, jax.random.key(0))


def narrowed(tower):
    """As deep as a public tower, with few channels and pixels."""
    less = dict(image_resolution=32, vision_width=16, embed_dim=16, classes=tower.classes and 20)
    if isinstance(tower.vision, ViTConfig):
        less |= dict(vision_heads=2, vision_patch_size=16)
    else:
        less |= dict(vision_width=8, vision_heads=tower.vision.heads and 4)
        less["embed_dim"] = 16 if tower.vision.heads else 8 * 32
    if tower.has_text:
        less |= dict(text_width=16, text_heads=1, text_layers=1)
    return tower.with_fields(less)


@pytest.mark.slow  # towers of up to 33 blocks to compile
@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("ap_*.py")), ids=lambda p: p.stem)
def test_configs_of_activation_prompts_train_narrow_towers(path, tmp_path, monkeypatch):
    config = load_config(path)
    tower = tower_of(config.model.checkpoint)
    monkeypatch.setitem(VARIANTS, "narrow", narrowed(tower))
    monkeypatch.setattr(
        assemble, "load_clip", lambda config: random_weights("narrow", np.dtype("float32"))
    )
    config.data.source, config.data.name = "digits", "digits"
    config.data.few_shot = 4
    config.optim.batch_size, config.optim.epochs, config.optim.warmup_steps = 8, 1, 1
    result = fit(config, tmp_path)
    assert result["steps"] == 5
    assert result["ap_positions"] == list(config.ap.positions)
    losses = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["train/loss"]) for line in losses if "train/loss" in line)
    assert tower.depth == narrowed(tower).depth


def test_the_papers_config_is_the_papers_setting():
    config = config_lib.resolve(load_config(ROOT / "configs" / "adaviprompt_cifar10.py"))
    model = build(config, CLIP(VIT_B_32), abstract_variables(VIT_B_32), 10)
    shapes = jax.eval_shape(model.init_trained, jax.random.key(0))
    counts = {p: sum(x.size for x in jax.tree.leaves(t)) for p, t in shapes.items()}
    assert counts == {"prompt": 69_840, "mask": 132_866}
    assert config.protocol == "paper"
    assert (config.prompt.learning_rate, config.mask.learning_rate) == (40.0, 1.0)
    assert (config.mask.temperature, config.mask.temperature_decay) == (5.0, 0.98)
    assert config.mask.temperature_min == 0.0
    assert (config.optim.batch_size, config.optim.epochs) == (256, 1000)
    assert (config.optim.momentum, config.optim.weight_decay) == (0.9, 0.0)
    assert config.optim.warmup_steps == 1000
    assert config.prompt.init == "normal"


def test_the_method_defaults_are_the_papers():
    config = config_lib.resolve(config_lib.default_config())
    assert (config.prompt.learning_rate, config.mask.learning_rate) == (40.0, 1.0)
    assert (config.mask.width, config.mask.edge) == (64, "laplacian")


def keys_of(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_every_key_is_read_somewhere():
    sources = "\n".join(
        p.read_text() for p in (ROOT / "vprompt_jax").rglob("*.py") if p.name != "config.py"
    )
    for key in keys_of(config_lib.default_config()):
        if key.endswith("learning_rate"):
            pattern = r"config\[part\]\.learning_rate"
        else:
            section, _, field = key.rpartition(".")
            reader = {"optim": "c", "mask": "m", "data": "c"}.get(section, section) or "config"
            pattern = rf"\b({section or 'config'}|{reader})\.{field}\b"
        assert re.search(pattern, sources), f"no code reads config.{key}"


def test_unknown_keys_are_refused():
    config = config_lib.default_config()
    with pytest.raises(AttributeError, match="learning_rte"):
        config.prompt.learning_rte = 3.0


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("method.name", "adavpro", "unknown method 'adavpro'.*\n.*tp: "),
        ("prompt.template", "frame", "choose one of none, padding"),
        ("mask.edge", "canny", "choose one of laplacian, sobel, none"),
        ("optim.batch_size", 0, "must be between 1"),
        ("optim.epochs", -1, "must be between 0"),
        ("prompt.learning_rate", float("nan"), "must be between 0"),
        ("prompt.learning_rate", float("inf"), "must be between 0"),
        ("mask.temperature", 0.0, "must be between"),
        ("data.val_fraction", 1.5, "must be between"),
        ("data.source", "web", "choose one of digits, tfds, folder"),
        ("data.source", "folder", "needs config.data.dir"),
        ("data.source", "tfds", "needs config.data.name"),
        ("data.source", "manifest", "needs config.data.dir"),
        ("data.augment", "crop", "choose one of none, flip, flip_crop"),
        ("data.on_bad_image", "ignore", "choose one of stop, skip"),
        ("data.few_shot", 0, "must be between 1"),
        ("prompt.template", "none", "needs a prompt to place"),
    ],
)
def test_wrong_values_are_named(key, value, message):
    config = config_lib.default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        config_lib.resolve(config)


def test_keys_of_parts_that_a_method_lacks_do_not_count():
    config = config_lib.default_config()
    config.method.name = "vp"
    one = config_lib.resolve(config)
    config.mask.region = 4
    assert config_lib.fingerprint(config_lib.resolve(config)) == config_lib.fingerprint(one)
    config.prompt.size = 4
    assert config_lib.fingerprint(config_lib.resolve(config)) != config_lib.fingerprint(one)
    assert np.all([k not in one.mask for k in ("region", "width")])


def test_difference_names_what_changed():
    a, b = (config_lib.default_config().to_dict() for _ in range(2))
    b["seed"] = 3
    b["prompt"]["size"] = 7
    assert config_lib.difference(a, b) == ["prompt.size: None -> 7", "seed: 0 -> 3"]

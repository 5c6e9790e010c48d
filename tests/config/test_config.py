"""Configs: all build, and wrong or useless values are named."""

import importlib.util
import json

import jax
import ml_collections
import numpy as np
import pytest

from tests.conftest import ROOT, abstract_variables
from tests.test_launch import QUICKSTART, assert_one_message, launch
from vprompt_jax import config as config_lib
from vprompt_jax.adaptation.build import build
from vprompt_jax.clip import CLIP, ViTConfig
from vprompt_jax.clip.checkpoints.drawn import random_weights
from vprompt_jax.clip.variants import VARIANTS, VIT_B_32
from vprompt_jax.config import sweep as sweeps
from vprompt_jax.methods import METHODS, registry
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit, training
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
        built = build(resolved, CLIP(tower), abstract_variables(tower), 10)
        jax.eval_shape(built.model.init_parts, jax.random.key(0))


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
        training, "load_clip", lambda config: random_weights("narrow", np.dtype("float32"))
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
    built = build(config, CLIP(VIT_B_32), abstract_variables(VIT_B_32), 10)
    shapes = jax.eval_shape(built.model.init_parts, jax.random.key(0))
    counts = {p: sum(x.size for x in jax.tree.leaves(t)) for p, t in shapes.items()}
    assert counts == {"prompt": 69_840, "mask": 132_866}
    assert config.protocol == "paper"
    prompt, mask = config.parts["prompt"], config.parts["mask"]
    assert (prompt.learning_rate, mask.learning_rate) == (40.0, 1.0)
    assert (mask.temperature, mask.temperature_decay) == (5.0, 0.98)
    assert mask.temperature_min == 0.0
    assert (config.optim.batch_size, config.optim.epochs) == (256, 1000)
    assert (config.optim.momentum, config.optim.weight_decay) == (0.9, 0.0)
    assert config.optim.warmup_steps == 1000
    assert prompt.init == "normal"


def test_the_method_defaults_are_the_papers():
    config = config_lib.resolve(config_lib.default_config())
    prompt, mask = config.parts["prompt"], config.parts["mask"]
    assert (prompt.learning_rate, mask.learning_rate) == (40.0, 1.0)
    assert (mask.width, mask.edge) == (64, "laplacian")


def keys_of(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield prefix + key


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
        ("mask.start", "better", "set config.mask.hold, to 0.5 say"),
        ("data.val_fraction", 1.5, "must be between"),
        ("data.source", "web", "choose one of digits, tfds, folder"),
        ("data.source", "folder", "needs config.data.dir"),
        ("data.source", "tfds", "needs config.data.name"),
        ("data.source", "manifest", "needs config.data.dir"),
        ("data.augment", "crop", "choose one of none, flip, flip_crop"),
        ("data.on_bad_image", "ignore", "choose one of stop, skip"),
        ("data.few_shot", 0, "must be between 1"),
        ("data.val_shots", 4, "no effect without config.data.few_shot"),
        ("prompt.template", "none", "needs a prompt to place"),
    ],
)
def test_wrong_values_are_named(key, value, message):
    config = config_lib.default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        config_lib.resolve(config)


@pytest.mark.parametrize("key, value", [("prompt.size", 4), ("prompt.init", "zeros")])
def test_a_low_rank_prompt_has_no_size_or_start(key, value):
    config = config_lib.default_config()
    config.method.name = "lor_vp"
    config.update_from_flattened_dict({key: value})  # a file's, for the methods that have it
    prompt = config_lib.resolve(config).parts["prompt"]
    assert (prompt.rank, prompt.learning_rate, prompt.optimizer) == (4, 0.02, "sgd")
    with pytest.raises(UserError, match=f"config.{key} has no effect.*prompt.template=padding"):
        config_lib.resolve(config, [key])


def test_keys_of_parts_that_a_method_lacks_do_not_count():
    config = config_lib.default_config()
    config.method.name = "vp"
    one = config_lib.resolve(config)
    config.mask.region = 4
    assert config_lib.resolve(config).fingerprint == one.fingerprint
    config.prompt.size = 4
    assert config_lib.resolve(config).fingerprint != one.fingerprint
    assert set(one.parts) == {"prompt", "head"}


@pytest.mark.parametrize("name", METHODS)
def test_a_part_that_the_method_has_stays_off_when_a_run_is_read_again(name):
    for key in METHODS[name].parts.keys() & dict(registry.switches()):
        config = config_lib.default_config()
        config.method.name = name
        section, _, switch = key.partition(".")
        config[section][switch] = dict(registry.switches())[key]
        if (name, section) == ("adavipro", "prompt"):
            with pytest.raises(UserError, match="needs a prompt to place"):
                config_lib.resolve(config)
            continue
        resolved = config_lib.resolve(config)
        again = config_lib.resolve(json.loads(resolved.as_json()))
        assert again == resolved
        assert again.parts.get(section) == resolved.parts.get(section)
        assert again.fingerprint != config_lib.resolve({"method": {"name": name}}).fingerprint


def test_an_overridden_key_of_a_part_that_is_off_is_refused():
    """From the command line it is a mistake; a file that serves several methods may set it."""
    config = config_lib.default_config()
    config.method.name = "vp"
    config.lora.alpha = 8.0
    message = (
        r"config\.lora\.alpha has no effect: config\.method\.name=vp has config\.lora\.rank=0; "
        r"omit it, or set config\.lora\.rank="
    )
    with pytest.raises(UserError, match=message):
        config_lib.resolve(config, ["lora.alpha"])
    assert "lora" not in config_lib.resolve(config).parts
    assert "lora" not in config_lib.resolve(config, ["prompt.size", "optim.epochs"]).parts
    config.lora.rank = 2  # as the message says
    assert config_lib.resolve(config, ["lora.alpha", "lora.rank"]).parts["lora"].alpha == 8.0


def test_an_overridden_key_of_another_alternative_is_refused():
    config = config_lib.default_config()
    config.head.kind = "linear"
    with pytest.raises(UserError, match=r"head\.mapping has no effect.*config\.head\.kind=mapping"):
        config_lib.resolve(config, ["head.mapping"])
    config_lib.resolve(config, ["head.kind", "head.solver"])


def test_a_key_of_a_part_that_is_off_is_one_message_in_a_shell(tmp_path):
    done = launch(
        "--config", QUICKSTART, "--config.lora.alpha=8", "--config.method.name=vp",
        f"--workdir={tmp_path / 'w'}",
    )  # fmt: skip
    assert_one_message(done, "config.lora.alpha has no effect", "config.method.name=vp")
    assert done.returncode == 1
    assert not list(tmp_path.iterdir())


def test_difference_names_what_changed():
    config = config_lib.default_config()
    old = config_lib.resolve(config)
    config.seed = 3
    config.prompt.size = 7
    new = config_lib.resolve(config)
    assert config_lib.difference(old, new) == ["prompt.size: None -> 7", "seed: 0 -> 3"]

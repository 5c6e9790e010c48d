"""KEY=VALUE, as commands take it."""

import pytest

from vprompt_jax.config import default_config
from vprompt_jax.config.settings import assign
from vprompt_jax.process.errors import UserError


@pytest.mark.parametrize("setting, key, value", [
    ("head.kind=linear", "head.kind", "linear"),
    ("ap.positions=(1, 3)", "ap.positions", (1, 3)),
    ("optim.momentum=0", "optim.momentum", 0.0),
    ("seed=3", "seed", 3),
    ("data.label=1", "data.label", "1"),
    ("data.template=a = {}", "data.template", "a = {}"),
    ("data.few_shot=None", "data.few_shot", None),
])  # fmt: skip
def test_a_key_is_set_as_its_type(setting, key, value):
    config = default_config()
    assign(config, setting)
    section, _, field = key.rpartition(".")
    assert (config[section] if section else config)[field] == value


@pytest.mark.parametrize("setting", [
    "head.kind", "head.kin=linear", "heads.kind=linear", "data=3", "optim.momentum=x",
    "optim.momentum=(1,)", "ap.positions=one", "seed=1.5", "optim.momentum.x=1", "=", "",
])  # fmt: skip
def test_mistakes_are_one_line_with_the_setting(setting):
    config = default_config()
    with pytest.raises(UserError) as error:
        assign(config, setting)
    assert f"--set {setting}" in str(error.value)
    assert "\n" not in str(error.value)
    assert config == default_config()

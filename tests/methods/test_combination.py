"""What a run is called whose parts are not those of a method's row alone."""

import pytest

from vprompt_jax.config import default_config, resolve
from vprompt_jax.config.config import flat
from vprompt_jax.methods import METHODS
from vprompt_jax.methods.table import baseline_of, combination, title_of


def named(method, **keys):
    c = default_config()
    c.method.name = method
    c.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
    return combination(flat(resolve(c).as_dict()))


@pytest.mark.parametrize("method", METHODS)
def test_a_row_alone_has_its_own_name(method):
    assert named(method) == method


@pytest.mark.parametrize("method, keys, name, title", [
    ("adavipro", {"ap__positions": (3,), "head__kind": "linear"},
     "adavipro + ap + linear head", "AdaViPro + AP + linear head"),
    ("adavipro", {"mask__kind": "none"}, "adavipro without mask", "AdaViPro without mask"),
    ("vp", {"lora__rank": 8}, "vp + lora", "VP + LoRA"),
    ("vp", {"tune__weights": "norm"}, "vp + norm", "VP + norm tuning"),
    ("ap", {"vpt__kind": "deep"}, "ap + vpt_deep", "AP + VPT deep"),
    ("linear", {"prompt__template": "padding"}, "linear + vp", "linear probe + VP"),
    ("linear", {"head__kind": "text", "lora__rank": 4}, "linear + lora + text head", None),
    ("vp", {"prompt__size": 8}, "vp", "VP"),
])  # fmt: skip
def test_combinations_are_named_by_their_parts(method, keys, name, title):
    assert named(method, **keys) == name
    assert title is None or title_of(name) == title


def test_combinations_are_paired_with_the_same_parts():
    assert baseline_of("adavipro") == "vp"
    assert baseline_of("adavipro + ap + linear head") == "vp + ap + linear head"
    assert baseline_of("vp + ap") == baseline_of("unknown") == ""

"""What launch.py says when it is asked for something that does not exist; its advice works."""

import ast
import json
import re

import pytest

from tests.conftest import ROOT
from tests.test_launch import QUICKSTART, assert_one_message, launch
from vprompt_jax.config import default_config, resolve
from vprompt_jax.config.resolve import nearest
from vprompt_jax.methods import METHODS, registry
from vprompt_jax.process.errors import UserError

KEYS = list(registry.all_fields())


def test_alone_it_lists_the_config_files():
    done = launch()
    assert done.returncode == 1
    assert done.stderr.startswith("usage: python launch.py --config FILE")
    for path in (ROOT / "configs").rglob("*.py"):
        tree = ast.parse(path.read_text())
        if any(isinstance(f, ast.FunctionDef) and f.name == "get_config" for f in tree.body):
            name = str(path.relative_to(ROOT))
            line = ast.get_docstring(tree).splitlines()[0]
            assert re.search(rf"^  {re.escape(name)} +{re.escape(line)}$", done.stderr, re.M)
    assert "common.py" not in done.stderr  # no config file


@pytest.mark.parametrize(
    "args, parts",
    [
        (["--config", "quickstar"], ["did you mean configs/quickstart.py"]),
        (["--config=configs/quickstrat.py"], ["did you mean configs/quickstart.py"]),
        (["--config=x/ap_layers.py"], ["configs/sweeps/ap_layer.py"]),
        (["--config=zzz.py"], ["without arguments, this command lists those there are"]),
        (["--config", QUICKSTART, "--config.lr=1"], ["config.prompt.learning_rate"]),
        (["--config", QUICKSTART, "--config.method=vp"], ["a section", "--config.method.name=vp?"]),
        (["--config", QUICKSTART, "--config.optim=3"], ["a section", "optim.epochs"]),
        (["--config", QUICKSTART, "--wrkdir=x"], ["wrkdir", "workdir"]),
    ],
)
def test_the_nearest_names(args, parts):
    done = launch(*args)
    assert_one_message(done, *parts)
    assert "FATAL" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "key, expected",
    [
        ("lr", [k for k in KEYS if k.endswith(".learning_rate")]),
        ("prompt.lr", ["prompt.learning_rate"]),
        ("prompt.sise", ["prompt.size"]),
        ("promt.size", ["prompt.size"]),
        ("batch_size", ["eval.batch_size", "optim.batch_size"]),
        ("bs", ["eval.batch_size", "optim.batch_size"]),
        ("epochs", ["optim.epochs"]),
        ("lora.zzz", [k for k in KEYS if k.startswith("lora.")]),
        ("zzz", []),
    ],
)
def test_the_nearest_keys(key, expected):
    named = re.findall(r"config\.([\w.]+)", nearest(key, KEYS))
    assert set(named) >= set(expected)
    assert not expected or named[0] in expected
    assert set(named) <= set(KEYS)


def test_a_key_of_a_part_that_is_off_names_a_switch_that_works():
    """Whatever key of whatever part, under whatever method: the advice, followed, is accepted."""
    followed = 0
    for key in KEYS:
        for method in METHODS if key.partition(".")[0] in registry.names() else ():
            config = default_config()
            config.method.name = method
            for _ in range(4):  # a part, one that it needs, and one that does not go with them
                try:
                    resolve(config, [key])
                    break
                except UserError as error:
                    advice = re.findall(r"set (config\.\S+=.*)$", str(error))[0]
                    for assigned in advice.split(", config."):
                        name, text = assigned.removeprefix("config.").split("=")
                        kind = registry.all_fields()[name].kind
                        value = text if kind is str else ast.literal_eval(text)
                        config.update_from_flattened_dict({name: value})
                    followed += 1
            else:
                pytest.fail(f"{method}: {key}")
    assert followed > 100


def strings():
    """(file, text) of every string in the package, f-strings with their gaps as {}."""
    for path in (ROOT / "vprompt_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
                yield path, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path, node.value


def test_every_config_key_that_a_message_names_exists():
    """And every value it proposes is one of the key's."""
    named = 0
    for path, text in strings():
        for key, value in re.findall(r"config\.([a-z_]+\.[a-z_]+)(?:=(\w+))?", text):
            if key.partition(".")[0] not in {k.partition(".")[0] for k in KEYS}:
                continue
            assert key in KEYS, f"{path}: {key}"
            named += 1
            choices = registry.all_fields()[key].choices
            if choices and value:
                assert value in map(str, choices), f"{path}: config.{key}={value}"
    assert named > 30


def test_a_run_starts_from_the_config_json_of_another(tmp_path):
    """Everything is as in that run, up to the default name of the workdir."""
    config = default_config()
    config.name = "stored"
    config.method.name = "tp"
    stored = resolve(config)
    path = tmp_path / "config.json"
    path.write_text(stored.as_json())
    done = launch("--config", str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / f"stored-{stored.fingerprint}"
    assert (run / "config.json").read_text() == stored.as_json()
    again = launch(f"--config={run / 'config.json'}", f"--workdir={run}")
    assert "finished; not run again" in again.stdout
    seeded = launch(f"--config={path}", "--config.seed=3", f"--workdir={tmp_path / 'seeded'}")
    assert seeded.returncode == 0, seeded.stderr
    assert json.loads((tmp_path / "seeded" / "config.json").read_text())["seed"] == 3
    damages = {"{": "is damaged", "[]": "is damaged"}
    damages |= dict.fromkeys(
        ('{"optim": {"epocs": 3}}', '{"seed": "many"}'), "cannot load the config"
    )
    for damage, message in damages.items():
        path.write_text(damage)
        assert_one_message(launch("--config", str(path)), message)


def test_what_is_no_config_file(tmp_path):
    path = tmp_path / "notes.py"
    path.write_text("x = 1\n")
    assert_one_message(launch("--config", str(path)), "cannot load the config", "get_config")
    path.write_text("def get_config(:\n")
    assert_one_message(launch("--config", str(path)), "cannot load the config")

"""`python -m vprompt_jax.clip` as a user runs it."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import vprompt_jax as vp
from tests.conftest import GOLDEN, TINY
from vprompt_jax.clip import __main__ as main_lib
from vprompt_jax.clip.checkpoints import cost, licence
from vprompt_jax.clip.variants import VARIANTS


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the program in this process: (its output, its error message or None)."""
    monkeypatch.setattr(main_lib.program, "set_up_process", lambda: None)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["vprompt_jax.clip", *map(str, args)])
        status = None
        try:
            main_lib.main()
        except SystemExit as stop:
            status = stop.code
        shown = capsys.readouterr()
        if status is None:
            return shown.out, None
        assert status == 1
        return shown.out, shown.err

    return call


def test_inspect_says_what_it_is(run):
    out, error = run("inspect", GOLDEN / "hf_clip_tiny")
    assert error is None
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert rows["layout"] == "Hugging Face's layout of CLIP"
    assert rows["vision.activation"] == "gelu"
    _, variables = vp.clip.load(GOLDEN / "hf_clip_tiny")
    count = sum(x.size for x in jax.tree.leaves(variables))
    assert rows["parameters"] == f"{count:,}"


@pytest.mark.parametrize("file, text, expected", [
    ("README.md", "---\nlicense: apache-2.0\ntags:\n- clip\n---\n# A CLIP\n",
     "apache-2.0 (README.md)"),
    ("README.md", "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n",
     "other, own, LICENSE (README.md)"),
    ("README.md", "# A CLIP\nlicense: mit\n", None),
    ("README.md", "---\nlicense: mit\n", None),
    ("config.json", '{"pretrained_cfg": {"license": "mit"}}', "mit (config.json)"),
    ("w.json", '{"licence": "MIT"}', "MIT"),
])  # fmt: skip
def test_the_licence_is_that_of_the_files_beside(tmp_path, file, text, expected):
    weights = tmp_path / "w.safetensors"
    assert licence.stated(weights) == ""
    (tmp_path / file).write_text(text)
    assert licence.stated(weights) == (expected or "")
    assert licence.stated(tmp_path / "ViT-B-32.pt").startswith("MIT (github.com/openai/CLIP")


def test_inspect_shows_the_licence_and_convert_keeps_it(run, tmp_path):
    assert "Apache-2.0" in run("inspect", "mini-clip-vit")[0]
    shutil.copytree(GOLDEN / "hf_clip_tiny", tmp_path / "clip")
    assert "no file beside the weights states one" in run("inspect", tmp_path / "clip")[0]
    (tmp_path / "clip/README.md").write_text("---\nlicense: mit\n---\n")
    assert "mit (README.md)" in run("inspect", tmp_path / "clip")[0]
    assert run("convert", tmp_path / "clip", tmp_path / "w.safetensors")[1] is None
    assert "mit (README.md)" in run("inspect", tmp_path / "w.safetensors")[0]


@pytest.mark.parametrize("name", ["openai_rn_tiny.pt", "hf_clip_tiny", "hf_vit_tiny"])
def test_convert_gives_the_same_model(run, tmp_path, name):
    out = tmp_path / "new" / "w.safetensors"
    assert run("convert", GOLDEN / name, out, "--dtype", "float32")[1] is None
    model, variables = vp.clip.load(GOLDEN / name)
    again, same = vp.clip.load(out)
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, variables, same)
    assert sorted(p.name for p in out.parent.iterdir()) == ["w.json", "w.safetensors"]
    assert "exists: choose another name" in run("convert", GOLDEN / name, out)[1]


def test_convert_to_another_resolution_and_statistics(run, tmp_path):
    out = tmp_path / "w.safetensors"
    args = ("--resolution", 64, "--set", "mean=0.5,0.5,0.25", "--dtype", "bfloat16")
    assert run("convert", GOLDEN / "hf_vit_tiny", out, *args)[1] is None
    config = json.loads(out.with_suffix(".json").read_text())["clip"]
    assert (config["vision"]["image_resolution"], config["mean"]) == (64, [0.5, 0.5, 0.25])
    model, variables = vp.clip.load(out)
    assert variables["params"]["visual"]["positional_embedding"].shape == (65, 48)
    assert model.config.image_resolution == 64
    message = run("convert", GOLDEN / "hf_vit_tiny", tmp_path / "x.safetensors", "--resolution", 60)
    assert "the nearest are 56 and 64" in message[1]


def test_classify_names_a_digit(run, tmp_path):
    image = Image.new("RGB", (40, 40), "black")
    font = ImageFont.load_default(34)
    ImageDraw.Draw(image).text((8, 0), "7", font=font, fill="white")
    image.save(tmp_path / "seven.png")
    out, error = run("classify", "mini-clip-rn", tmp_path / "seven.png", "0", "1", "7", "A")
    assert error is None
    lines = out.splitlines()
    assert lines[0].split()[1] == "7"
    assert sum(float(line.split("%")[0]) for line in lines) == pytest.approx(100, abs=0.05)
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    assert "notes.txt is not a readable image" in run("classify", "mini-clip-rn", text, "a")[1]
    error = run("classify", GOLDEN / "hf_vit_tiny", tmp_path / "seven.png", "a")[1]
    assert "no text tower" in error


def test_classify_by_a_siglip(run, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    out, error = run("classify", GOLDEN / "siglip_tiny", tmp_path / "red.png", "cat", "dog")
    assert error is None
    assert sorted(line.split()[1] for line in out.splitlines()) == ["cat", "dog"]


def test_measure_random_weights_of_a_variant(run, monkeypatch):
    monkeypatch.setitem(VARIANTS, "tiny", TINY)
    seen = []
    monkeypatch.setattr(cost, "measure", lambda path, *_: seen.append(vp.clip.load(path)) or {})
    assert run("measure", "tiny", "--random")[1] is None
    assert seen[0][0].config == TINY
    assert "no variant 'tiny2'" in run("measure", "tiny2", "--random")[1]


@pytest.mark.parametrize(
    "args, message",
    [
        (("inspect", "nowhere.pt"), "no checkpoint 'nowhere.pt'"),
        (("inspect", "mini-clip-rn", "--set", "heads"), "expected FIELD=VALUE"),
        (("convert", "mini-clip-rn", "out.pt"), "must end in .safetensors"),
    ],
)
def test_mistakes_end_in_one_message(run, args, message):
    assert message in run(*args)[1]

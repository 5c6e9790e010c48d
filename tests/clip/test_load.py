"""What can go wrong with a checkpoint file, and what is read off a good one."""

import io
import json
import pickle
import re
import zipfile

import jax
import numpy as np
import pytest
from flax import traverse_util

import vprompt_jax as vp
from tests.conftest import GOLDEN, TINY, random_tensors
from vprompt_jax.clip.checkpoints import formats, openai
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast


def test_export_and_load_are_inverse(tmp_path):
    clip, variables = vp.clip.load(GOLDEN / "openai_rn_tiny.pt")
    flat = traverse_util.flatten_dict(variables)
    path = tmp_path / "again-openai.safetensors"
    formats.write_safetensors(path, openai.to_state_dict(flat), {})
    again, same = vp.clip.load(path)
    assert again.config == clip.config
    jax.tree.map(np.testing.assert_array_equal, variables, same)


def test_an_openai_file_alone_loads_as_quickgelu_with_a_notice(caplog):
    clip, _ = vp.clip.load(GOLDEN / "openai_vit_tiny.safetensors")
    assert clip.config.vision.activation == "quick_gelu"
    assert "QuickGELU" in caplog.text


def test_a_missing_file_names_the_way_out():
    with pytest.raises(UserError, match=r"no checkpoint 'nowhere.pt'.*mini-clip-rn"):
        vp.clip.load("nowhere.pt")


@pytest.mark.parametrize(
    "name, keep",
    [("openai_vit_tiny.safetensors", 0.5), ("openai_rn_tiny.pt", 0.9), ("openai_rn_tiny.pt", 0.1)],
)
def test_a_truncated_file_is_refused(tmp_path, name, keep):
    data = (GOLDEN / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        vp.clip.load(path)


def test_a_damaged_tensor_inside_an_archive_is_refused(tmp_path):
    data = bytearray((GOLDEN / "openai_rn_tiny.pt").read_bytes())
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "openai-flipped.pt"
    path.write_bytes(data)
    with pytest.raises(UserError, match="CRC"):
        vp.clip.load(path)


def archive_of(path, payload: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", payload)


class Evil:
    def __reduce__(self):
        return (eval, ("__import__('os').system('touch pwned')",))


def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive_of(tmp_path / "evil.pt", pickle.dumps({"weight": Evil()}))
    with pytest.raises(UserError, match=r"builtins\.eval"):
        vp.clip.load(tmp_path / "evil.pt")
    assert not (tmp_path / "pwned").exists()


class Outside(pickle.Pickler):
    """Pickles a tensor whose strides leave its storage."""

    class Tensor:
        pass

    def reducer_override(self, value):
        if isinstance(value, self.Tensor):
            return _rebuild_tensor_v2, (Storage(), 0, (1000, 1000), (1000, 1), False, {})
        return NotImplemented

    def persistent_id(self, value):
        return ("storage", FloatStorage, "0", "cpu", 4) if isinstance(value, Storage) else None


class Storage:
    pass


class FloatStorage:
    pass


def _rebuild_tensor_v2(*args):
    raise AssertionError("never called")


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    # The names the restricted reader knows, as torch would have written them.
    buffer = io.BytesIO()
    Outside(buffer, protocol=2).dump({"w": Outside.Tensor()})
    here = __name__.encode()
    data = buffer.getvalue()
    data = data.replace(b"c" + here + b"\n_rebuild", b"ctorch._utils\n_rebuild")
    data = data.replace(b"c" + here + b"\nFloatStorage", b"ctorch\nFloatStorage")
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/data/0", np.zeros(4, np.float32).tobytes())
    with pytest.raises(UserError, match="beyond its storage"):
        vp.clip.load(tmp_path / "w.pt")


def test_missing_left_over_and_misshapen_names_are_all_listed(tmp_path):
    tensors = random_tensors(TINY)
    tensors["extra.weight"] = np.zeros(3, np.float32)
    del tensors["ln_final.bias"]
    tensors["visual.ln_post.weight"] = np.zeros(7, np.float32)
    formats.write_safetensors(tmp_path / "openai.safetensors", tensors, {})
    with pytest.raises(UserError) as error:
        vp.clip.load(tmp_path / "openai.safetensors")
    message = str(error.value)
    assert "- ln_final.bias is missing" in message
    assert "+ extra.weight is not part" in message
    assert "! visual.ln_post.weight has shape (7,)" in message


def test_a_file_that_is_no_clip_is_refused(tmp_path):
    formats.write_safetensors(tmp_path / "openai.safetensors", {"fc.weight": np.zeros((2, 2))}, {})
    with pytest.raises(UserError, match=r"holds fc\.weight, which is in no layout known"):
        vp.clip.load(tmp_path / "openai.safetensors")


def open_clip_config(**changes):
    """What OpenCLIP publishes beside weights of TINY's shapes."""
    parts = {
        "model_cfg": {"embed_dim": TINY.embed_dim},
        "vision_cfg": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 16, "width": 64, "heads": 4, "layers": 1},
    }
    for name, change in changes.items():
        parts[name] |= change
    model = parts["model_cfg"] | {k: parts[k] for k in ("vision_cfg", "text_cfg")}
    statistics = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    return {"model_cfg": model, "preprocess_cfg": statistics}


def test_openclip_files_are_what_the_config_beside_them_says(tmp_path):
    formats.write_safetensors(tmp_path / "open_clip_model.safetensors", random_tensors(TINY), {})
    config = tmp_path / "open_clip_config.json"
    config.write_text(json.dumps(open_clip_config()))
    c = vp.clip.load(tmp_path)[0].config
    assert (c.vision.activation, c.vision.heads, c.text.heads) == ("gelu", 2, 4)
    assert (c.mean, c.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    config.write_text(json.dumps(open_clip_config(model_cfg={"quick_gelu": True})))
    assert vp.clip.load(tmp_path)[0].config.vision.activation == "quick_gelu"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"vision_cfg": {"width": 128}}, "says vision.width 128, the weights have 64"),
        ({"vision_cfg": {"pool_type": "none"}}, "asks for pool_type='none', which is not"),
        ({"vision_cfg": {"timm_model_name": "convnext"}}, "timm_model_name='convnext'"),
        ({"text_cfg": {"act_kwargs": {"inplace": True}}}, "text_cfg asks for act_kwargs="),
    ],
)
def test_an_openclip_config_of_another_model_is_refused(tmp_path, changes, message):
    formats.write_safetensors(tmp_path / "open_clip_model.safetensors", random_tensors(TINY), {})
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_config(**changes)))
    with pytest.raises(UserError, match=re.escape(message)):
        vp.clip.load(tmp_path)


@pytest.mark.parametrize(
    "name, activation",
    [
        ("vit_b_32-quickgelu-laion400m_e32-46683a32", "quick_gelu"),
        ("vit_b_16-laion400m_e32-55e67d44", "gelu"),
        ("rn50-quickgelu-cc12m-f000538c", "quick_gelu"),
        ("my-openai-clip", "quick_gelu"),
    ],
)
def test_a_public_file_name_tells_the_activation(tmp_path, name, activation, caplog):
    formats.write_safetensors(tmp_path / f"{name}.safetensors", random_tensors(TINY), {})
    assert vp.clip.load(tmp_path / f"{name}.safetensors")[0].config.vision.activation == activation
    assert ("QuickGELU" in caplog.text) == (name == "my-openai-clip")


def test_weights_of_unknown_origin_do_not_tell_their_activation(tmp_path):
    path = tmp_path / "mine.safetensors"
    formats.write_safetensors(path, random_tensors(TINY), {})
    with pytest.raises(UserError, match=r"say activation: .*pass fields=\{'activation': ...\}"):
        vp.clip.load(path)
    assert vp.clip.load(path, activation="gelu")[0].config.vision.activation == "gelu"


def test_positions_that_are_no_square_are_refused(tmp_path):
    tensors = random_tensors(TINY)
    table = tensors["visual.positional_embedding"]
    tensors["visual.positional_embedding"] = np.concatenate([table, table[:3]])
    formats.write_safetensors(tmp_path / "openai.safetensors", tensors, {})
    with pytest.raises(UserError, match="20 positions, which are not one token and a square"):
        vp.clip.load(tmp_path / "openai.safetensors")


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "w.pt").touch()
    with pytest.raises(UserError, match="is empty"):
        vp.clip.load(tmp_path / "w.pt")


def test_a_text_tower_that_does_not_fit_is_named(tmp_path):
    tensors = random_tensors(TINY)
    tensors["text_projection"] = tensors["text_projection"][:32]
    formats.write_safetensors(tmp_path / "openai.safetensors", tensors, {})
    with pytest.raises(UserError, match=r"! text_projection has shape \(32, 16\)"):
        vp.clip.load(tmp_path / "openai.safetensors")

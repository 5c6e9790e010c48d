"""Weight files that attack by their sizes and names, whatever their format (`test_hostile_pickles`
has the pickles): every one is refused, at once, in little memory, by a message of ours."""

import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import vprompt_jax as vp
from tests.conftest import TINY, random_tensors
from tests.hostile import WEIGHT, archive_of, dictionary, refused, tensor
from vprompt_jax.clip.checkpoints import formats


def npz_of(path: Path, header: str, content: bytes = b"", **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        head = header.encode().ljust(117) + b"\n"
        archive.writestr(
            "w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content
        )
    return path


@pytest.mark.parametrize(
    "descr, shape, message",
    [
        ("'<f4'", "(64, 10000000000)", "promises 2,560,000,000,128 bytes"),
        ("'<f4'", "(10000000000, 0)", "promises 128 bytes, it has 132"),
        ("'<f4'", "(-1,)", "no possible shape"),
        ("'<f4'", "(True,)", "no possible shape"),
        ("'|O'", "(1,)", "holds Python objects"),
        ("'|S0'", "(10000000000,)", "not numbers"),
        ("('<f4', (10000000000,))", "(1,)", "promises|not numbers|no possible|readable"),
        ("[('a', '<f4')]", "(1,)", "not numbers"),
        ("'<f4'", "(1,) * 9", "not a readable"),
        ("'<f4'", "(" + "1," * 40 + ")", "40 dimensions|not a readable"),
    ],
)
def test_a_hostile_npz_is_refused(tmp_path, descr, shape, message):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    with refused(message):
        vp.clip.load(npz_of(tmp_path / "w.npz", header, bytes(4)))


def test_what_unpacks_to_very_much_is_refused(tmp_path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (30000000,), }"
    path = npz_of(tmp_path / "w.npz", header, bytes(120_000_000), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    with refused("unpacks to 120,000,128 bytes"):
        vp.clip.load(path)


def test_an_unusual_compression_is_refused(tmp_path):
    # LZMA's header can ask for a dictionary of gigabytes.
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"
    with refused("compressed unusually"):
        vp.clip.load(npz_of(tmp_path / "w.npz", header, bytes(4), compression=zipfile.ZIP_LZMA))


def test_two_members_of_one_name_are_refused(tmp_path):
    path = archive_of(tmp_path / "w.pt", dictionary(WEIGHT, tensor()))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/data/0", bytes(16))
    with refused("have one name"):
        vp.clip.load(path)


def safetensors_of(path: Path, header: dict | str, content: bytes = bytes(16), length=None) -> Path:
    text_ = header if isinstance(header, str) else json.dumps(header)
    size = struct.pack("<Q", len(text_) if length is None else length)
    path.write_bytes(size + text_.encode() + content)
    return path


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAFETENSORS = {
    "a header of exabytes": ({}, 2**63, "a header of"),
    "a header of a gigabyte": ({}, 2**30, "a header of"),
    "overlapping tensors": ({"a": entry([4], 0, 16), "b": entry([2], 8, 16)}, None, "overlap"),
    "two tensors in one place": ({"a": entry([4], 0, 16), "b": entry([4], 0, 16)}, None, "overlap"),
    "a gap": ({"a": entry([1], 0, 4), "b": entry([1], 12, 16)}, None, "gaps"),
    "bytes left over": ({"a": entry([1], 0, 4)}, None, "where the file ends"),
    "beyond the end": ({"a": entry([8], 0, 32)}, None, "where the file ends"),
    "an impossible shape": ({"a": entry([2**39, 2**39], 0, 16)}, None, "which its shape does not"),
    "very many dimensions": ({"a": entry([10**4000] * 900, 0, 16)}, None, "900 dimensions"),
    "a place of very many digits": ({"a": entry([4], 10**4000, 16)}, None, "lie in the file"),
    "a negative shape": ({"a": entry([-2, -2], 0, 16)}, None, "no possible shape"),
    "a shape of truths": ({"a": entry([True], 0, 4)}, None, "no possible shape"),
    "a shape of floats": ({"a": entry([4.0], 0, 16)}, None, "no possible shape"),
    "nothing of very much": ({"a": entry([2**62, 0], 0, 0), "b": entry([4], 0, 16)}, None, "shape"),
    "a place from behind": ({"a": entry([4], 16, 0)}, None, "which its shape does not"),
    "another type": ({"a": entry([16], 0, 16, "F8_E4M3")}, None, "not supported"),
    "a type that is a list": ({"a": entry([16], 0, 16, ["F32"])}, None, "not a readable"),
    "no entry": ({"a": 3}, None, "not a readable"),
    "deep metadata": ('{"__metadata__": ' + "[" * 9000 + "]" * 9000 + "}", None, "levels deep"),
    "a name twice": (
        '{"a": %s, "a": %s}' % ((json.dumps(entry([4], 0, 16)),) * 2),
        None,
        "one key twice",
    ),
    "no object": ("[1]", None, "no JSON object"),
    "many tensors": (
        {f"t{i}": entry([0], 0, 0) for i in range(20_001)} | {"t": entry([4], 0, 16)},
        None,
        "more than 20,000",
    ),
    "a long name": ({"n" * 501: entry([4], 0, 16)}, None, "501 characters"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFETENSORS)
def test_a_hostile_safetensors_file_is_refused(tmp_path, name):
    header, length, message = SAFETENSORS[name]
    path = safetensors_of(tmp_path / "w.safetensors", header, length=length)
    with refused(message):
        vp.clip.load(path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("[" * 30_000, "levels deep"),
        ('{"weight_map": ' + '{"a":' * 500 + "1" + "}" * 500 + "}", "levels deep"),
        ('{"weight_map": {"a": "../w.safetensors"}}', "not a file beside it"),
        ('{"weight_map": {"a": "/dev/zero"}}', "not a file beside it"),
        ('{"weight_map": {"a": ".."}}', "not a file beside it"),
        ('{"weight_map": {"a": "model.safetensors.index.json"}}', "not a file beside it"),
        ('{"weight_map": {"a": "w\\u0000"}}', "not a file beside it"),
        ('{"weight_map": {"a": "w.safetensors", "b": "w.safetensors"}}', "do not hold"),
        ('{"weight_map": {"a": "w.safetensors", "v": "v.safetensors"}}', "two of its files"),
        ('{"weight_map": {"a": "missing.safetensors"}}', "no weights at"),
        ('{"weight_map": [' + "1," * 9_000_000 + "1]}", "more than 8,388,608 bytes"),
        ("9" * 10_000, "not a readable JSON"),
    ],
)
def test_a_hostile_index_is_refused(tmp_path, content, message):
    for name in ("w", "v"):
        safetensors_of(tmp_path / f"{name}.safetensors", {"a": entry([4], 0, 16)})
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with refused(message):
        vp.clip.load(tmp_path)


@pytest.mark.parametrize("block", ["3000000", "5", "9" * 5000, "01"])
def test_a_block_without_those_before_it_is_refused(tmp_path, block):
    tensors = random_tensors(TINY)
    tensors[f"visual.transformer.resblocks.{block}.ln_1.bias"] = np.zeros(4, np.float32)
    formats.write_safetensors(tmp_path / "w.safetensors", tensors, {})
    with refused(r"resblocks\.N\. with N = \d+, but none with N|characters"):
        vp.clip.load(tmp_path / "w.safetensors")


def test_very_many_blocks_are_refused(tmp_path):
    tensors = random_tensors(TINY)
    for i in range(2, 600):
        tensors[f"transformer.resblocks.{i}.x"] = np.zeros(1, np.float32)
    formats.write_safetensors(tmp_path / "w.safetensors", tensors, {})
    with refused(r"resblocks\.N\. with 599 different N"):
        vp.clip.load(tmp_path / "w.safetensors")


def test_a_config_of_very_many_blocks_is_refused(tiny_path, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(tiny_path.read_bytes())
    about = json.loads(tiny_path.with_suffix(".json").read_text())

    def enlarged(value, key=""):
        if isinstance(value, dict):
            return {k: enlarged(v, k) for k, v in value.items()}
        return 10**9 if "layers" in key else value

    (tmp_path / "w.json").write_text(json.dumps(enlarged(about)))
    with refused("1,000,000,000, which no tower"):
        vp.clip.load(tmp_path / "w.safetensors")


def test_a_pipe_or_a_device_beside_the_weights_is_not_read(tiny_path, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(tiny_path.read_bytes())
    os.mkfifo(tmp_path / "w.json")
    os.mkfifo(tmp_path / "config.json")
    assert vp.clip.load(tmp_path / "w.safetensors", activation="quick_gelu")
    with refused("no weights at /dev/zero"):
        vp.clip.load("/dev/zero")

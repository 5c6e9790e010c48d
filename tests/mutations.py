"""Ways to spoil files, and what becomes of `valid_files` by them.

An input is a number: the same number gives the same files, on every machine.
"""

import dataclasses
import functools
import io
import json
import pickletools
import random
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import GOLDEN
from tests.hostile import integer
from tests.valid_files import FEATURES, archive, arrow, legacy, npz, parquet, safetensors, vit

Spoiler = Callable[[random.Random, bytes], bytes]

# Numbers that sizes, offsets and counts may not be.
_NUMBERS = (-1, 0, 1, 2, 255, 2**16, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63 - 1, -(2**63))
_VALUES = (*_NUMBERS, 2**70, 0.5, 1e300, float("nan"), None, True, "", "gelu", "../x", [], {}, [3],
           {"a": 1}, "\x1b[31m", [[[[1]]]])  # fmt: skip


# Ways to spoil bytes, JSON, pickles and what is inside of archives.


def spoil_bytes(rng: random.Random, data: bytes) -> bytes:
    content = bytearray(data)
    # The parts that say how the rest is to be read lie at the two ends of most formats.
    reach = len(content) if rng.random() < 0.5 else min(len(content), 400)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(reach) if rng.random() < 0.6 else len(content) - 1 - rng.randrange(reach)
        at = min(max(at, 0), max(len(content) - 1, 0))
        way = rng.randrange(6)
        if way == 0 and content:
            content[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            content[at : at + 1] = rng.randbytes(1)
        elif way == 2:
            size = rng.choice((1, 2, 4, 8))
            content[at : at + size] = (rng.choice(_NUMBERS) % 256**size).to_bytes(size, "little")
        elif way == 3:
            del content[at : at + rng.choice((1, 4, 64))]
        elif way == 4:
            content[at:at] = content[at : at + rng.choice((1, 8, 200))]
        else:
            del content[at:]
        reach = min(reach, max(len(content), 1))
    return bytes(content)


def spoil_json(rng: random.Random, data: bytes) -> bytes:
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            break
        container, key = rng.choice(places)
        way = rng.randrange(6)
        if way == 0:
            del container[key]
        elif way == 1 and isinstance(container, dict):
            container[rng.choice(("x", "a.b", "num_heads", "layers"))] = container.pop(key)
        elif way == 2:
            container[key] = f"deep{rng.choice((1, 70, 900, 20_000))}"
        else:
            container[key] = rng.choice(_VALUES)
    # The module json could not write what is as deep as this.
    written = re.sub(
        r'"deep(\d+)"', lambda m: "[" * int(m[1]) + "0" + "]" * int(m[1]), json.dumps(value)
    )
    return written.encode()


def _places(value: Any):
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def spoil_pickle(rng: random.Random, data: bytes) -> bytes:
    """Opcodes left out, moved, repeated, replaced and put in, with arguments that fit or not."""
    starts: list[int] = []
    stream = io.BytesIO(data)
    while data[stream.tell() :].startswith(b"\x80"):  # several in a legacy file
        starts += [position for _, _, position in pickletools.genops(stream)]
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(pieces))
        way = rng.randrange(6)
        if way == 0:
            pieces.pop(at)
        elif way == 1:
            pieces.insert(at, rng.choice(pieces))
        elif way == 2:
            pieces[at:at] = pieces[rng.randrange(len(pieces)) :][: rng.choice((5, 50))]
        elif way == 3:
            pieces.insert(at, integer(rng.choice(_NUMBERS)))
        elif way == 4:
            code = rng.choice(pickletools.opcodes).code.encode("latin-1")
            pieces.insert(at, code + rng.choice((b"", b"1\n", b"os\nsystem\n", rng.randbytes(8))))
        elif pieces[at][:1] == b"\x8a":
            pieces[at] = integer(rng.choice(_NUMBERS))
        if not pieces:
            break
    return b"".join(pieces)


def inside_archive(spoil: Spoiler, suffix: str) -> Spoiler:
    """Spoils a member and writes the archive anew, so that its checksum is right."""

    def spoiled(rng: random.Random, data: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
            names = [name for name in old.namelist() if name.endswith(suffix)]
            chosen = rng.choice(names)
            for info in old.infolist():
                content = old.read(info)
                content = spoil(rng, content) if info.filename == chosen else content
                new.writestr(info.filename, content, info.compress_type)
        return buffer.getvalue()

    return spoiled


def spoil_header(rng: random.Random, data: bytes) -> bytes:
    """The JSON of a `.safetensors` file, its length made right."""
    length = int.from_bytes(data[:8], "little")
    header = spoil_json(rng, data[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def spoil_table(rng: random.Random, data: bytes) -> bytes:
    """A Parquet file whose columns, cells or features are others."""
    table = pq.read_table(io.BytesIO(data))
    way = rng.randrange(5)
    if way == 0:
        features = spoil_json(rng, json.dumps(FEATURES).encode())
        table = table.replace_schema_metadata({"huggingface": features})
    elif way == 1:
        column = rng.choice(table.column_names)
        cells = [rng.choice((None, 7)) for _ in range(6)] if rng.random() < 0.5 else ["x"] * 6
        odd = rng.choice((cells, [b"\xff"] * 6, [[1]] * 6, [{"path": "/dev/zero"}] * 6, [-1] * 6,
                          [0.5] * 6, [True] * 6, [{"bytes": "x"}] * 6, [None] * 6))  # fmt: skip
        table = table.set_column(table.column_names.index(column), column, pa.array(odd))
    elif way == 2:
        table = table.drop_columns([rng.choice(table.column_names)])
    elif way == 3:
        table = table.slice(0, rng.randrange(3))
    else:
        table = table.rename_columns([rng.choice(("image", "label", "", "\x1b")) for _ in "ab"])
    options = {"compression": rng.choice(("none", "snappy", "zstd"))}
    return spoil_bytes(rng, parquet(table, **options)) if way > 3 else parquet(table, **options)


_PICKLE = inside_archive(spoil_pickle, ".pkl")
_MEMBER = inside_archive(spoil_bytes, "")
# Every kind of input: what is read ("weights" or "table"), where, the valid files, and which of
# them is spoiled how.
Kind = tuple[str, str, dict[str, Callable[[], bytes]], str, tuple[Spoiler, ...]]


def _json(value: Any) -> Callable[[], bytes]:
    return lambda: json.dumps(value).encode()


def _golden(name: str) -> Callable[[], bytes]:
    return (GOLDEN / name).read_bytes


@functools.cache
def _own() -> bytes:
    """What this package writes beside weights that it converts."""
    from vprompt_jax.clip.checkpoints.load import open_checkpoint

    config = open_checkpoint(GOLDEN / "openai_vit_tiny.safetensors").config
    return json.dumps({"clip": dataclasses.asdict(config)}).encode()


def _index() -> bytes:
    return json.dumps({"metadata": {}, "weight_map": {n: "a.safetensors" for n in vit()}}).encode()


_BESIDE = {n: _golden(f"hf_vit_tiny/{n}") for n in ("config.json", "preprocessor_config.json")}
_CONFIG = {"config.json": _BESIDE["config.json"]}
_CLIP = {n: _golden(f"hf_clip_tiny/{n}") for n in ("model.safetensors", "config.json")}
_INDEX = "model.safetensors.index.json"
_SAVED = {
    "dataset_dict.json": _json({"splits": ["train"]}), "train/a.arrow": arrow,
    "train/state.json": _json({"_data_files": [{"filename": "a.arrow"}], "_indices": None}),
}  # fmt: skip
KINDS: tuple[Kind, ...] = (
    ("weights", "w.pt", _BESIDE | {"w.pt": archive}, "w.pt", (spoil_bytes, _PICKLE, _MEMBER)),
    ("weights", "w.pt", _BESIDE | {"w.pt": legacy}, "w.pt", (spoil_bytes, spoil_pickle)),
    ("weights", "w.pt", {"w.pt": _golden("openai_vit_tiny_jit_fp16.pt")}, "w.pt",
     (spoil_bytes, _PICKLE)),
    ("weights", "w.safetensors", _BESIDE | {"w.safetensors": safetensors}, "w.safetensors",
     (spoil_bytes, spoil_header)),
    ("weights", "w.npz", _BESIDE | {"w.npz": npz}, "w.npz", (spoil_bytes, _MEMBER)),
    ("weights", "", _BESIDE | {"a.safetensors": safetensors, _INDEX: _index}, _INDEX,
     (spoil_bytes, spoil_json)),
    ("weights", "w.npz", _BESIDE | {"w.npz": npz}, "config.json", (spoil_bytes, spoil_json)),
    ("weights", "", _CLIP, "config.json", (spoil_bytes, spoil_json)),
    ("weights", "w.safetensors",
     {"w.safetensors": _golden("openai_vit_tiny.safetensors"), "w.json": _own}, "w.json",
     (spoil_bytes, spoil_json)),
    ("weights", "w.pt", _BESIDE | {"w.pt": archive}, "preprocessor_config.json",
     (spoil_bytes, spoil_json)),
    ("table", "t.parquet", {"t.parquet": parquet}, "t.parquet", (spoil_bytes, spoil_table)),
    ("table", "", _SAVED, "train/a.arrow", (spoil_bytes,)),
    ("table", "", _SAVED, "train/state.json", (spoil_bytes, spoil_json)),
    ("table", "", _SAVED, "dataset_dict.json", (spoil_bytes, spoil_json)),
)  # fmt: skip


def write(number: int, folder: Path) -> tuple[str, Path]:
    """Writes an input into an empty folder: what reads it, and its path."""
    rng = random.Random(number)
    reader, start, files, spoiled, ways = KINDS[number % len(KINDS)]
    if folder.exists():
        shutil.rmtree(folder)
    way = rng.choice(ways)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content()
        (folder / name).write_bytes(way(rng, data) if name == spoiled else data)
    return reader, folder / start

"""Small valid files of every format that is read, as bytes."""

import functools
import io
import json
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.conftest import GOLDEN
from tests.hostile import dictionary, integer, storage, tensor, text, tuple_of


@functools.cache
def vit() -> dict[str, np.ndarray]:
    """The tensors of a ViT that transformers wrote."""
    from safetensors.numpy import load_file

    tensors = load_file(GOLDEN / "hf_vit_tiny" / "model.safetensors")
    return {name: array.astype(np.float32) for name, array in tensors.items()}


def _pickled(tensors: dict[str, np.ndarray], legacy: bool) -> bytes:
    items = []
    for i, (name, array) in enumerate(tensors.items()):
        of = storage(integer(array.size), text(str(i)), b"N" if legacy else b"")
        strides = np.cumprod([1, *array.shape[:0:-1]])[::-1]
        size, stride = (tuple_of(*(integer(int(n)) for n in v)) for v in (array.shape, strides))
        items += [text(name), tensor(of, integer(0), size, stride)]
    return b"\x80\x02" + dictionary(*items) + b"."


@functools.cache
def archive() -> bytes:
    """As `torch.save` writes it today."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", _pickled(vit(), legacy=False))
        for i, array in enumerate(vit().values()):
            file.writestr(f"a/data/{i}", array.tobytes())
    return buffer.getvalue()


@functools.cache
def legacy() -> bytes:
    """As `torch.save` wrote it before version 1.6."""
    arrays = list(vit().values())
    magic = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."
    system = b"\x80\x02}" + text("little_endian") + b"\x88s."
    keys = b"\x80\x02](" + b"".join(text(str(i)) for i in range(len(arrays))) + b"e."
    content = b"".join(struct.pack("<q", a.size) + a.tobytes() for a in arrays)
    return magic + b"\x80\x02M\xe9\x03." + system + _pickled(vit(), legacy=True) + keys + content


@functools.cache
def safetensors() -> bytes:
    from safetensors.numpy import save

    return save(vit(), {"format": "pt"})


@functools.cache
def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vit())
    return buffer.getvalue()


def images() -> pa.Table:
    rng = np.random.default_rng(0)
    cells = []
    for _ in range(6):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": "a.png"})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kind), "label": pa.array([0, 1] * 3)})
    return table.replace_schema_metadata({"huggingface": json.dumps(FEATURES)})


FEATURES = {"info": {"features": {
    "image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["disc", "tile"]},
}}}  # fmt: skip


def parquet(table: pa.Table | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(images() if table is None else table, buffer, **options)
    return buffer.getvalue()


@functools.cache
def arrow() -> bytes:
    buffer = io.BytesIO()
    table = images()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()

"""Parquet and Arrow files that attack: what their cells name, and what they unpack to."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.hostile import refused
from vprompt_jax.data import arrow_files, huggingface

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A dataset's folder, with a picture in it and one beside it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.png").write_bytes(png())
    (tmp_path / "out.png").write_bytes(png())
    os.mkfifo(tmp_path / "data" / "pipe.png")
    (tmp_path / "data" / "device.png").symlink_to("/dev/zero")
    (tmp_path / "data" / "link.png").symlink_to("../out.png")
    return tmp_path / "data"


def load(folder: Path, cells, kind=CELL):
    names = ["a", "b"][: len(cells)]
    table = pa.table({"image": pa.array(cells, kind), "label": names})
    pq.write_table(table, folder / "t.parquet")
    return huggingface.load(folder / "t.parquet", "", 32, 1)


@pytest.mark.parametrize(
    "name, message",
    [
        ("/dev/zero", "in .*folder|out of"),
        ("/dev/stdin", "in .*folder|out of"),
        ("../out.png", "in .*folder|out of"),
        ("x/../../out.png", "in .*folder|out of"),
        ("{folder}/../out.png", "in .*folder|out of"),
        ("~/out.png", "no file|No such file"),
        ("pipe.png", "no file|regular file"),
        ("device.png", "no file|regular file|in .*folder"),
        (".", "no file|regular file"),
        ("\0", "null|no file|regular file"),
        ("missing.png", "no file|No such file"),
    ],
)
@pytest.mark.parametrize("kind", [CELL, pa.string()])
def test_a_cell_names_files_of_the_dataset_only(folder, name, message, kind):
    name = name.format(folder=folder)
    with refused(message):
        load(folder, [{"bytes": None, "path": name} if kind is CELL else name], kind)


@pytest.mark.parametrize("name", ["in.png", "./x/../in.png", "{folder}/in.png"])
def test_a_cell_may_name_a_file_of_the_dataset(folder, name):
    cells = [{"bytes": None, "path": name.format(folder=folder)}, {"bytes": png(9), "path": None}]
    assert len(load(folder, cells).train) == 2


def test_links_in_the_folder_may_lead_out(folder):
    # The Hub's cache consists of such links.
    assert arrow_files.inside(folder, "link.png") == folder / "link.png"


@pytest.mark.parametrize(
    "cells, kind", [([7], pa.int64()), ([[1]], pa.list_(pa.int64())), ([True], pa.bool_())]
)
def test_a_cell_of_another_type_holds_no_image(folder, cells, kind):
    with refused("no image|for an image"):
        load(folder, cells, kind)


def write_saved(folder: Path, file_name: str, split: str = "train") -> None:
    table = pa.table({"image": pa.array([{"bytes": png(), "path": None}], CELL), "label": ["a"]})
    (folder / "train").mkdir()
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    state = {"_data_files": [{"filename": file_name}]}
    (folder / "train" / "state.json").write_text(json.dumps(state))
    with pa.ipc.new_stream(str(folder / "train" / "a.arrow"), table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("name", ["/dev/zero", "../in.png", "missing", "../pipe.png"])
def test_a_saved_folder_names_its_own_files_only(folder, name):
    write_saved(folder, name)
    with refused("cannot read the dataset"):
        huggingface.load(folder, "", 32, 1)


def test_a_saved_folder_names_its_own_splits_only(folder):
    write_saved(folder, "a.arrow", "../data/train")
    with refused("cannot read the dataset|no train or test split"):
        huggingface.load(folder, "", 32, 1)


def test_a_damaged_arrow_file_is_not_followed_out_of_itself(folder):
    write_saved(folder, "a.arrow")
    path = folder / "train" / "a.arrow"
    offsets = np.array([0, len(png())], "<i4").tobytes()
    content = path.read_bytes()
    assert offsets in content
    for wrong in ([0, 2**31 - 1], [-(2**31), 5], [2**30, 2**30 + 9]):
        path.write_bytes(content.replace(offsets, np.array(wrong, "<i4").tobytes()))
        with refused("cannot read the dataset"):
            huggingface.load(folder, "", 32, 1)


def test_few_bytes_that_stand_for_very_many_are_refused(folder):
    cell = {"bytes": bytes(10_000_000), "path": None}
    table = pa.table({"image": pa.array([cell] * 20, CELL), "label": ["a"] * 20})
    path = folder / "t.parquet"
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=10**8)
    assert path.stat().st_size < 5000
    with refused("unpacks to 200,0"):
        huggingface.load(path, "", 32, 1)


def test_very_many_rows_of_nothing_are_refused(folder):
    table = pa.table({"image": pa.nulls(10**6, CELL), "label": pa.nulls(10**6, pa.int64())})
    pq.write_table(table, folder / "t.parquet", compression="zstd")
    with refused("1,000,000 rows in"):
        huggingface.load(folder / "t.parquet", "", 32, 1)


@pytest.mark.parametrize(
    "features",
    [
        "[" * 30_000,
        "[]",
        '{"info": 3}',
        '{"info": {"features": [1]}}',
        '{"info": {"features": {"label": {"_type": "ClassLabel", "names": [1, 2]}}}}',
        '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}}',
    ],
)
def test_features_that_are_none_are_refused(folder, features):
    table = pa.table({"image": pa.array([{"bytes": png(), "path": None}], CELL), "label": [0]})
    table = table.replace_schema_metadata({"huggingface": features})
    pq.write_table(table, folder / "t.parquet")
    with refused(r"t\.parquet"):
        huggingface.load(folder / "t.parquet", "", 32, 1)

"""Pickles that attack, and those of torch, which must be read."""

import pickletools
import struct
import zipfile

import numpy as np
import pytest

import vprompt_jax as vp
from tests.hostile import (
    ONE,
    REBUILD,
    WEIGHT,
    archive_of,
    dictionary,
    integer,
    refused,
    storage,
    tensor,
    text,
    tuple_of,
)  # fmt: skip
from vprompt_jax.clip.checkpoints import formats


def test_the_pieces_make_up_a_readable_file(tmp_path):
    path = archive_of(tmp_path / "w.pt", dictionary(WEIGHT, tensor()))
    np.testing.assert_array_equal(formats.read_arrays(path)["w"], np.arange(4))


# A state that would change the size, strides and place of a tensor that has been checked.
STATE = dictionary(
    text("size"), tuple_of(integer(16), integer(64)), text("stride"),
    tuple_of(integer(-64), integer(1)), text("offset"), integer(1000),
)  # fmt: skip


def shared_dictionaries(levels: int) -> bytes:
    """A tuple of dictionaries, each twice in the next."""
    steps = [b"}(" + WEIGHT + tensor() + b"uq\0"]
    for level in range(1, levels):
        get = b"h" + bytes([level - 1])
        steps.append(b"}(" + text("a") + get + text("b") + get + b"uq" + bytes([level]))
    return b"(" + b"".join(steps) + b"t"


def last_of(levels: int) -> bytes:
    """Two entries of the last of `shared_dictionaries`, which lie in a tuple."""
    return dictionary(
        text("ignored"), shared_dictionaries(levels), text("root"), b"h" + bytes([levels - 1])
    )


PICKLES = {
    "a state for a tensor": (dictionary(WEIGHT, tensor() + STATE + b"b"), "sets the state"),
    "a state of slots": (
        dictionary(WEIGHT, tensor() + b"N" + STATE + b"\x86b"),
        "sets the state",
    ),
    "a state for a storage": (
        dictionary(WEIGHT, tensor(storage() + STATE + b"b")),
        "sets the state",
    ),
    "a state for a storage's type": (b"ctorch\nFloatStorage\n" + STATE + b"b", "sets the state"),
    "a state for a function": (REBUILD + STATE + b"b", "sets the state"),
    "a state for a dictionary": (b"}" + STATE + b"b", "sets the state"),
    "two states for a module": (
        b"c__torch__\nM\n)\x81" + 2 * (dictionary(WEIGHT, tensor()) + b"b"),
        "sets the state",
    ),
    "a state for nothing": (b"}b", "needs a value"),
    "shared dictionaries": (last_of(28), "more than 200,000"),
    "a dictionary in itself": (b"}q\0" + text("a") + b"h\0s", "64 deep"),
    "a module in itself": (b"c__torch__\nM\n)\x81q\0}" + text("a") + b"h\0sb", "64 deep"),
    "3,000 dictionaries in each other": (
        b"}" + (text("a") + b"}") * 3000 + b"s" * 3000,
        "64 deep",
    ),
    "300,000 lists in each other": (b"]" * 300_000 + b"a" * 299_999, "no tensors"),
    "300,000 tuples in each other": (b")" + b"\x85" * 300_000, "no tensors"),
    "nested tuples as a key": (
        b"}K\1" + b"q\0h\0\x86" * 60 + b"Ns",
        "neither text nor a number",
    ),
    "a list as a key": (b"}]Ns", "neither text nor a number"),
    "an integer of 100 bytes as a key": (b"}\x8a\x64" + b"\7" * 100 + b"Ns", "neither text"),
    "a memo index of 2^27": (b"}r" + struct.pack("<I", 2**27), "under the number"),
    "a memo index of 2^32 - 1": (b"}r" + b"\xff" * 4, "under the number"),
    "an unknown memo index": (b"h\7", "did not store"),
    "BINBYTES8 of terabytes": (b"\x8e" + struct.pack("<Q", 2**40), "bytes are left|bytes where"),
    "BYTEARRAY8 of terabytes": (b"\x96" + struct.pack("<Q", 2**40), "bytes where"),
    "BINUNICODE8 of exabytes": (b"\x8d" + b"\xff" * 8, "bytes where"),
    "BINUNICODE of gigabytes": (b"X" + b"\xff" * 4, "bytes where"),
    "BINBYTES of gigabytes": (b"B" + b"\xff" * 4, "bytes where"),
    "BINSTRING of minus one": (b"T" + b"\xff" * 4, "bytes where"),
    "LONG4 of gigabytes": (b"\x8b" + struct.pack("<i", 2**31 - 1), "an integer of"),
    "LONG4 of minus one": (b"\x8b" + b"\xff" * 4, "bytes where"),
    "a frame of exabytes": (b"\x95" + b"\xff" * 8 + b"}", "a frame"),
    "protocol 200": (b"\x80\xc8}", "protocol 200"),
    "a name without an end": (b"c" + b"a" * 2000, "without an end"),
    "a name by numbers": (b"K\1K\2\x93", "no text"),
    "nothing": (b"", "left over"),
    "a mark": (b"(", "left over"),
    "an end without a mark": (b"t", "did not begin"),
    "a key without a value": (dictionary(WEIGHT), "key without a value"),
    "items for a list": (b"]K\1K\2s", "needs a value of type dict"),
    "an element for a dictionary": (b"}K\1a", "needs a value of type list"),
    "a call of a number": (b"K\1)R", "no function"),
    "a call without arguments": (REBUILD + b"K\1R", "without arguments"),
    "a tensor of nothing": (REBUILD + b")R", "not a readable"),
    "a tensor of numbers": (dictionary(WEIGHT, tensor(b"K\1")), "without a storage"),
    "a negative stride": (
        dictionary(WEIGHT, tensor(stride=tuple_of(integer(-1)))),
        "no counts",
    ),
    "a negative offset": (dictionary(WEIGHT, tensor(offset=integer(-1))), "no counts"),
    "a size of floats": (
        dictionary(WEIGHT, tensor(size=tuple_of(b"G" + struct.pack(">d", 4)))),
        "no counts",
    ),
    "a size of truths": (dictionary(WEIGHT, tensor(size=b"\x88\x85")), "no counts"),
    "a size in a list": (dictionary(WEIGHT, tensor(size=b"]")), "without a size"),
    "a size of 2^60": (dictionary(WEIGHT, tensor(size=tuple_of(integer(2**60)))), "no counts"),
    "a size beyond the storage": (
        dictionary(WEIGHT, tensor(size=tuple_of(integer(5)))),
        "beyond its storage",
    ),
    "100 dimensions": (
        dictionary(WEIGHT, tensor(size=tuple_of(*[integer(1)] * 100), stride=b")")),
        "100 dimensions",
    ),
    "a number shown as terabytes": (
        dictionary(
            WEIGHT,
            tensor(size=tuple_of(integer(2**38)), stride=tuple_of(integer(0))),
        ),
        "stand for",
    ),
    "a storage of a negative length": (
        dictionary(WEIGHT, tensor(storage(integer(-4)))),
        "without a name or size",
    ),
    "a storage longer than its member": (
        dictionary(WEIGHT, tensor(storage(integer(5)))),
        "shorter than its 5 numbers",
    ),
    "a storage of two lengths": (
        dictionary(WEIGHT, tensor(), text("v"), tensor(storage(integer(3)))),
        "two types or lengths",
    ),
    "a storage elsewhere": (
        dictionary(WEIGHT, tensor(storage(key=text("../../w")))),
        "missing in the archive",
    ),
    "a storage without a name": (
        dictionary(WEIGHT, tensor(storage(key=b"]"))),
        "without a name",
    ),
    "a storage that is a view": (
        dictionary(WEIGHT, tensor(storage(rest=tuple_of(text("v"), b"K\0K\4")))),
        "a view of another",
    ),
    "a storage by text": (text("storage") + b"Q", "no storage"),
    "os.system": (b"cos\nsystem\n" + tuple_of(text("true")) + b"R", r"asks for os\.system"),
    "builtins.eval on a stack": (text("builtins") + text("eval") + b"\x93", r"builtins\.eval"),
    "torch.load": (b"ctorch\nload\n", r"torch\.load"),
    "a long tensor's name": (dictionary(text("w" * 600), tensor()), "more than 500"),
    "names that double": (
        b"}q\0" + text("k" * 400) + b"q\1}" + b"h\1" + tensor() + b"ss",
        "more than 500",
    ),
}
# What pickles may hold and torch does not write: other opcodes could bring what is thought of here.
for _opcode in pickletools.opcodes:
    if _opcode.code in "PioIFLSVdlgp201\x82\x83\x84\x92\x97\x98":
        PICKLES[f"the opcode {_opcode.name}"] = (
            b"]]" + _opcode.code.encode("latin-1") + b"1\n1\n" + b"\0" * 8,
            "which torch does not write",
        )


@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle_is_refused(tmp_path, name):
    content, message = PICKLES[name]
    path = archive_of(tmp_path / "w.pt", content)
    with refused(rf"w\.pt.*({message})"):
        vp.clip.load(path)


def test_a_long_list_is_not_copied_again_and_again(tmp_path):
    # One list of pairs as the argument of many OrderedDicts: 10^5 x 10^5 steps.
    pairs = b"](" + (text("a") + b"N\x86") * 100_000 + b"e\x85q\0"
    content = b"(" + pairs + b"ccollections\nOrderedDict\nq\1" + b"h\1h\0R" * 100_000 + b"t"
    with refused("no tensors"):
        vp.clip.load(archive_of(tmp_path / "w.pt", content))


def test_a_pickle_of_very_many_opcodes_is_refused(tmp_path):
    with refused("more than 2,000,000 opcodes"):
        vp.clip.load(archive_of(tmp_path / "w.pt", b"(" + b"N" * 2_100_000 + b"t"))


def test_a_small_archive_with_a_large_pickle_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(2**26))
    with refused("unpacks to|bytes, more than"):
        vp.clip.load(tmp_path / "w.pt")


def test_a_legacy_file_with_a_negative_length_is_refused(tmp_path):
    start = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."
    system = b"\x80\x02}" + text("little_endian") + b"\x88s."
    root = b"\x80\x02" + dictionary(WEIGHT, tensor(storage(integer(-4), rest=b"N"))) + b"."
    for content in (root, root.replace(integer(-4), integer(2**40))):
        (tmp_path / "w.pt").write_bytes(
            start + b"\x80\x02M\xe9\x03." + system + content + b"\x80\x02](" + text("0") + b"e."
        )
        with refused("without a name or size|does not hold"):
            vp.clip.load(tmp_path / "w.pt")


def test_views_of_one_storage_read_it_once(tmp_path, monkeypatch):
    views = [
        piece
        for i in range(50)
        for piece in (text(f"v{i}"), tensor(offset=integer(i % 4), size=ONE))
    ]
    path = archive_of(tmp_path / "w.pt", dictionary(*views))
    tensors = formats.read_tensors(path)
    reads = []
    whole = zipfile.ZipExtFile.read
    monkeypatch.setattr(
        zipfile.ZipExtFile, "read", lambda file, *a: reads.append(file.name) or whole(file, *a)
    )
    assert [float(tensors[f"v{i}"].read()[0]) for i in range(50)] == [i % 4 for i in range(50)]
    assert len(reads) == 1


# Files that torch itself writes today.


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("archive", [True, False])
def test_what_torch_saves_is_read(tmp_path, protocol, archive):
    torch = pytest.importorskip("torch")
    base = torch.arange(48, dtype=torch.float32).reshape(6, 8)
    state = {
        "base": base, "part": base[2:5, ::2], "turned": base.t(), "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.5), "expanded": torch.ones(1, 4).expand(3, 4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    for kind in ("bfloat16", "float16", "float64", "int64", "int32", "int16", "int8", "uint8"):
        state[kind] = torch.arange(5).to(getattr(torch, kind))
    state["bool"] = torch.tensor([True, False])
    whole = {
        "state_dict": state, "epoch": 3, "loss": [0.1, 0.2], "seen": {1, 2}, "seed": 2**70,
        "hash": b"abc", "buffer": bytearray(b"abc"), "size": torch.Size([1, 2]),
        "dtype": torch.float32, "fixed": frozenset([1]), "mean": np.float64(0.5),
        "optimizer": {"state": {0: {"step": base}}},
    }  # fmt: skip
    path = tmp_path / "w.pt"
    for prefix, saved in (("", state), ("state_dict.", whole)):
        torch.save(saved, path, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
        read = formats.read_arrays(path)
        assert list(read) == [prefix + name for name in state]
        for name, value in state.items():
            want = value.detach()
            assert read[prefix + name].dtype.name == str(want.dtype).removeprefix("torch.")
            np.testing.assert_array_equal(
                np.asarray(read[prefix + name], np.float64), want.double().numpy()
            )


def test_a_module_saved_whole_is_refused_with_the_way_out(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    with refused(r"asks for torch\.nn\..*Linear.*state_dict\(\)"):
        vp.clip.load(tmp_path / "w.pt")

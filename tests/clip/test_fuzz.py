"""Thousands of spoiled files of every format: each is read or refused, soon, in little memory.

The inputs are those of `tests.mutations`: byte flips, truncations and hostile numbers in files, in
the members of archives and in headers; opcodes and JSON changed at random; and pickles that
Hypothesis puts together. The 10,000 of the slow test take 200 seconds in two workers, the slowest
of them 2 seconds, and 50 MB at most; the 200 of the other one take 10 seconds.
"""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import fuzzing, mutations
from tests.hostile import ORDERED, REBUILD, integer, storage, tensor, text
from vprompt_jax.clip.checkpoints import pickles
from vprompt_jax.process.errors import UserError

_FEW, _MANY = 200, 10_000
_PIECES = st.one_of(
    st.binary(min_size=1, max_size=1),
    st.binary(max_size=9),
    st.integers(-(2**63), 2**63 - 1).map(integer),
    st.sampled_from([
        b"}", b"]", b")", b"(", b"t", b"u", b"s", b"a", b"e", b"R", b"b", b"\x81", b"\x85", b"Q",
        b"q\0", b"h\0", b"\x94", REBUILD, ORDERED, storage(), tensor(), text("size"),
        b"c__torch__\nM\n", b"cargparse\nNamespace\n",
    ]),
)  # fmt: skip


@pytest.mark.parametrize("kind", range(len(mutations.KINDS)))
def test_what_is_spoiled_was_good(tmp_path, kind):
    reader, start, files, _, _ = mutations.KINDS[kind]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content())
    fuzzing._read(reader, tmp_path / start)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.lists(_PIECES, max_size=30).map(b"".join))
def test_any_pickle_is_a_plain_value_or_an_error(content):
    content = b"\x80\x02" + content + b"."
    storages = pickles.Storages(lambda key, size: bytes(size))
    try:
        value = pickles.TensorReader(io.BytesIO(content), len(content), storages).read()
    except (ValueError, TypeError, AttributeError, UserError):
        return
    assert type(value).__module__ in ("builtins", pickles.__name__)


def test_spoiled_files_are_read_or_refused():
    _check(fuzzing.run(range(_FEW)))


@pytest.mark.slow
def test_many_spoiled_files_are_read_or_refused():
    _check(fuzzing.run(range(_FEW, _FEW + _MANY)))


def _check(summary: fuzzing.Summary) -> None:
    print(f"{summary.read} read, {summary.refused} refused; at most {summary.slowest:.1f} s and "
          f"{summary.largest:.0f} MB")  # fmt: skip
    listed = "\n".join(f"input {n}: {what}" for n, what in list(summary.findings.items())[:10])
    assert not summary.findings, f"{len(summary.findings)} findings:\n{listed}"
    assert summary.refused > summary.read / 4  # they are spoiled indeed

"""The notebooks run from a clean kernel, and are stored with the outputs of a run."""

import importlib.util
import itertools

import nbformat
import pytest

from tests.conftest import ROOT

NAMES = sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # the suite's virtual devices
    spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    notebook = program.execute(ROOT / "notebooks" / name)
    stored = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    assert list(map(kinds, notebook.cells)) == list(map(kinds, stored.cells))


def kinds(cell):
    """Of a cell's outputs; into how many parts a stream falls depends on the time it takes."""
    return [kind for kind, _ in itertools.groupby(o.output_type for o in cell.get("outputs", ()))]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_as_it_ran(name):
    cells = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells
    code = [c for c in cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert any("image/png" in o.get("data", {}) or o.get("text") for c in code for o in c.outputs)
    texts = [str(c.outputs) + c.source for c in code]
    assert not any("/tmp" in t or "/home" in t or "/root" in t for t in texts)

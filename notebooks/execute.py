"""Runs notebooks from a clean kernel and keeps their outputs: python notebooks/execute.py [FILE...]

Progress lines and warnings (stderr) are dropped: they differ from run to run.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(path: Path, timeout: int = 1200) -> nbformat.NotebookNode:
    """The executed notebook; it runs in an empty folder.

    Args:
      path: of the notebook.
      timeout: seconds a cell may take.

    Raises:
      nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook, timeout=timeout, kernel_name="python3", resources=resources
        ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return notebook


def main(arguments: Sequence[str]) -> None:
    for path in [Path(a) for a in arguments] or sorted(HERE.glob("*.ipynb")):
        nbformat.write(execute(path), path)
        print(f"executed {path.name}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Names that mean something to a terminal, a spreadsheet, Markdown, HTML or matplotlib."""

import types

import numpy as np
import pytest
from matplotlib.figure import Figure

from vprompt_jax.data import card
from vprompt_jax.data.dataset import Dataset, Split
from vprompt_jax.process import escapes, program
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable
from vprompt_jax.report import gallery
from vprompt_jax.report.results import Record
from vprompt_jax.report.tables import Table, as_csv

CLASSES = ("a$b_{$", "$", "$x^$ and \\$", "\x1b[31mred", "_hidden")


@pytest.mark.parametrize(
    "name, shown",
    [
        ("a\x1b[31mb.png", "a\\x1b[31mb.png"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\nc\td\x08", "a\\rb\\nc\\td\\x08"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\xff"),
        ("Größe 图 é", "Größe 图 é"),
    ],
)
def test_a_terminal_has_nothing_to_obey(name, shown):
    assert printable(name) == shown


def test_an_error_keeps_its_lines_and_shows_escapes(capsys):
    with pytest.raises(SystemExit), program.user_errors():
        raise UserError("two files:\n  a\x1b[31mb.png\n  c\rd.png")
    assert capsys.readouterr().err == "error: two files:\n  a\\x1b[31mb.png\n  c\\rd.png\n"


@pytest.mark.parametrize("start", "=+-@\t\r")
def test_a_spreadsheet_takes_no_cell_for_a_formula(start, tmp_path):
    result = {"name": f"{start}1+1", "seed": -1, "test_accuracy": 0.5}
    record = Record(tmp_path, {f"{start}key": f"{start}HYPERLINK()"}, result)
    lines = as_csv([record]).split("\n", 1)
    assert f"'{start}1+1" in lines[1]
    assert ",-1," in lines[1]
    assert f",{start}" not in lines[1].replace(",-1,", ",")
    assert not lines[1].startswith(start)


def test_a_table_s_cells_are_text():
    table = Table("T|<b>", ["run|1"], [["a|b<script>`x`\n[l](javascript:1)\x1b"]])
    lines = table.markdown().splitlines()
    assert len(lines) == 5
    assert lines[-1] == r"| a\|b&lt;script>\`x\`\\n\[l\](javascript:1)\\x1b |"
    assert "<b>" not in table.html()
    assert "<script>" not in table.html()
    assert "\x1b" not in table.html() + table.latex()


@pytest.mark.parametrize("name", CLASSES)
def test_a_figure_shows_a_name_as_it_is(name):
    figure = Figure()
    axes = figure.add_subplot()
    axes.set_title(escapes.in_figure(name))
    figure.canvas.draw()
    shown, is_math = axes.title._preprocess_math(axes.title.get_text())
    assert not is_math
    assert shown == printable(name)


def test_sample_grids_and_galleries_take_any_class_name(tmp_path):
    images = np.zeros((len(CLASSES), 8, 8, 3), np.uint8)
    labels = np.arange(len(CLASSES), dtype=np.int32)
    split = Split(labels, lambda i: images[i], [str(i) for i in labels])
    dataset = Dataset("\x1b]0;title\x07", CLASSES, split, None, split)
    card.save_grid(dataset, tmp_path / "grid.png")
    assert "\x1b" not in card.of_dataset(dataset)
    shown = {"image": images / 255, "prompted": images / 255}
    model = types.SimpleNamespace(
        inspect=lambda images: shown, prompt=images[0] / 255, on_screen=lambda prompt: prompt
    )
    figure = gallery.prompted([("AP,\n$x_{$", model)], images, CLASSES)
    figure.canvas.draw()
    assert "AP,\n\\$x_{\\$\nprompt, nearly zero" in [axes.get_title() for axes in figure.axes]

"""Results as tables, in Markdown, LaTeX, HTML and CSV."""

import csv
import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vprompt_jax.config.files import shareable
from vprompt_jax.methods import registry
from vprompt_jax.methods.table import title_of
from vprompt_jax.process.escapes import in_html, in_markdown, in_spreadsheet
from vprompt_jax.process.printable import printable
from vprompt_jax.report import published
from vprompt_jax.report.results import (
    Groups,
    Record,
    Setting,
    accuracies,
    spread,
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table of texts.

    Attributes:
      title, header, rows: of the table.
      best: cells, by row and column, that hold their column's best value.
      names: number of columns, the first ones, that say what a row is; the others hold numbers.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()
    names: int = 1

    def _marked(self, escape: Callable[[str], str], mark: str) -> list[list[str]]:
        """The rows' cells, escaped, and the best ones put in a mark's place {}."""
        return [
            [
                mark.format(escape(cell)) if (i, j) in self.best else escape(cell)
                for j, cell in enumerate(row)
            ]
            for i, row in enumerate(self.rows)
        ]

    def markdown(self) -> str:
        head = [list(map(in_markdown, self.header)), ["---"] * len(self.header)]
        lines = [*head, *self._marked(in_markdown, "**{}**")]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"**{in_markdown(self.title)}**\n\n{body}\n"

    def html(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            of_names = [f'<{tag} class="name">{c}</{tag}>' for c in cells[: self.names]]
            others = [f"<{tag}>{c}</{tag}>" for c in cells[self.names :]]
            return f"<tr>{''.join([*of_names, *others])}</tr>"

        body = "\n".join(row(r, "td") for r in self._marked(in_html, "<strong>{}</strong>"))
        head = row([in_html(c) for c in self.header], "th")
        return (
            f"<table><caption><span>{in_html(self.title)}</span></caption>\n"
            f"<thead>{head}</thead>\n<tbody>{body}</tbody></table>\n"
        )

    def latex(self) -> str:
        """A `table` for the booktabs package, its special characters escaped."""
        columns = "l" * self.names + "r" * (len(self.header) - self.names)
        marked = self._marked(_escaped, r"\textbf{{{}}}")
        body = "\n".join(" & ".join(r) + r" \\" for r in marked)
        return (
            f"\\begin{{table}}\n\\centering\n\\caption{{{_escaped(self.title)}}}\n"
            f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
            f"{' & '.join(map(_escaped, self.header))} \\\\\n\\midrule\n{body}\n"
            "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
        )


def best_of_column(values: Sequence[float | None], column: int) -> frozenset[tuple[int, int]]:
    """The cells of a column whose values are the highest, if they differ."""
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return frozenset()
    return frozenset((i, column) for i, value in enumerate(values) if value == max(known))


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}",
               "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"}  # fmt: skip
    special |= {c: f"\\{c}" for c in "&%$#_{}"}
    return "".join(special.get(c, c) for c in printable(text))


def label(key: str) -> str:
    """A config key as a table's heading shows it."""
    field = registry.all_fields().get(key)
    if field is not None and field.key.label:
        return field.key.label
    return key.replace(".learning_rate", " lr")


def shown(value: Any) -> str:
    """A config value as a table shows it."""
    if isinstance(value, tuple):
        return " ".join(map(shown, value)) or "-"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def describe(setting: Setting) -> str:
    """A setting in one line, for a legend."""
    values = dict(setting)
    name = title_of(values.pop("method.name"))
    rest = [f"{label(k).split(' (')[0]} {shown(shareable(k, v))}" for k, v in values.items()]
    return ", ".join([name, *rest])


def keys_of(groups: Groups) -> list[str]:
    """Keys that the settings differ in, in the settings' own order."""
    return list(dict.fromkeys(key for setting in groups for key, _ in setting))


def cells(setting: Setting, keys: Sequence[str]) -> list[str]:
    values = dict(setting)
    return [
        title_of(values[k]) if k == "method.name" else shown(shareable(k, values.get(k)))
        for k in keys
    ]  # fmt: skip


def summary(groups: Groups) -> Table:
    """A row per setting: means and sample deviations over the seeds, parameters, time."""
    keys = keys_of(groups)
    rows = []
    for setting, by_seed in groups.items():
        results = [r.result for r in by_seed.values()]
        on = np.array([r["regions_on"] for r in results if r["regions_on"] is not None])
        rates = [r["images_per_second"] for r in results if r["images_per_second"]]
        val = np.array([v for r in results if (v := r["val_accuracy_best"]) is not None])
        rows.append([
            *cells(setting, keys),
            spread(accuracies(by_seed)),
            spread(val) if len(val) else "-",
            spread(on) if len(on) else "-",
            f"{results[0]['trainable_parameters']:,}",
            f"{np.mean([r['seconds'] for r in results]):.0f}",
            f"{np.mean(rates):.0f}" if rates else "-",
            str(len(by_seed)),
        ])  # fmt: skip
    header = [*map(label, keys), "test accuracy (%)", "val, best (%)",
              "regions on (%)", "trained parameters", "seconds", "images/s", "seeds"]  # fmt: skip
    best = best_of_column([float(accuracies(g).mean()) for g in groups.values()], len(keys))
    # What no run has, such as regions of a mask, has no column. It stands right of what is marked.
    known = [i for i in range(len(header)) if any(row[i] != "-" for row in rows)]
    header, *rows = ([row[i] for i in known] for row in (header, *rows))
    return Table("Test accuracy: mean ± sample deviation over seeds", header, rows, best)


def against_published(records: Sequence[Record]) -> tuple[Table | None, str]:
    """Printed values beside ours, and a sentence about those that have none beside them."""
    rows = [
        [
            f"{title_of(value.method)}, {value.dataset}"
            + "".join(f", {label(k)} {v}" for k, v in value.keys.items()),
            f"{value.percent:.1f}", value.where, ours, marks or "nothing",
        ]
        for value, ours, marks in published.beside(records)
    ]  # fmt: skip
    header = ["run", "printed (%)", "where", "ours (%)", "ours differs in"]
    table = Table(f"Beside the paper ({published.ADAVIPRO})", header, rows) if rows else None
    # The user's own data have nothing to do with what the paper measured.
    on_paper = [r for r in records if published.dataset_of(r) in published.DATASETS]
    seen = [value for value, _, _ in published.beside(records)]
    left = [
        f"{title_of(p.method)} {p.dataset} {p.percent}"
        for p in published.ACCURACIES
        if p not in seen and any(r.method == p.method for r in on_paper)
    ]
    note = ""
    if left:
        note = (
            f"Not comparable with these runs, which are on other data or settings: the paper's "
            f"{'; '.join(left)} % ({published.ADAVIPRO})."
        )
    if any(r.method in published.DIFFERENCES_OF for r in on_paper):
        printed = "; ".join(
            f"{what}: {points:+.1f} ({where})" for what, points, where in published.DIFFERENCES
        )
        note += f" Differences it prints, in points: {printed}."
    return table, note


def as_csv(records: Sequence[Record]) -> str:
    """One line per run: the scalars of its result, and every config value as `config.KEY`.

    Texts that a spreadsheet would run as formulas have an apostrophe before them.
    """
    scalars = (str, int, float, bool, type(None))
    lines = [
        {
            in_spreadsheet(key): in_spreadsheet(value) if isinstance(value, str) else value
            for key, value in (
                {k: v for k, v in r.result.items() if isinstance(v, scalars)}
                | {f"elsewhere.{name}": accuracy for name, accuracy in r.elsewhere.items()}
                | {f"config.{k}": shareable(k, v) for k, v in r.config.items()}
            ).items()
        }
        for r in records
    ]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()

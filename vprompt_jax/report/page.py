"""The report as one HTML page that needs no other file."""

import base64
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import vprompt_jax
from vprompt_jax.process.escapes import in_html
from vprompt_jax.report.pictures import Picture
from vprompt_jax.report.results import Record
from vprompt_jax.report.tables import Table

MADE_BY = "Made by vprompt_jax"  # by which a report is known again
_STYLE = """\
:root { color-scheme: light dark; --text: #1a1a1a; --page: #fff; --quiet: #444; --line: #ddd;
        --link: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --page: #16181c; --quiet: #b5b5b5; --line: #3a3f47; --link: #8ab8f0; }
}
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: var(--text); background: var(--page); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
a { color: var(--link); } p { max-width: 46rem; }
figure { margin: 1.5rem 0; }
figure img { height: auto; max-width: 100%; background: #fff; border-radius: 4px; display: block; }
figcaption, caption { color: var(--quiet); text-align: left; font-size: 0.9rem; padding: 0.4rem 0; }
figcaption, caption span { max-width: min(46rem, calc(100vw - 2rem)); }
caption span { position: sticky; left: 0; display: inline-block; }
.wide { overflow-x: auto; }
.wide:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; margin: 0 0 1.5rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid var(--line); text-align: right; }
td { white-space: nowrap; } th { vertical-align: bottom; }
th.name, td.name { text-align: left; }
th:first-child, td:first-child { padding-left: 0; }
td:first-child { white-space: normal; min-width: 9rem; }
thead th { border-bottom: 2px solid var(--quiet); }
@media (max-width: 40rem) {
  body { margin: 1rem auto; } th, td { padding: 0.25rem 0.5rem; }
  figure img { max-width: 44rem; }
}
@media print { body { margin: 0; } }
"""


def _scrolling(content: str, name: str) -> str:
    """An area that scrolls sideways, by keyboard as well."""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{in_html(name)}">{content}</div>'
    )


def _image(path: Path, picture: Picture) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    with Image.open(path) as image:
        width = round(image.width * 96 / 150)  # saved with 150 pixels per inch, a page has 96
    shown = (
        f'<img alt="{in_html(picture.seen)}" width="{width}" src="data:image/png;base64,{data}">'
    )
    caption = in_html(picture.caption)
    return (
        f"<figure>{_scrolling(shown, picture.caption)}<figcaption>{caption}</figcaption></figure>"
    )


def render(
    title: str,
    facts: str,
    tables: Sequence[Table],
    note: str,
    pictures: Sequence[Picture],
    records: Sequence[Record],
    out: Path,
) -> str:
    """The page.

    Args:
      title: its heading.
      facts: a sentence on all runs.
      tables: in order.
      note: on the papers' values; may be empty.
      pictures: whose PNG files lie in `out`; they are put into the page.
      records: listed at the end, with links to their folders.
      out: folder of the page.
    """
    versions = sorted({
        ", ".join(f"{k} {v}" for k, v in r.result.get("versions", {}).items()) for r in records
    })  # fmt: skip
    body = [f"<h1>{in_html(title)}</h1>", f"<p>{in_html(facts)}</p>", "<h2>Tables</h2>"]
    body += [_scrolling(table.html(), table.title) for table in tables]
    if note:
        body.append(f"<p>{in_html(note)}</p>")
    if pictures:
        body.append("<h2>Figures</h2>")
        body += [_image(out / f"{picture.name}.png", picture) for picture in pictures]
    body += ["<h2>Runs</h2>", "<ul>", *(f"<li>{_run(r, out)}</li>" for r in records), "</ul>"]
    body.append(f"<p>{MADE_BY} {vprompt_jax.__version__} from runs with ")
    body.append(f"{in_html('; '.join(versions))}.</p>")
    content = "\n".join(body)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{in_html(title)}</title>\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{_STYLE}</style></head>\n<body>\n{content}\n</body></html>\n"
    )


def _run(record: Record, out: Path) -> str:
    """A link to a run's folder, and what it is."""
    folder = os.path.relpath(record.workdir.resolve(), out.resolve())
    address = in_html(urllib.parse.quote(folder + "/"))
    return (
        f'<a href="{address}">{in_html(record.workdir.name)}</a>: {in_html(record.method)}, seed '
        f"{record.result['seed']}, {record.result['steps']:,} steps, test accuracy "
        f"{100 * record.accuracy:.2f} %"
    )

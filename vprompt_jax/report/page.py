"""The report as one HTML page that needs no other file."""

import base64
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import vprompt_jax
from vprompt_jax.process.escapes import in_html
from vprompt_jax.report.results import Record
from vprompt_jax.report.tables import Table

MADE_BY = "Made by vprompt_jax"  # by which a report is known again
_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; height: auto; }
figcaption, caption { color: #444; text-align: left; font-size: 0.9rem; padding: 0.4rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0 0 1.5rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #333; }
code { font-size: 0.9em; } @media print { body { margin: 0; } }
"""


def _image(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = in_html(caption)
    with Image.open(path) as image:
        width = round(image.width * 96 / 150)  # saved with 150 pixels per inch, a page has 96
    return (
        f'<figure><img alt="{text}" width="{width}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def render(
    title: str,
    facts: str,
    tables: Sequence[Table],
    note: str,
    figures: Sequence[tuple[Path, str]],
    records: Sequence[Record],
) -> str:
    """The page.

    Args:
      title: its heading.
      facts: a sentence on all runs.
      tables: in order.
      note: on the papers' values; may be empty.
      figures: PNG files with captions; they are put into the page.
      records: listed at the end.
    """
    versions = sorted({
        ", ".join(f"{k} {v}" for k, v in r.result.get("versions", {}).items()) for r in records
    })  # fmt: skip
    body = [f"<h1>{in_html(title)}</h1>", f"<p>{in_html(facts)}</p>", "<h2>Tables</h2>"]
    body += [f'<div class="wide">{table.html()}</div>' for table in tables]
    if note:
        body.append(f"<p>{in_html(note)}</p>")
    if figures:
        body.append("<h2>Figures</h2>")
        body += [_image(path, caption) for path, caption in figures]
    runs = Table(
        f"{len(records)} runs",
        ["run", "method", "seed", "steps", "test accuracy (%)"],
        [
            [r.workdir.name, r.method, str(r.result["seed"]), f"{r.result['steps']:,}",
             f"{100 * r.accuracy:.2f}"]
            for r in records
        ],
    )  # fmt: skip
    body += ["<h2>Runs</h2>", f'<div class="wide">{runs.html()}</div>']
    body.append(f"<p>{MADE_BY} {vprompt_jax.__version__} from runs with ")
    body.append(f"{in_html('; '.join(versions))}.</p>")
    content = "\n".join(body)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{in_html(title)}</title>\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{_STYLE}</style></head>\n<body>\n{content}\n</body></html>\n"
    )

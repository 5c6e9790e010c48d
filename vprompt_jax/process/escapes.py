"""Escapes names of runs, classes and files for Markdown, HTML, spreadsheets and figures.

A name has to be shown there as the user wrote it. It must not start a table cell, a formula, a
link, an HTML element or mathematics.
"""

import html

from vprompt_jax.process.printable import printable

_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*[]|"} | {"<": "&lt;", "&": "&amp;"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable_lines(text: str) -> str:
    """`printable` for messages of several lines: line breaks are kept."""
    return "\n".join(map(printable, text.split("\n")))


def in_markdown(text: str) -> str:
    """Escapes text for a paragraph or a table cell in Markdown."""
    return printable(text).translate(_MARKDOWN)


def in_html(text: str) -> str:
    """Escapes text for an element or an attribute in HTML."""
    return html.escape(printable(text))


def in_figure(text: str) -> str:
    """Escapes lines for matplotlib, which reads text between two dollar signs as mathematics."""
    return printable_lines(text).replace("$", r"\$")


def in_spreadsheet(text: str) -> str:
    """Escapes text for a CSV cell, which a spreadsheet runs if it begins like a formula.

    An apostrophe in front, which spreadsheets do not show, marks it as text.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text

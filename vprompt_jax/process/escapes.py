"""Names of runs, classes and files in notations that give some characters a meaning of their own.

Whatever a user calls things reaches tables, spreadsheets and figures as it is read: no name may
begin a cell, a formula, a link, an HTML element or mathematics.
"""

import html

from vprompt_jax.process.printable import printable

_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*[]|"} | {"<": "&lt;", "&": "&amp;"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable_lines(text: str) -> str:
    """`printable`, of which line breaks are left as they are: for messages of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def in_markdown(text: str) -> str:
    """Text for a paragraph or a cell of a table in Markdown."""
    return printable(text).translate(_MARKDOWN)


def in_html(text: str) -> str:
    """Text for an element or an attribute of HTML."""
    return html.escape(printable(text))


def in_figure(text: str) -> str:
    """Lines of text for matplotlib, which takes what two dollar signs enclose for mathematics."""
    return printable_lines(text).replace("$", r"\$")


def in_spreadsheet(text: str) -> str:
    """Text for a cell of CSV, which a spreadsheet runs if it begins as a formula does.

    An apostrophe before it, which spreadsheets do not show, marks it as text.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text

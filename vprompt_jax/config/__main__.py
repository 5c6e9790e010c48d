"""Prints every config key as Markdown: python -m vprompt_jax.config > docs/config.md"""

from collections.abc import Iterable, Mapping
from typing import Any

from vprompt_jax.methods import METHODS, registry
from vprompt_jax.schema.keys import Field, TrainedSection, fields
from vprompt_jax.schema.sections import SECTIONS, RootSection

_HEAD = """\
# Config keys

Written by `python -m vprompt_jax.config`; a test compares. Set a key in a config file
(`c.optim.epochs = 5`) or on the command line (`--config.optim.epochs=5`). The method
(`method.name`) says which parts are on; a part's switch, set by hand, adds or removes the part. The
command line refuses a key of a part that is off, since it would have no effect; a config file may
hold such keys.

Two keys are of several runs: `sweep` lists runs ([results.md](results.md#a-sweep)), and `search`
says which keys are found on val, and how ([running.md](running.md#a-search)).
"""


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"({', '.join(map(str, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e-3 or value >= 1e12 else f"{value:,}"


def _allowed(field: Field) -> str:
    if field.choices:
        return ", ".join(map(str, field.choices))
    low, high = field.key.low, field.key.high
    if low is None or high is None:
        return field.kind.__name__
    return f"{field.kind.__name__}, {_number(low)} to {_number(high)}"


def _rows(prefix: str, keys: Mapping[str, Field]) -> Iterable[str]:
    yield "| key | default | allowed | meaning | source |"
    yield "| --- | --- | --- | --- | --- |"
    for name, field in keys.items():
        cells = (f"`{prefix}{name}`", _value(field.default), _allowed(field), field.key.meaning,
                 field.key.source)  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def _sentence(docstring: str | None) -> str:
    return (docstring or "").split("\n\n")[0].replace("\n", " ")


def markdown() -> str:
    """All sections, keys and methods."""
    lines = [_HEAD, *_rows("", fields(RootSection))]
    for name, section in SECTIONS.items():
        lines += ["", f"## {name}", "", _sentence(section.__doc__), ""]
        lines += _rows(f"{name}.", fields(section))
    for name in registry.names():
        options = registry.alternatives(name)
        lines += ["", f"## {name} (part)", ""]
        for part in options:
            kinds = ", ".join(f"`{part.switch}={kind}`" for kind in part.kinds)
            on = f" ({kinds})" if kinds else ""
            lines += [f"{_sentence(part.__doc__)}{on} Acts on the {part.side} side.", ""]
        keys = registry.fields(name)
        # What all parts have comes last.
        shared = [key for key in fields(TrainedSection) if key in keys]
        ordered = {key: keys[key] for key in [*(k for k in keys if k not in shared), *shared]}
        lines += _rows(f"{name}.", ordered)
    lines += ["", "## Methods", "", "| `method.name` | what it is | its parts |"]
    lines += ["| --- | --- | --- |"]
    for name, method in METHODS.items():
        parts = ", ".join(f"`{k}={_value(v)}`" for k, v in method.parts.items()) or "none"
        lines.append(f"| `{name}` | {method.summary} | {parts} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")

"""Tables for people."""

from collections.abc import Iterable, Mapping

from .errors import shown


def table(
    rows: Iterable[Mapping[str, object]], style: str = "simple", one_line: bool = True
) -> str:
    """Return rows as a table, harmless on a terminal.

    style : tabulate's name for a form of tables
    one_line : whether a line end in a cell is shown as an escape
    """
    from tabulate import tabulate

    lines = [{name: _cell(value, one_line) for name, value in row.items()} for row in rows]
    # a sha256 may look like a number, and must not be rounded
    text: str = tabulate(lines, headers="keys", tablefmt=style, disable_numparse=True)
    return text


def _cell(value: object, one_line: bool) -> str:
    text = shown(str(value))
    return text.replace("\n", "\\n") if one_line else text

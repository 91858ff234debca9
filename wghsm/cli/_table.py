"""How the listings, `wghsm token doctor` and a ceremony look: as wide as their words, and no wider than the terminal.

In a pipe each row is one line, however long.
"""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["counted", "show_beside", "show_table"]

_GAP = 2
_LEAST = 6


def show_table(headings: Sequence[str], rows: "Sequence[Sequence[str | Text]]") -> None:
    """Print rows under headings. Cells break between words; words themselves only where there is no other way."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[cell if isinstance(cell, Text) else Text(_plain(cell)) for cell in row] for row in rows]
    columns = list(zip(*([[Text(heading) for heading in headings], *cells]), strict=True))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = sys.maxsize
    natural = [max(cell.cell_len for cell in column) for column in columns]
    words = [max(Text(word).cell_len for cell in column for word in cell.plain.split() or [""]) for column in columns]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    widths = _widths(natural, words, console.width)
    console.width = max(console.width, sum(widths) + _GAP * len(widths))
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, width=width, overflow="fold")
    for row in cells:
        table.add_row(*row)
    with console.capture() as drawn:
        console.print(table)
    for line in drawn.get().splitlines():
        click.echo(line.rstrip())


def show_beside(lead: str, text: str) -> None:
    """Print `text` behind `lead`; its further lines begin where the first one does."""
    place = len(click.unstyle(lead))
    room = shutil.get_terminal_size().columns - place
    lines = [text]
    if sys.stdout.isatty() and room >= _LEAST:
        lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    click.echo(lead + f"\n{'':{place}}".join(lines))


def counted(number: int, word: str) -> str:
    """`1 peer`, `2 peers`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def _widths(natural: list[int], words: list[int], room: int) -> list[int]:
    """The widest column gives way first, down to its longest word; then the last one; at last words are broken."""
    widths = list(natural)
    last = len(widths) - 1
    over = sum(widths) + _GAP * last - room
    for least in (words, [*words[:last], _LEAST], [_LEAST] * len(widths)):
        while over > 0 and (wide := [each for each, width in enumerate(widths) if width > least[each]]):
            widths[max(wide, key=widths.__getitem__)] -= 1
            over -= 1
    return widths


def _plain(text: str) -> str:
    """What strangers named must not move the terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)

"""The ratios as a picture: one bar for each, from 1 to the median on a logarithmic scale, as SVG by hand.

Called by __main__ through report.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from benchmarks.ratios import Ratio

__all__ = ["picture"]

_LABELS = 330
_WIDTH = 900
_ROW = 22
_TOP = 40
_TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
_GOOD, _BAD = "#2b7a4b", "#b3541e"


def picture(found: Mapping[str, Ratio], titles: Mapping[str, str], title: str) -> str:
    """An SVG of all ratios; green is better than the other, whichever way is better, and lines show the rounds."""
    height = _TOP + _ROW * len(found) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="10" y="20" font-size="14">{escape(title)}</text>',
        *_grid(height),
    ]
    for number, (name, ratio) in enumerate(found.items()):
        lines += _bar(_TOP + _ROW * number, titles.get(name, name), ratio, more_is_better=name.endswith(".rate"))
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def _x(value: float) -> float:
    low, high = math.log(_TICKS[0]), math.log(_TICKS[-1])
    share = (math.log(min(max(value, _TICKS[0]), _TICKS[-1])) - low) / (high - low)
    return _LABELS + share * (_WIDTH - _LABELS - 60)


def _grid(height: int) -> Iterable[str]:
    for tick in _TICKS:
        x = _x(tick)
        colour = "#000" if tick == 1 else "#ccc"
        yield f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{height - 24}" stroke="{colour}"/>'
        yield f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>'


def _bar(y: int, title: str, ratio: Ratio, *, more_is_better: bool) -> Iterable[str]:
    one, end = _x(1), _x(ratio.median)
    good = (ratio.median >= 1) == more_is_better
    middle = y + _ROW / 2 - 2
    yield f'<text x="{_LABELS - 8}" y="{middle + 4}" text-anchor="end">{escape(title)}</text>'
    yield (
        f'<rect x="{min(one, end):.1f}" y="{y + 2}" width="{abs(end - one):.1f}" height="{_ROW - 8}" '
        f'fill="{_GOOD if good else _BAD}"/>'
    )
    least, greatest = _x(min(ratio.rounds)), _x(max(ratio.rounds))
    yield f'<line x1="{least:.1f}" y1="{middle}" x2="{greatest:.1f}" y2="{middle}" stroke="black"/>'
    yield f'<text x="{max(greatest, end, one) + 6:.1f}" y="{middle + 4}">{ratio.median:.2f}</text>'

"""Bar charts as SVG, without a plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

__all__ = ["Bar", "Panel", "bars"]

_WIDTH, _LABELS, _LENGTH, _ROW, _HEAD = 860, 300, 360, 22, 44
_STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.plain { fill: #9aa4af } .ours { fill: #2f6feb } .reference { fill: #59636e }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .reference { fill: #d1d7e0 } }
"""


class Bar(NamedTuple):
    """One bar: its length, the text behind it, and "ours", "plain" or "reference"."""

    label: str
    value: float
    text: str
    kind: str


class Panel(NamedTuple):
    """Bars of one scale, under a title."""

    title: str
    bars: Sequence[Bar]


def bars(panels: Sequence[Panel]) -> str:
    """The panels below each other, each scaled to its longest bar."""
    parts: list[str] = []
    y = 0
    for title, rows in panels:
        y += _HEAD
        parts.append(f'<text class="title" x="8" y="{y - 14}">{escape(title)}</text>')
        longest = max(bar.value for bar in rows)
        for bar in rows:
            width = bar.value / longest * _LENGTH
            middle = y + _ROW / 2 + 4
            parts += [
                f'<text x="{_LABELS - 8}" y="{middle:.0f}" text-anchor="end">'
                f"{escape(bar.label)}</text>",
                f'<rect class="{bar.kind}" x="{_LABELS}" y="{y + 3}"'
                f' width="{width:.1f}" height="{_ROW - 6}" rx="2"/>',
                f'<text x="{_LABELS + width + 8:.1f}" y="{middle:.0f}">{escape(bar.text)}</text>',
            ]
            y += _ROW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 12}"'
            f' width="{_WIDTH}" height="{y + 12}" role="img">',
            f"<style>{_STYLE}</style>",
            *parts,
            "</svg>\n",
        ]
    )

"""The picture: a panel of bars for each group, as SVG, on a logarithmic scale."""

from __future__ import annotations

import math
from html import escape

from .results import Results

WIDTH = 900
LEFT = 300  # room for the rows' names
RIGHT = 110  # room for the figure behind a bar
BAR = 13
GAP = 9
PANEL = 52
COLORS = ("#1f6f8b", "#e07a3f", "#7a9e3d", "#a05195", "#9a9a9a", "#d4a017")

# (figure, title): the first one that a row has is what its bars show.
SHOWN = (
    ("rate", "requests a second: longer is better"),
    ("failover_ms", "milliseconds: shorter is better"),
    ("restart_s", "seconds: shorter is better"),
    ("system_calls", "system calls a Put: shorter is better"),
    ("bytes_an_entry", "bytes of memory an entry: shorter is better"),
)

Bar = tuple[str, str, float]  # row, system, value


def panels(results: Results) -> list[tuple[str, list[Bar]]]:
    """(title, bars): one panel for each group and figure."""
    found = []
    for group, rows in results.rounds.items():
        for figure, title in SHOWN:
            bars = []
            for row, systems in rows.items():
                for system in systems:
                    figures = results.look(row, system)
                    first = next((name for name, _ in SHOWN if name in figures), None)
                    if first == figure and figures[figure] > 0:
                        bars.append((row, system, figures[figure]))
            if bars:
                found.append((f"{group}: {title}", bars))
    return found


def text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}>{escape(words)}</text>'


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw_panel(title: str, bars: list[Bar], colors: dict[str, str], top: float) -> list[str]:
    """Bars from a power of ten below the smallest value on; a rule at each power."""
    values = [value for _, _, value in bars]
    low = math.floor(math.log10(min(values)) - 0.3)
    high = math.ceil(math.log10(max(values)))
    scale = (WIDTH - LEFT - RIGHT) / max(1, high - low)
    bottom = top + panel_height(bars) - GAP
    out = [text(10, top + 20, title, ' font-weight="bold"')]
    for power in range(low, high + 1):
        x = LEFT + (power - low) * scale
        out.append(
            f'<line x1="{x:.1f}" y1="{top + 42}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="#ddd"/>'
        )
        style = ' text-anchor="middle" fill="#777"'
        out.append(text(x, top + 38, f"{10.0**power:,g}", style))
    y = top + PANEL
    row_before = ""
    for row, system, value in bars:
        if row != row_before:
            y += GAP if row_before else 0
            out.append(text(LEFT - 8, y + BAR - 3, row, ' text-anchor="end"'))
            row_before = row
        width = max(1.0, (math.log10(value) - low) * scale)
        out.append(
            f'<rect x="{LEFT}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 2}" '
            f'fill="{colors[system]}"/>'
        )
        out.append(text(LEFT + width + 5, y + BAR - 3, short(value)))
        y += BAR
    return out


def panel_height(bars: list[Bar]) -> int:
    return PANEL + len(bars) * BAR + (len({row for row, _, _ in bars}) + 1) * GAP


def draw(results: Results, heading: str) -> str:
    """The whole picture."""
    shown = panels(results)
    systems = list(dict.fromkeys(system for _, bars in shown for _, system, _ in bars))
    colors = {s: COLORS[i % len(COLORS)] for i, s in enumerate(systems)}
    out = [text(10, 20, heading, ' fill="#555"')]
    for i, system in enumerate(systems):
        x = 10 + 140 * i
        out.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{colors[system]}"/>')
        out.append(text(x + 17, 43, system))
    top = 52
    for title, bars in shown:
        out += draw_panel(title, bars, colors, top)
        top += panel_height(bars)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 10}" '
        'font-family="sans-serif" font-size="11">'
    )
    background = f'<rect width="{WIDTH}" height="{top + 10}" fill="white"/>'
    return "\n".join([head, background, *out, "</svg>", ""])

"""Small SVG charts for the documentation, with lines and points on labelled axes and without further packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from taiji.core.artifacts import write_text

COLOURS = (
    "#0b5fa5",
    "#c8441b",
    "#2e7d32",
    "#7b4fa3",
    "#8a6d00",
    "#5f6b76",
    "#c2185b",
    "#00838f",
    "#6d4c41",
    "#455a64",
    "#9e9d24",
)
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 420, 280, 52, 30, 42


@dataclass
class Chart:
    """One panel.

    Attributes:
        title: title of the panel.
        x, y: labels of the axes.
        lines, points: series as (name, x values, y values).
        bounds: bounds of the y axis; None for those of the data.
    """

    title: str
    x: str
    y: str
    lines: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)
    points: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)
    bounds: tuple[float, float] | None = None


def save(path: str | Path, charts: Sequence[Chart], columns: int = 2) -> None:
    """Write panels as one SVG file, ``columns`` per row, each with a legend."""
    names = [list(dict.fromkeys(name for name, _, _ in chart.lines + chart.points)) for chart in charts]
    legend = [18 * -(-len(n) // 3) + 8 for n in names]
    height = HEIGHT + max(legend)
    rows = -(-len(charts) // columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * min(columns, len(charts))} {height * rows}" font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, (chart, known) in enumerate(zip(charts, names)):
        parts.append(
            f'<g transform="translate({WIDTH * (number % columns)},{height * (number // columns)})">{_panel(chart, known)}</g>'
        )
    write_text(path, "\n".join([*parts, "</svg>\n"]))


def _panel(chart: Chart, names: list[str]) -> str:
    series = chart.lines + chart.points
    xs, ys = np.concatenate([x for _, x, _ in series]), np.concatenate([y for _, _, y in series])
    (x0, x1), (y0, y1) = (xs.min(), xs.max()), chart.bounds or (ys.min(), ys.max())
    x1, y1 = x1 + (x1 == x0), y1 + (y1 == y0)
    pad = 0.0 if chart.bounds else 0.05 * (y1 - y0)
    y0, y1 = y0 - pad, y1 + pad

    def place(x: float, y: float) -> str:
        return f"{LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - 16):.1f},{HEIGHT - BOTTOM - (min(max(y, y0), y1) - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM):.1f}"

    out = [f'<text x="{LEFT}" y="18" font-size="13" font-weight="bold">{escape(chart.title)}</text>']
    for value in np.linspace(y0, y1, 5):
        height = place(x0, value).split(",")[1]
        out.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 16}" y1="{height}" y2="{height}" stroke="#e3e6e8"/><text x="{LEFT - 6}" y="{float(height) + 4:.1f}" text-anchor="end" fill="#555">{value:.2g}</text>'
        )
    for value in np.linspace(x0, x1, 5):
        across = place(value, y0).split(",")[0]
        out.append(f'<text x="{across}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle" fill="#555">{value:.3g}</text>')
    out.append(
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(chart.x)}</text><text transform="translate(12,{HEIGHT / 2 - 10}) rotate(-90)" text-anchor="middle">{escape(chart.y)}</text>'
    )
    for name, x, y in chart.lines:
        path = " ".join(place(a, b) for a, b in zip(x, y))
        out.append(f'<polyline points="{path}" fill="none" stroke="{_colour(names, name)}" stroke-width="1.6"/>')
    for name, x, y in chart.points:
        for a, b in zip(x, y):
            across, height = place(a, b).split(",")
            out.append(
                f'<circle cx="{across}" cy="{height}" r="3.4" fill="{_colour(names, name)}" fill-opacity="0.75"/>'
            )
    for number, name in enumerate(names):
        across, height = LEFT + 118 * (number % 3), HEIGHT + 10 + 18 * (number // 3)
        out.append(
            f'<rect x="{across}" y="{height - 8}" width="10" height="10" fill="{_colour(names, name)}"/><text x="{across + 14}" y="{height + 1}">{escape(name)}</text>'
        )
    return "".join(out)


def _colour(names: list[str], name: str) -> str:
    return COLOURS[names.index(name) % len(COLOURS)]

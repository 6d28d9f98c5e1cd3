"""Small charts as inline SVG and HTML: no script, no network, colours from the page's style sheet.

Line charts and histograms are SVG; intervals are placed by percentages in HTML, so that their text keeps its size on
every screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 92, 12, 30


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that span [low, high]."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        high = low + (abs(low) or 1.0)
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers inside [low, high] for a logarithmic axis: as few as leave at least three, else the ends."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) >= 3:
            return ticks
    return [float(f"{low:.3g}"), float(f"{high:.3g}")]


def tick_text(value: float) -> str:
    """A tick's label without trailing zeros."""
    return f"{value:,.6g}".replace("-", "−")


def line_chart(
    series: Mapping[str, Sequence[float | None]],
    steps: Sequence[int],
    *,
    label: str,
    bounds: tuple[float, float] | None = None,
    noisy: bool = False,
    marker: float | None = None,
) -> Markup:
    """Curves over steps; noisy ones of 20 steps or more are thin, with a thick running mean.

    Args:
        series: name → value a step (None is a gap).
        steps: x of each value.
        label: what is on the y axis, read to those who cannot see the chart.
        bounds: fixed y range.
        noisy: whether single steps scatter.
        marker: an x to point out.
    """
    known = [value for values in series.values() for value in values if value is not None]
    if not known or not steps:
        return Markup('<p class="none">No steps were recorded.</p>')
    ticks = nice_ticks(*(bounds or (min(known), max(known))))
    low, high = ticks[0], ticks[-1]
    first, last = min(steps), max(steps)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    # First and last step and where they lie, for pages on which a click chooses a step.
    axis = f'data-steps="{first} {last}" data-ends="{LEFT / WIDTH:.5f} {1 - RIGHT / WIDTH:.5f}"'
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}" {axis}>']
    if marker is not None:
        parts.append(
            f'<line class="here" x1="{x(marker):.1f}" x2="{x(marker):.1f}" y1="{TOP - 6}" y2="{HEIGHT - BOTTOM}"/>'
        )
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/><text class="tick" x="{LEFT - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick_text(tick)}</text>'
        )
    for tick in sorted({first, round((first + last) / 2), last}):
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{tick}</text>')
    ends = []
    for number, (name, values) in enumerate(series.items()):
        points = [(x(step), y(value)) for step, value in zip(steps, values) if value is not None]
        if not points:
            continue
        smooth = (
            running_mean([py for _, py in points], max(1, len(points) // 10)) if noisy and len(points) >= 20 else None
        )
        parts.append(
            f'<path class="line s{number % 6}{" faint" if smooth else ""}" d="{_path(points)}"><title>{escape(name)}</title></path>'
        )
        if smooth:
            parts.append(
                f'<path class="line s{number % 6}" d="{_path([(px, py) for (px, _), py in zip(points, smooth)])}"><title>{escape(name)}, running mean</title></path>'
            )
        if len(points) == 1:
            parts.append(f'<circle class="dot s{number % 6}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3.5"/>')
        ends.append(
            (
                smooth[-1] if smooth else points[-1][1],
                number,
                name,
                next(v for v in reversed(values) if v is not None),
            )
        )
    for place, (_, number, name, value) in zip(spread([end[0] for end in sorted(ends)], 30), sorted(ends)):
        parts.append(
            f'<text class="name t{number % 6}" x="{WIDTH - RIGHT + 8}" y="{place + 1:.1f}">{escape(name)}</text><text class="tick" x="{WIDTH - RIGHT + 8}" y="{place + 15:.1f}">{value:.3g}</text>'
        )
    return Markup("".join(parts) + "</svg>")


def histogram(values: Sequence[float], threshold: float | None, *, label: str, bins: int = 24) -> Markup:
    """Counts of positive values over a logarithmic axis, with a line at the threshold; what lies below it is kept."""
    finite = sorted(value for value in values if value > 0 and math.isfinite(value))
    if len(finite) < 2:
        return Markup('<p class="none">No perplexities were recorded.</p>')
    low, high = math.log(finite[0]), math.log(finite[min(len(finite) - 1, int(len(finite) * 0.99))])
    high = max(high, low + 0.1)
    counts, kept_below = [0] * bins, math.log(threshold) if threshold else -math.inf
    for value in finite:
        counts[min(bins - 1, max(0, int((math.log(value) - low) / (high - low) * bins)))] += 1
    right, floor = 14, HEIGHT - BOTTOM
    span = WIDTH - LEFT - right

    def x(log: float) -> float:
        return LEFT + span * (log - low) / (high - low)

    ticks = nice_ticks(0, max(counts), 3)
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in ticks:
        y = floor - (floor - TOP - 14) * tick / ticks[-1]
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/><text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick_text(tick)}</text>'
        )
    for number, count in enumerate(counts):
        middle, tall = low + (number + 0.5) * (high - low) / bins, (floor - TOP - 14) * count / ticks[-1]
        tone = "kept" if middle < kept_below else "rejected"
        parts.append(
            f'<rect class="bar {tone}" x="{LEFT + span * number / bins + 1:.1f}" y="{floor - tall:.1f}" width="{span / bins - 2:.1f}" height="{tall:.1f}" rx="1.5"><title>{count} near {math.exp(middle):.2f}</title></rect>'
        )
    for tick in log_ticks(math.exp(low), math.exp(high)):
        parts.append(
            f'<text class="tick" x="{x(math.log(tick)):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{tick_text(tick)}</text>'
        )
    if threshold and low <= math.log(threshold) <= high:
        at = x(math.log(threshold))
        side, shift = ("end", -6) if at > LEFT + span * 0.6 else ("start", 6)
        parts.append(
            f'<line class="threshold" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 4}" y2="{floor}"/><text class="name" x="{at + shift:.1f}" y="{TOP + 6}" text-anchor="{side}">R = {threshold:.2f}</text>'
        )
    return Markup("".join(parts) + "</svg>")


def interval_track(
    value: float | None,
    low: float | None,
    high: float | None,
    scale: tuple[float, float],
    *,
    tone: str = "s0",
    zero: bool = False,
) -> Markup:
    """A dot with its interval on a track that spans ``scale``; ``zero`` marks where zero lies.

    A value beyond the scale becomes an arrow at its end.
    """

    def place(number: float) -> float:
        return 100 * min(1.0, max(0.0, (number - scale[0]) / ((scale[1] - scale[0]) or 1.0)))

    parts = ['<span class="track">']
    if zero:
        parts.append(f'<i class="zero" style="left:{place(0):.2f}%"></i>')
    if value is not None:
        if low is not None and high is not None:
            parts.append(
                f'<i class="range {tone}" style="left:{place(low):.2f}%;width:{place(high) - place(low):.2f}%"></i>'
            )
        off = " beyond" if value > scale[1] else ""
        parts.append(f'<i class="point {tone}{off}" style="left:{place(value):.2f}%"></i>')
    return Markup("".join(parts) + "</span>")


def span_of(
    triples: Sequence[tuple[float | None, float | None, float | None]], *, zero: bool = False
) -> tuple[float, float]:
    """A range that holds every value and interval end, with a margin; symmetrical in nothing, but with zero if asked."""
    known = [number for triple in triples for number in triple if number is not None] + ([0.0] if zero else [])
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (low if low == 0 and not zero else low - margin), high + margin


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """Mean of each value and up to ``reach`` before it."""
    return [sum(values[max(0, i - reach) : i + 1]) / (i + 1 - max(0, i - reach)) for i in range(len(values))]


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move sorted label positions apart so that none overlaps, staying on the chart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else max(place, TOP))
    excess = (moved[-1] + 16) - (HEIGHT - BOTTOM + 12) if moved else 0
    return [place - max(0.0, excess) for place in moved]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{px:.1f},{py:.1f}" for px, py in points)

"""Small charts as inline SVG and HTML, without scripts or network access, coloured by the page's style sheet.

Line charts and histograms are SVG; intervals are positioned by percentages in HTML, so that their text keeps its size
on every screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from taiji.core.number_format import brief_text, general_text, number_text

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 92, 12, 30
BARE = 16
"""Right margin of a chart whose curves are named in a legend below it."""
LONGEST, MOST = 11, 6
"""Largest length of a name (letters) and largest number of names at the ends of curves; beyond these, a legend is
used."""


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return round numbers that span [low, high]."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        high = low + (abs(low) or 1.0)
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers inside [low, high] for a logarithmic axis: the coarsest set of at least three, else the two
    ends."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) >= 3:
            return ticks
    return [float(f"{low:.3g}"), float(f"{high:.3g}")]


def line_chart(
    series: Mapping[str, Sequence[float | None]],
    steps: Sequence[int],
    *,
    label: str,
    bounds: tuple[float, float] | None = None,
    noisy: bool = False,
    marker: float | None = None,
) -> Markup:
    """Draw curves over steps. Noisy curves of at least 20 steps are thin, with a thick running mean.

    Names are placed at the ends of the curves if they fit, otherwise in a legend below, which wraps.

    Args:
        series: name → value per step (None is a gap).
        steps: x of each value.
        label: meaning of the y axis, read aloud by screen readers.
        bounds: fixed y range.
        noisy: True if single steps are noisy; adds a running mean.
        marker: x position to mark.
    """
    known = [value for values in series.values() for value in values if value is not None]
    if not known or not steps:
        return Markup('<p class="none">No steps were recorded.</p>')
    ticks = nice_ticks(*(bounds or (min(known), max(known))))
    low, high = ticks[0], ticks[-1]
    first, last = min(steps), max(steps)
    beside = len(series) <= MOST and max(map(len, series)) <= LONGEST
    right = RIGHT if beside else BARE

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - right) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    # First and last step with their positions, for pages on which a click selects a step.
    axis = f'data-steps="{first} {last}" data-ends="{LEFT / WIDTH:.5f} {1 - right / WIDTH:.5f}"'
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}" {axis}>']
    if marker is not None:
        parts.append(
            f'<line class="here" x1="{x(marker):.1f}" x2="{x(marker):.1f}" y1="{TOP - 6}" y2="{HEIGHT - BOTTOM}"/>'
        )
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/><text class="tick" x="{LEFT - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{general_text(tick)}</text>'
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
    if not beside:
        keys = [
            f'<li><i class="key s{number % 6}"></i>{escape(name)} <small>{brief_text(value)}</small></li>'
            for _, number, name, value in ends
        ]
        return Markup("".join(parts) + f'</svg><ul class="keys">{"".join(keys)}</ul>')
    for place, (_, number, name, value) in zip(spread([end[0] for end in sorted(ends)], 30), sorted(ends)):
        parts.append(
            f'<text class="name t{number % 6}" x="{WIDTH - right + 8}" y="{place + 1:.1f}">{escape(name)}</text><text class="tick" x="{WIDTH - right + 8}" y="{place + 15:.1f}">{brief_text(value)}</text>'
        )
    return Markup("".join(parts) + "</svg>")


def _bins(finite: Sequence[float], threshold: float | None, bins: int) -> tuple[list[float], list[int], int]:
    """Return evenly spaced edges (logarithms), the counts between them, and the number of bins below the threshold.

    A threshold within the range of the values is an edge, so the bars below it count exactly the values below it. The
    largest one percent of the values is counted in the last bin.

    Args:
        finite: positive values, ascending.
        threshold: threshold that separates the values.
        bins: approximate number of bins.
    """
    low, high = math.log(finite[0]), math.log(finite[min(len(finite) - 1, int(len(finite) * 0.99))])
    high = max(high, low + 0.1)
    if threshold is None or not finite[0] < threshold <= finite[-1]:
        below = bins if threshold is not None and threshold > finite[-1] else 0
        edges = [low + (high - low) * number / bins for number in range(bins + 1)]
    else:
        at = math.log(threshold)
        high = max(high, at + (at - low) / bins)  # leave space to the right of a high threshold
        width = (high - low) / bins
        below, above = max(1, math.ceil((at - low) / width)), max(1, math.ceil((high - at) / width))
        edges = [at + width * number for number in range(-below, above + 1)]
    counts = [0] * (len(edges) - 1)
    for value in finite:
        place = int((math.log(value) - edges[0]) / (edges[1] - edges[0]))
        # Compare values, not logarithms, with the threshold: a logarithm may round to the other side of the edge.
        first, last = (0, below - 1) if threshold is not None and value < threshold else (below, len(counts) - 1)
        counts[min(last, max(first, place))] += 1
    return edges, counts, below


def histogram(values: Sequence[float], threshold: float | None, *, label: str, bins: int = 24) -> Markup:
    """Draw counts of positive values on a logarithmic axis, with a line at the threshold below which values are
    kept."""
    finite = sorted(value for value in values if value > 0 and math.isfinite(value))
    if len(finite) < 2:
        return Markup('<p class="none">No perplexities were recorded.</p>')
    edges, counts, below = _bins(finite, threshold, bins)
    low, high, bins = edges[0], edges[-1], len(counts)
    right, floor = 14, HEIGHT - BOTTOM
    span = WIDTH - LEFT - right

    def x(log: float) -> float:
        return LEFT + span * (log - low) / (high - low)

    ticks = nice_ticks(0, max(counts), 3)
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in ticks:
        y = floor - (floor - TOP - 14) * tick / ticks[-1]
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/><text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{general_text(tick)}</text>'
        )
    for number, count in enumerate(counts):
        middle, tall = low + (number + 0.5) * (high - low) / bins, (floor - TOP - 14) * count / ticks[-1]
        tone = "kept" if number < below else "rejected"
        parts.append(
            f'<rect class="bar {tone}" x="{LEFT + span * number / bins + 1:.1f}" y="{floor - tall:.1f}" width="{span / bins - 2:.1f}" height="{tall:.1f}" rx="1.5"><title>{count} near {number_text(math.exp(middle), 2)}</title></rect>'
        )
    for tick in log_ticks(math.exp(low), math.exp(high)):
        parts.append(
            f'<text class="tick" x="{x(math.log(tick)):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{general_text(tick)}</text>'
        )
    if threshold and low <= math.log(threshold) <= high:
        at = x(math.log(threshold))
        side, shift = ("end", -6) if at > LEFT + span * 0.6 else ("start", 6)
        parts.append(
            f'<line class="threshold" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 4}" y2="{floor}"/><text class="name" x="{at + shift:.1f}" y="{TOP + 6}" text-anchor="{side}">R = {number_text(threshold, 2)}</text>'
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
    """Draw a dot with its interval on a track that spans ``scale``; ``zero`` marks the position of zero.

    A value above the scale becomes an arrow at its end.
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
    """Return the range of all values and interval ends, with a margin, including zero if requested."""
    known = [number for triple in triples for number in triple if number is not None] + ([0.0] if zero else [])
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (low if low == 0 and not zero else low - margin), high + margin


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """Return, for each value, the mean of this value and up to ``reach`` values before it."""
    return [sum(values[max(0, i - reach) : i + 1]) / (i + 1 - max(0, i - reach)) for i in range(len(values))]


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move sorted label positions (y, pixels) at least ``gap`` apart, within the chart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else max(place, TOP))
    excess = (moved[-1] + 16) - (HEIGHT - BOTTOM + 12) if moved else 0
    return [place - max(0.0, excess) for place in moved]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{px:.1f},{py:.1f}" for px, py in points)

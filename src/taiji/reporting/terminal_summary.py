"""Print the results of a run on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taiji.core.number_format import number_text
from taiji.metrics.task_metrics import key_title
from taiji.reporting.conclusion import conclusion
from taiji.reporting.summary import (
    MetricValue,
    check_metrics,
    digits_for,
    findings,
    goal_of,
    heads_of,
    metrics_of,
    verdict,
)

WIDE = 104
"""Smallest terminal width, in characters, at which all metrics are shown; also used if the output is not a terminal."""
COLOURS = {"better": "green", "worse": "red"}
CTCVR_MEANS = "CTCVR: click and conversion rate of the nearest item, predicted by the evaluation ranker, which is not used in training"


def print_summary(metrics: Mapping[str, Any]) -> None:
    """Print tables of the answers and rankers of a run, then its findings, the time per stage and the conclusion."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    run, console = check_metrics(metrics), Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, WIDE))
    kept, limit = run.rationales.kept_text("rationales"), ""
    if run.rationales.threshold is not None:
        limit = f"; the threshold is perplexity {number_text(run.rationales.threshold, 2)}"
    console.print(
        f"[bold]{escape(run.name)}[/bold]  {escape(run.data)}  ·  split {run.split.fingerprint[:12]}  ·  {kept}{limit}  ·  {run.alignment.rule}"
    )
    every: list[MetricValue] = [*run.llm, *run.ranking]
    places = {metric: digits_for([f for f in every if f.metric == metric]) for metric in {f.metric for f in every}}

    def table(
        title: str,
        first: str,
        metrics: Sequence[str],
        rows: Sequence[tuple[str, Mapping[str, MetricValue]]],
        names: Mapping[str, str],
    ) -> None:
        shown = [metric for metric in metrics if any(metric in cells for _, cells in rows)]
        grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
        grid.add_column(first, no_wrap=True)
        for metric in shown:
            grid.add_column(names.get(metric, metric), justify="right")
        for label, cells in rows:
            grid.add_row(label, *(_cell(cells.get(metric), places[metric]) for metric in shown))
        if rows:
            console.print(grid)

    wide = console.width >= WIDE
    answers = []
    for model in dict.fromkeys(figure.model for figure in run.llm):
        own = {f.metric: f for f in run.llm if f.model == model}
        kind = next(iter(own.values())).kind
        answers.append((model if kind == "model" else f"[dim]· {model}[/dim]", own))
    levels = sorted({figure.metric for figure in run.llm if figure.metric.startswith("category_l")})
    of_answers = [
        *dict.fromkeys([*levels[:1], *levels[-1:]]),
        "hit@100",
        "ctcvr",
        *(name for name in ("coverage", "redundancy") if any(figure.metric == name for figure in run.llm)),
        *([*levels[1:-1], "format"] if wide else []),
    ]
    of_rankers: list[str] = []
    for place, head in enumerate(heads_of(run)):
        of_rankers += metrics_of(run, head, full=False)[: None if place == 0 else 1]
    if wide:
        first = [key for head in heads_of(run)[:1] for key in metrics_of(run, head) if goal_of(key) != "one"]
        of_rankers += [key for key in first if key not in of_rankers]
    names = {level: level.removeprefix("category_").upper() for level in levels} | {"ctcvr": "CTCVR"}
    table(
        f"Answers, with {100 * run.level:g}% intervals over users{_legend(run.llm)} (· baselines and oracle)",
        "model",
        of_answers,
        answers,
        names,
    )
    if any(figure.metric == "ctcvr" for figure in run.llm):
        console.print(f"[dim]{CTCVR_MEANS}[/dim]", highlight=False)
    for group in dict.fromkeys(figure.group for figure in run.ranking):
        figures = [f for f in run.ranking if f.group == group]
        arms = [
            (arm, {f.metric: f for f in figures if f.features == arm})
            for arm in dict.fromkeys(f.features for f in figures)
        ]
        table(
            f"Rankers, {group} users, with {100 * run.level:g}% intervals{_legend(figures)}",
            "features",
            of_rankers,
            arms,
            {key: key_title(key) for key in of_rankers},
        )
    for line in findings(run):
        console.print(f"  {line}", highlight=False)
    seconds = ", ".join(f"{stage} {value:,.0f}" for stage, value in run.seconds.items())
    console.print(f"[dim]seconds: {seconds}; total {sum(run.seconds.values()):,.0f}[/dim]", highlight=False)
    if (reached := conclusion(run)) is not None:
        console.print("\n".join(reached.lines()), highlight=False, markup=False)


def _legend(figures: Sequence[MetricValue]) -> str:
    """Return the meaning of the colours, as part of a table's title; empty if no row is compared with another."""
    against = next((f.difference.against for f in figures if f.difference), None)
    return f"; compared with {against}, green is better and red is worse" if against else ""


def _cell(figure: MetricValue | None, digits: int) -> str:
    """Return a cell: the value, with its interval on a second line.

    The value is green (better) or red (worse) if the interval of its paired difference excludes zero.
    """
    if figure is None or figure.value is None:
        return "–"
    text = number_text(figure.value, digits)
    outcome = verdict(figure.difference, goal_of(figure.metric)) if figure.difference else ""
    if outcome in COLOURS:
        text = f"[{COLOURS[outcome]}]{text}[/]"
    if figure.low is None or figure.high is None:
        return text
    return f"{text}\n[dim]{number_text(figure.low, digits)}–{number_text(figure.high, digits)}[/dim]"

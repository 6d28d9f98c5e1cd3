"""Command that trains and evaluates a recommender on a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from taiji.cli import console
from taiji.cli.options import ConfigPath, Data, Force, JsonPath, Name, Overrides, Preset, Quiet, Resume, Runs, Verify
from taiji.cli.view_commands import open_run

if TYPE_CHECKING:
    from rich.console import Console


def recommend(
    config: ConfigPath = None,
    preset: Preset = None,
    data: Data = None,
    overrides: Overrides = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    resume: Resume = False,
    json_path: JsonPath = None,
    quiet: Quiet = False,
    force: Force = None,
    verify: Verify = False,
) -> None:
    """Build a recommender from a log and evaluate it: retrieval, ranking, fusion and re-ranking, each with its value
    and cost."""
    from taiji.core.artifacts import read_json

    opened = open_run(
        config, preset, data, overrides, name, runs, resume or bool(force), quiet, verify=verify, recommend=True
    )
    if force:
        opened.force(force)
    opened.execute()
    found = read_json(opened.folder / "recommendation.json")
    looped = opened.folder / "closed_loop" / "closed_loop.json"
    loop = read_json(looped) if looped.is_file() else None
    page = opened.folder / "recommendation.html"
    result = {"run": str(opened.folder), "page": str(page), "recommendation": found, "closed_loop": loop}
    if json_path and console.emit_json(json_path, result):
        return
    print_recommendation(found, loop)
    print(
        f"\npage: {page}\nmetrics: {opened.folder / 'recommendation.json'}\nnext: taiji serve {quote(str(opened.folder))}"
    )


def print_recommendation(found: Mapping[str, Any], loop: Mapping[str, Any] | None = None) -> None:
    """Print the evaluation of a recommender: recall of the retrievers, lists with and without each component, and time.

    Args:
        found: content of ``recommendation.json``.
        loop: content of ``closed_loop.json``, if it exists.
    """
    from rich.console import Console
    from rich.markup import escape

    from taiji.reporting.recommendation_page import recommendation_values

    out = Console()
    if not out.is_terminal:
        out = Console(width=120)
    new = "items new to the user" if found["new_items_only"] else "items, including items that the user knew"
    out.print(f"[bold]{escape(found['data'])}[/bold]  {found['requests']:,} requests, {found['targets']:,} later {new}")
    if not found["requests"]:
        out.print("No user interacted with an item after a request of the test period; there is nothing to evaluate.")
        return
    if features := found.get("features"):
        trained, requested = (f"{features[part]['coverage']:.0%}" for part in ("training", "evaluation"))
        out.print(
            f"Features of {escape(features['run'])}: available for {requested} of the requests and {trained} of the training exposures"
        )
    shown = recommendation_values(found)
    recalls = [row for row in found["retrieval"] if row["metric"].startswith("recall@")]
    out.print(_grid(f"Retrieval, with {shown['level']} intervals over users", "retriever", recalls))
    lists = [
        row for row in found["lists"] if row["metric"].partition("@")[0] in ("ndcg", "recall", "coverage", "diversity")
    ]
    out.print(_grid(f"Lists of {found['length']}", "variant", lists))
    losses = [
        (row["arm"], row["metric"], row["difference"])
        for row in found["lists"]
        if row["metric"].startswith("ndcg@") and row.get("difference")
    ]
    for arm, metric, gap in losses:
        out.print(f"  {arm}: {metric} {_value(gap, signed=True)} against the list with all components", highlight=False)
    _print_components(out, shown)
    _print_values(out, found, loop)
    spent = ", ".join(f"{step} {value:.2f}" for step, value in found["milliseconds"].items())
    out.print(f"[dim]milliseconds per request, measured on blocks of requests: {spent}[/dim]", highlight=False)
    if (reached := shown["conclusion"]) is not None:
        out.print("\n" + "\n".join(reached.lines()), highlight=False, markup=False)


def _print_components(out: Console, shown: Mapping[str, Any]) -> None:
    """Print the comparison of each component with the baselines, from the values of the page."""
    from rich.markup import escape

    if shown["verdicts"]:
        out.print(f"\nPaired comparison with popularity and co-occurrence, {shown['verdicts'][0]['metric']}:")
    for row in shown["verdicts"]:
        pairs = "; ".join(f"{pair['text']} against {pair['against']}" for pair in row["pairs"])
        said = escape(f"{row['text']}: {pairs}")
        out.print(f"  [bold]{escape(row['name'])}[/bold] {said}", highlight=False)
        for reason in row["reasons"]:
            out.print(f"      [dim]{escape(reason)}[/dim]", highlight=False)
    for limit in shown["limits"]:
        out.print(f"  [dim]{escape(limit)}[/dim]", highlight=False)


def _print_values(out: Console, found: Mapping[str, Any], loop: Mapping[str, Any] | None) -> None:
    """Print off-policy estimates of the lists' value and, if the log is from a simulated world, their value in it."""
    if off := found.get("off_policy"):
        out.print(f"\nClicks per item shown, estimated off-policy from {off['exposures']:,} logged exposures:")
        out.print(f"  the log itself {_value(off['logged'])}", highlight=False)
        for arm in off["arms"]:
            out.print(f"  {arm['arm']} {_value(arm['snips'])}", highlight=False)
    if loop:
        out.print(f"\nReward per user over {loop['days']} days in the simulated world, {loop['users']:,} users:")
        for row in (row for row in loop["metrics"] if row["metric"] == "reward"):
            gap = row.get("difference")
            told = f", {_value(gap, signed=True)} against {gap['against']}, paired by user" if gap else ""
            out.print(f"  {row['policy']} {_value(row)}{told}", highlight=False)


def _grid(title: str, first: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    cells = {(row["arm"], row["metric"]): _value(row) for row in rows}
    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
    grid.add_column(first, no_wrap=True)
    for metric in metrics:
        grid.add_column(metric, justify="right")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        grid.add_row(arm, *(cells.get((arm, metric), "") for metric in metrics))
    return grid


def _value(row: Mapping[str, Any], *, signed: bool = False) -> str:
    if row["value"] is None:
        return str(row.get("reason", "undefined"))
    from taiji.core.number_format import number_text

    text = number_text(row["value"], 4, signed=signed)
    if row["low"] is not None and row["high"] is not None and row["low"] != row["high"]:
        low, high = (number_text(row[end], 4, signed=signed) for end in ("low", "high"))
        return f"{text} [{low}, {high}]"
    return f"{text} ({row['reason']})" if row.get("reason") else text

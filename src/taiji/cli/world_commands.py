"""Commands for simulated worlds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from taiji.cli import console
from taiji.cli.options import JsonPath, Quiet

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(help="List simulated worlds, or compare two policies in one of them.", no_args_is_help=True)


@app.command("list")
def list_worlds(json_path: JsonPath = None) -> None:
    """List the scenarios of the package, with their mechanisms and the parts that `taiji world run --without` can
    switch off."""
    from taiji.world.scenario import find_mechanism, load_scenario, scenarios

    found: list[dict[str, Any]] = []
    for name in scenarios():
        scenario = load_scenario(name)
        parts = {part: [p for p in find_mechanism(part).twins if p] for part in scenario.mechanisms}
        about = {"scenario": name, "summary": scenario.summary, "task": scenario.task, "mechanisms": parts}
        found.append({**about, "users": scenario.users, "items": scenario.items, "days": scenario.days})
    if json_path and console.emit_json(json_path, found):
        return
    for row in found:
        print(f"{row['scenario']}: {row['summary']}")
        twins = (part + (f" ({', '.join(pieces)})" if pieces else "") for part, pieces in row["mechanisms"].items())
        print(f"    {row['users']:,} users, {row['items']:,} items, {row['days']} days; {', '.join(twins)}")


@app.command("run")
def run_world(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="Name of a scenario, or path of its YAML file.")],
    policy: Annotated[
        list[str],
        typer.Option(
            "--policy",
            help="Policy: random, popular, content, oracle, NAME@TEMPERATURE, or package.module:Name. Give it twice, first the control and then the treatment.",
        ),
    ],
    days: Annotated[int, typer.Option("--days", min=1, help="Number of days of the test.")] = 7,
    before: Annotated[
        int,
        typer.Option(
            "--before", min=1, help="Number of days before the test, under the logging policy of the scenario."
        ),
    ] = 3,
    users: Annotated[
        int | None, typer.Option("--users", min=2, help="Number of users (default: as in the scenario).")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="MECHANISM",
            help="Switch off a mechanism, or a part of one; may be repeated.",
        ),
    ] = None,
    co_diverted: Annotated[bool, typer.Option("--co-diverted", help="Assign creators to arms as well.")] = False,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    json_path: JsonPath = None,
    quiet: Quiet = False,
) -> None:
    """Compare two policies in a simulated world: an A/B test, and the true effect of a full roll-out."""
    from taiji.core import progress
    from taiji.core.errors import ConfigError
    from taiji.experiments.closed_loop import ClosedLoopSettings, closed_loop
    from taiji.world.world import World

    if len(policy) != 2:
        raise ConfigError(
            "The number of policies is not two.", where="--policy", expected="--policy CONTROL --policy TREATMENT",
            found=", ".join(policy),
        )  # fmt: skip
    progress.silence(quiet)
    world = World(scenario, seed, users=users)
    for mechanism in without or ():
        world = world.twin(mechanism)
    settings = ClosedLoopSettings(before=before, days=days, co_diverted=co_diverted)
    found = closed_loop(world, policy[0], policy[1], settings)
    if not (json_path and console.emit_json(json_path, found)):
        print_closed_loop(found)


def print_closed_loop(found: dict[str, Any]) -> None:
    """Print the result of a closed-loop experiment."""
    from rich.console import Console

    out = Console()
    if not out.is_terminal:
        out = Console(width=max(out.width, 120))
    for note in found["notes"]:
        out.print(f"[dim]{note}[/dim]", highlight=False)
    arms = found["users"]
    title = f"{found['scenario']}: {found['treatment']} ({arms['treatment']} users) against {found['control']} ({arms['control']})"
    grid = _grid(title, ("per user", "difference", "interval", "anytime-valid interval", "truth", "A/A"))
    for metric, row in found["ab"].items():
        same = found["aa"][metric]
        grid.add_row(metric, *_cells(row), "" if same is None else f"{same:.1%}")
    for metric, row in found["new"].items():
        grid.add_row(f"{metric}, new users", *_cells(row), "")
    out.print(grid)
    out.print("[dim]A/A: share of significant tests if there is no difference.[/dim]", highlight=False)
    days = _grid(
        "reward per user: treatment minus control",
        ("day", "difference", "interval", "truth", "cumulative", "anytime-valid interval", "cumulative truth"),
    )
    for row in found["by_day"]:
        total = row["cumulative"]
        days.add_row(
            str(row["day"]), _number(row["difference"]), _interval(row, "low", "high"), _number(row["truth"]),
            _number(total["difference"]), _interval(total, "always_low", "always_high"), _number(total["truth"]),
        )  # fmt: skip
    out.print(days)
    plan = found["plan"]
    if plan["users_an_arm"]:
        text = f"Detecting the true effect on the {plan['metric']} ({_number(plan['effect'])}) with a power of {plan['power']:.0%} requires {plan['users_an_arm']:,} users per arm; the power of this test is {plan['power_here']:.0%}."
        out.print(text, highlight=False)
    if creators := found.get("creators"):
        same = creators["same_policy"]
        text = f"Difference in uploads per creator: {_number(creators['difference'])} ({_interval(creators, 'low', 'high')}); with the same policy in both arms {_number(same['difference'])}; true effect of a roll-out {_number(creators['truth'])}."
        out.print(text, highlight=False)


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    always = "" if row["always_low"] is None else _interval(row, "always_low", "always_high")
    return _number(row["difference"]), _interval(row, "low", "high"), always, _number(row["truth"])


def _grid(title: str, columns: tuple[str, ...]) -> Table:
    from rich import box
    from rich.table import Table

    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        grid.add_column(column, justify="right" if number else "left", no_wrap=True)
    return grid


def _interval(row: dict[str, Any], low: str, high: str) -> str:
    if row[low] is None or row[high] is None:
        return str(row.get("reason") or "too little data")
    return f"{_number(row[low])} – {_number(row[high])}"


def _number(value: float) -> str:
    from taiji.core.number_format import number_text

    return number_text(value, 3, signed=True)

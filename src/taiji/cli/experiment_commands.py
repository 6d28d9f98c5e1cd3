"""Commands that inspect and evaluate runs, and the simulated A/B test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taiji.cli import console
from taiji.cli.options import ConfigPath, Data, JsonPath, Name, Overrides, Preset, Quiet, RunFolder, Runs, Verdict
from taiji.cli.view_commands import config_of, say


def audit(run: RunFolder, overrides: Overrides = None, json_path: JsonPath = None, quiet: Quiet = False) -> None:
    """Audit the rationales of a run for leaked answers, and add the result to its report.

    `taiji run` does this with a small sample; --set reasoning.audit.controls=200 uses a larger one.
    """
    from taiji.core import progress
    from taiji.core.artifacts import read_json
    from taiji.pipeline.engine import Run
    from taiji.pipeline.recipes import stages_of
    from taiji.pipeline.run_review import print_audit

    progress.silence(quiet)
    config = config_of(run, overrides)
    opened = Run(run, config, stages_of(config), say=(lambda text: None) if quiet else say)
    opened.execute(["audit", "report"] if (run / "report.html").exists() else ["audit"])
    found = read_json(run / "audit.json")
    if not (json_path and console.emit_json(json_path, found)):
        print_audit(found)


def view(
    run: RunFolder,
    other: Annotated[Path | None, typer.Argument(metavar="[RUN2]", help="Second run for comparison.")] = None,
    port: Annotated[
        int, typer.Option("--port", help="Port on this machine; 0 chooses a free one.", min=0, max=65535)
    ] = 8100,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Inspect a run in the browser: metrics, users, prompts and answers, alignment step by step, and a comparison of
    two runs."""
    from taiji.inspector.server import view as show

    def ready(url: str) -> None:
        print(f"{url}  (on this machine only; press Ctrl-C to stop)", flush=True)
        if open_browser:
            import webbrowser

            webbrowser.open(url)

    show(run, other, port=port, ready=ready)


def review(
    run: RunFolder,
    name: Annotated[
        str, typer.Option("--as", help="Name of the reviewer, used in the names of the files with judgements.")
    ] = "me",
    beside: Annotated[
        list[str] | None,
        typer.Option("--beside", help="Additional reviewer: rules, model, or the name of a person; may be repeated."),
    ] = None,
    only: Annotated[
        Verdict | None,
        typer.Option(
            "--only", help="Only rationales with this verdict; by default all, first those with the verdict `review`."
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            "--count", min=1, help="Number of rationales; a later call with a larger number adds to the earlier ones."
        ),
    ] = 30,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port of the page on this machine; 0 chooses a free one.")
    ] = 8090,
    files: Annotated[
        bool,
        typer.Option(
            "--files",
            help="Use files instead of a page: write open rationales to NAME.todo.jsonl, read NAME.done.jsonl, and exit.",
        ),
    ] = False,
    copies: Annotated[
        bool,
        typer.Option(
            "--copies", help="Compare the texts of `taiji copy` instead: two for the same item, side by side."
        ),
    ] = False,
    overrides: Overrides = None,
    json_path: JsonPath = None,
) -> None:
    """Let a person rate the rationales of a run on five scales, or compare its copies, on a local page or through
    files."""
    from taiji.core.errors import ConfigError
    from taiji.pipeline.run_copy_review import copy_review_summary, open_copy_review, serve_copy_review
    from taiji.pipeline.run_review import open_review, print_review, serve_review

    if copies:
        given = {"--files": files, "--beside": beside, "--only": only}
        if any(given.values()):
            raise ConfigError(
                "Copies can be compared only on the page, and only by people.", where="--copies", expected="--as, --count, --port",
                found=" and ".join(option for option, value in given.items() if value), fix="remove these options; the judgements are written to <run>/review/copies/<name>.jsonl",
            )  # fmt: skip
        config = config_of(run, overrides)
        with open_copy_review(run, config.seed, name, count) as sitting:
            serve_copy_review(run, sitting, port, say)
            found = copy_review_summary(sitting, config.copywriting.pairs.least_z)
        if not (json_path and console.emit_json(json_path, found)):
            print("\n".join(f"{key}: {value}" for key, value in found.items()))
        return
    with open_review(
        run, config_of(run, overrides), name, beside or [], only.value if only else None, count
    ) as session:
        if not files:
            serve_review(session, port, say)
        if not (json_path and console.emit_json(json_path, session.summary())):
            print_review(session)


def abtest(
    config: ConfigPath = None,
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    json_path: JsonPath = None,
    quiet: Quiet = False,
) -> None:
    """Simulate an A/B test in a synthetic shop: replay, off-policy estimates, power, CUPED, A/A tests, and revenue."""
    from taiji.config import load_config
    from taiji.core import progress
    from taiji.experiments.simulate import print_abtest, simulate

    progress.silence(quiet)
    found = simulate(load_config(config, overrides=overrides or []).abtest, seed)
    if not (json_path and console.emit_json(json_path, found)):
        print_abtest(found)


def oracle(
    config: ConfigPath = None,
    preset: Preset = None,
    data: Data = None,
    overrides: Overrides = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of training runs of the ranker per arm.")] = 3,
    json_path: JsonPath = None,
    quiet: Quiet = False,
) -> None:
    """Compute an upper bound on the gain from a language model by replacing its answers with the true next items. No
    language model is run."""
    from taiji.cli.view_commands import open_run

    opened = open_run(config, preset, data, overrides, name, runs, True, quiet)
    from taiji.pipeline.oracle import oracle as evaluate  # after wrong paths are reported, because it loads torch
    from taiji.pipeline.oracle import print_oracle

    console.can_go_on("the same command")
    opened.execute(["data", "examples"])
    found = evaluate(opened.folder, opened.config, seeds)
    if not (json_path and console.emit_json(json_path, found)):
        print_oracle(found)


def study(
    run: RunFolder,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of training runs of the ranker per arm.")] = 5,
    arms: Annotated[
        list[str] | None,
        typer.Option(
            "--arm",
            metavar="NAME",
            help="history_mean, truth (an oracle), base, sft, grpo, popo-light, popo or, if the run has another weighting rule, taiji; may be repeated. Default: all.",
        ),
    ] = None,
    overrides: Overrides = None,
    json_path: JsonPath = None,
    quiet: Quiet = False,
) -> None:
    """Compare feature sources for a finished run, over training seeds and with negative controls. An interrupted study
    continues where it stopped."""
    from taiji.core import progress
    from taiji.pipeline.run_study import print_study
    from taiji.pipeline.run_study import study as start

    progress.silence(quiet)
    found = start(run, config_of(run, overrides), seeds, arms or (), say=(lambda text: None) if quiet else say)
    if not (json_path and console.emit_json(json_path, found)):
        print_study(found)

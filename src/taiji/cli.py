"""Thin commands over the pipeline: they parse, call, print, and turn a user's error into one message and exit code 2.

Heavy modules are imported inside the commands, so that ``taiji --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taiji import __version__, console
from taiji.errors import TaijiError

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.data.discovery.parts import Question
    from taiji.pipeline.engine import Run
    from taiji.pipeline.mapping import Mapper

app = typer.Typer(
    name="taiji",
    help="An LLM as enhancer for your recommender: rationales, alignment, features, and proof of what they are worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def complete_presets(incomplete: str) -> list[str]:
    """Presets that begin so."""
    from taiji.config import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def complete_settings(incomplete: str) -> list[str]:
    """Keys of the configuration that begin so, each with its equals sign."""
    from taiji.config import setting_keys

    return [f"{key}=" for key in setting_keys() if key.startswith(incomplete)]


ConfigPath = Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A YAML configuration; see `taiji config`.")]
Preset = Annotated[str | None, typer.Option("--preset", help="Settings to start from: demo, laptop or paper.", autocompletion=complete_presets)]
Data = Annotated[str | None, typer.Option("--data", metavar="NAME|PATH", help="A named source, a folder in a known layout, or a mapping file.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; may be repeated.", autocompletion=complete_settings)]
Name = Annotated[str | None, typer.Option("--name", help="Name of the run (default: the configuration's or preset's).")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds the runs.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an existing run: finished, unchanged stages are skipped.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, runs/NAME.")]
JsonPath = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - prints it in place of the text.")]
Verdict = Enum("Verdict", {name: name for name in ("keep", "reject", "review")})  # type: ignore[misc]
Engine = Annotated[str, typer.Option("--engine", help="Where partitions are computed: local (this process) or ray (a cluster).")]
Address = Annotated[str | None, typer.Option("--address", help="Ray: the cluster to join (`auto` or HOST:PORT); left out, one is started on this machine.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and the result only.")]


def _open(
    config: Path | None, preset: str | None, data: str | None, overrides: list[str] | None, name: str | None, runs: Path, resume: bool, quiet: bool, engine: str = "local", address: str | None = None
) -> Run:
    from taiji import progress
    from taiji.config import load_config
    from taiji.language.models import check_language_model
    from taiji.pipeline.engine import Run
    from taiji.pipeline.stages import STAGES

    progress.quiet = quiet
    name = name if name is not None else config.stem if config else preset or "run"
    if not name or name != Path(name).name or name in (".", ".."):
        raise TaijiError("That cannot be a run's name.", where=f"--name {name!r}", expected="a name for a folder, without a path", fix="give the path as --runs FOLDER")
    folder = runs / name
    stored = folder / "config.json"
    console.again = f"taiji run --name {name}{_runs(runs)} --resume"
    if resume and stored.exists() and config is None and preset is None:
        config = stored  # "go on with what I started" needs no repetition of how it was started
    settings = load_config(config, preset=preset, overrides=[*([f"data.source={data}"] if data else []), *(overrides or [])])
    if stored.exists() and not resume:
        raise TaijiError(
            "A run of that name exists.", where=str(folder), fix="add --resume to go on with it (finished stages are kept), or choose another --name"
        )
    check_language_model(settings.language.model)  # now, not after the first hour
    return Run(folder, settings, STAGES, say=(lambda text: None) if quiet else _say, mapper=_mapper(engine, address, settings))


def _mapper(engine: str, address: str | None, settings: Config) -> Mapper:
    if engine not in ("local", "ray") or (address and engine != "ray"):
        raise TaijiError("No such engine.", where=f"--engine {engine}", expected="local, or ray (which --address goes with)", found=engine)
    if engine == "ray":
        from taiji.scale.ray_mapper import connect

        return connect(address, settings.scale)
    from taiji.pipeline.mapping import LocalMapper

    return LocalMapper()


def _runs(runs: Path) -> str:
    return "" if runs == Path("runs") else f" --runs {runs}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@app.command()
def run(
    config: ConfigPath = None,
    preset: Preset = None,
    data: Data = None,
    overrides: Overrides = None,
    name: Name = None,
    runs: Runs = Path("runs"),
    resume: Resume = False,
    json_path: JsonPath = None,
    quiet: Quiet = False,
    engine: Engine = "local",
    address: Address = None,
) -> None:
    """Run the whole loop, from logs to a judged ranker and a report."""
    if resume and not (config or preset or data or overrides) and not (runs / (name or "run") / "config.json").is_file():
        raise TaijiError("There is no run to go on with.", where=str(runs / (name or "run")), found=_names(runs), fix="name one of these with --name, or start one without --resume")
    opened = _open(config, preset, data, overrides, name, runs, resume, quiet, engine, address)
    opened.execute()
    _summary(opened.folder, json_path)


def _names(runs: Path) -> str:
    names = sorted(path.parent.name for path in runs.glob("*/config.json"))
    return f"runs in {runs}: {', '.join(names)}" if names else f"no run in {runs}"


def _summary(folder: Path, json_path: Path | None) -> None:
    from taiji.artifacts import read_json
    from taiji.evaluation.summary import print_summary

    metrics = read_json(folder / "metrics.json")
    if json_path and console.emit_json(json_path, {"run": str(folder), "report": str(folder / "report.html"), "metrics": metrics}):
        return
    print_summary(metrics)
    print(f"\nreport: {folder / 'report.html'}\nfigures: {folder / 'metrics.json'}")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Parquet, CSV or JSON-lines files with columns of any names.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Decide a part of the mapping: events.user_id=KUNDE; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of data set and run (default: the folder's).")] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder for the configuration and the mapping.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Write over the files of an earlier call.")] = False,
    json_path: JsonPath = None,
    quiet: Quiet = False,
) -> None:
    """Look at a folder of your files, propose what is what, show it, and write a configuration that runs."""
    from taiji.pipeline.beginning import as_json, begin, print_begun

    answers = dict(_pair(text) for text in overrides or [])
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    begun = begin(folder, to, name or folder.resolve().name, answers, _choose if terminal else None, force=force)
    if json_path and console.emit_json(json_path, as_json(begun)):
        return
    if quiet:
        print(begun.command)
    else:
        print_begun(begun)


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise TaijiError("A choice is not of the form key=value.", where=f"--set {text}", fix="write for instance --set events.user_id=COLUMN")
    return key.strip(), value.strip()


def _choose(question: Question) -> str:
    """Put a question to the person at the terminal."""
    print(f"\nPlease say {question.what} ({question.key}):")
    for number, choice in enumerate(question.choices, start=1):
        print(f"  {number}  {choice.value}  ({'; '.join(choice.reasons)})")
    given = typer.prompt("number, or another value").strip()
    return str(question.choices[int(given) - 1].value) if given.isdigit() and 1 <= int(given) <= len(question.choices) else given


def _add_stage_command(stage_name: str, summary: str) -> None:
    def command(
        config: ConfigPath = None,
        preset: Preset = None,
        data: Data = None,
        overrides: Overrides = None,
        name: Name = None,
        runs: Runs = Path("runs"),
        quiet: Quiet = False,
        engine: Engine = "local",
        address: Address = None,
    ) -> None:
        opened = _open(config, preset, data, overrides, name, runs, True, quiet, engine, address)
        console.again = f"taiji {stage_name} --name {opened.folder.name}{_runs(runs)}"
        opened.execute([stage_name])

    app.command(stage_name, help=f"Stage: {summary} Its inputs must be there.", rich_help_panel="Stages")(command)


@app.command("config")
def show_config(
    config: ConfigPath = None,
    preset: Preset = None,
    overrides: Overrides = None,
    describe: Annotated[bool, typer.Option("--describe", help="Explain every key instead, as Markdown.")] = False,
) -> None:
    """Print the resolved configuration as YAML, ready to be edited."""
    if describe:
        from taiji.reference import reference

        print(reference(), end="")
        return
    import yaml

    from taiji.config import load_config

    print(yaml.safe_dump(load_config(config, preset=preset, overrides=overrides or []).model_dump(mode="json"), sort_keys=False, allow_unicode=True))


@app.command()
def doctor(json_path: JsonPath = None, quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only what is missing.")] = False) -> None:
    """Say what is installed, which models are at hand, and the command that mends what is missing."""
    from dataclasses import asdict

    from taiji.doctor import examine

    findings = examine()
    if not (json_path and console.emit_json(json_path, [asdict(finding) for finding in findings])):
        for finding in findings:
            if finding.blocking or not quiet:
                print(finding)
    if any(finding.blocking for finding in findings):
        raise typer.Exit(1)


@app.command()
def audit(run: RunFolder, overrides: Overrides = None, json_path: JsonPath = None, quiet: Quiet = False) -> None:
    """Audit a run's rationales for leaked answers, and put the result into its report.

    The loop does this on a small sample; --set reasoning.audit.controls=200 takes a larger one.
    """
    from taiji import progress
    from taiji.artifacts import read_json
    from taiji.pipeline.engine import Run
    from taiji.pipeline.review import print_audit
    from taiji.pipeline.stages import STAGES

    progress.quiet = quiet
    opened = Run(run, _config_of(run, overrides), STAGES, say=(lambda text: None) if quiet else _say)
    opened.execute(["audit", "report"] if (run / "report.html").exists() else ["audit"])
    found = read_json(run / "audit.json")
    if not (json_path and console.emit_json(json_path, found)) and not quiet:
        print_audit(found)


@app.command()
def view(
    run: RunFolder,
    other: Annotated[Path | None, typer.Argument(metavar="[RUN2]", help="A second run to compare with.")] = None,
    port: Annotated[int, typer.Option("--port", help="Where to listen on this machine; 0 is any free port.", min=0, max=65535)] = 8100,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Look into a run in the browser: figures, users, what was asked and said, alignment step by step, two runs compared."""
    from taiji.inspector.server import view as show

    def ready(url: str) -> None:
        print(f"{url}  (this machine only; Ctrl-C ends it)", flush=True)
        if open_browser:
            import webbrowser

            webbrowser.open(url)

    show(run, other, port=port, ready=ready)


@app.command()
def review(
    run: RunFolder,
    name: Annotated[str, typer.Option("--as", help="Who reviews; names the files with the judgements.")] = "me",
    beside: Annotated[list[str] | None, typer.Option("--beside", help="A further reviewer: rules, model, or a person's name; may be repeated.")] = None,
    only: Annotated[Verdict | None, typer.Option("--only", help="Rationales with this verdict; default: all, those to review first.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many; a larger number later keeps the earlier ones.")] = 30,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the page on this machine; 0 takes a free one.")] = 8090,
    files: Annotated[bool, typer.Option("--files", help="No page: write what waits to NAME.todo.jsonl, read NAME.done.jsonl, and end.")] = False,
    overrides: Overrides = None,
    json_path: JsonPath = None,
) -> None:
    """Let a person judge a run's rationales on five axes, on a page of this machine or through files."""
    from taiji.pipeline.review import open_review, print_review, serve_review

    with open_review(run, _config_of(run, overrides), name, beside or [], only.value if only else None, count) as session:
        if not files:
            serve_review(session, port, _say)
        if not (json_path and console.emit_json(json_path, session.summary())):
            print_review(session)


@app.command()
def abtest(config: ConfigPath = None, overrides: Overrides = None, seed: Annotated[int, typer.Option("--seed")] = 0, json_path: JsonPath = None, quiet: Quiet = False) -> None:
    """Simulate an A/B test in a synthetic shop: replay, off-policy estimates, power, CUPED, A/A tests, money."""
    from taiji import progress
    from taiji.config import load_config
    from taiji.evaluation.simulate import print_abtest, simulate

    progress.quiet = quiet
    found = simulate(load_config(config, overrides=overrides or []).abtest, seed)
    if not (json_path and console.emit_json(json_path, found)):
        print_abtest(found)


@app.command()
def study(
    run: RunFolder,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of the ranker, each arm.")] = 5,
    arms: Annotated[
        list[str] | None, typer.Option("--arm", metavar="NAME", help="history_mean, base, sft, grpo, popo-light or popo; may be repeated. Default: all.")
    ] = None,
    overrides: Overrides = None,
    json_path: JsonPath = None,
    quiet: Quiet = False,
) -> None:
    """Compare ways of making features for a finished run, over training seeds and with null controls. Goes on where it was killed."""
    from taiji import progress
    from taiji.pipeline.study import print_study
    from taiji.pipeline.study import study as start

    progress.quiet = quiet
    found = start(run, _config_of(run, overrides), seeds, arms or (), say=(lambda text: None) if quiet else _say)
    if not (json_path and console.emit_json(json_path, found)):
        print_study(found)


@app.command()
def plan(
    config: ConfigPath = None,
    preset: Preset = None,
    overrides: Overrides = None,
    users: Annotated[float, typer.Option("--users", min=1, help="Users of the log.")] = 1e6,
    measured: Annotated[list[Path] | None, typer.Option("--measured", metavar="RUN", help="A finished run whose rates are taken; two of different size are better. May be repeated.")] = None,
    cluster: Annotated[Path | None, typer.Option("--cluster", metavar="FILE", help="YAML: machines, GPUs, token rates (default: one machine like the measured one).")] = None,
    json_path: JsonPath = None,
) -> None:
    """Say what a run will cost: tokens, GPU hours, storage and wall time of every stage, and what that rests on."""
    from taiji.config import load_config
    from taiji.scale.plan import plan as calculate
    from taiji.scale.rates import measured as read
    from taiji.scale.tables import load_cluster, print_plan

    settings = load_config(config, preset=preset, overrides=overrides or [])
    if not measured:
        raise TaijiError("A plan needs measured rates.", where="taiji plan", expected="--measured RUN, a finished run", fix="taiji run --preset demo, then --measured runs/demo")
    found = calculate(settings, users, [read(folder) for folder in measured], load_cluster(cluster), read(measured[-1], settings).log)
    if not (json_path and console.emit_json(json_path, found.as_json())):
        print_plan(found)


@app.command()
def serve(run: RunFolder, overrides: Overrides = None) -> None:
    """Serve a finished run near-online: event intake, worker, feature store, HTTP API."""
    from taiji.serving import serve as start

    start(run, _config_of(run, overrides).serving)


@app.command("roll-out")
def roll_out(run: RunFolder, beside: Annotated[Path | None, typer.Option(help="Run the service was started with.")] = None, overrides: Overrides = None) -> None:
    """Bring another finished run into a running service and serve it; the old release stays beside it."""
    from taiji.serving import roll_out as start

    print(f"serving {start(run, _config_of(run, overrides).serving, beside=beside).name}")


@app.command("roll-back")
def roll_back(run: RunFolder, overrides: Overrides = None) -> None:
    """Serve the previous release again, at once."""
    from taiji.serving import roll_back as start

    print(f"serving {start(_config_of(run, overrides).serving, run)}")


@app.command()
def load(
    run: RunFolder,
    url: Annotated[str, typer.Option(help="Address of the service; this machine only.")] = "http://127.0.0.1:8080",
    kind: Annotated[str, typer.Option(help="read, batch, write, rank or health.")] = "read",
    seconds: Annotated[float, typer.Option(help="How long.")] = 10.0,
    connections: Annotated[int, typer.Option(help="Connections kept open.")] = 16,
    overrides: Overrides = None,
    json_path: JsonPath = None,
) -> None:
    """Put a running service under load and report rates and latencies."""
    from dataclasses import asdict

    from taiji.serving import load as start
    from taiji.serving.traffic import of_run

    settings = _config_of(run, overrides).serving
    users, items = of_run(run, settings)
    found = start(url, users, items, kind=kind, seconds=seconds, connections=connections, key=os.environ.get("TAIJI_API_KEY"))  # type: ignore[arg-type]
    if not (json_path and console.emit_json(json_path, asdict(found))):
        print(found)


def _config_of(run: Path, overrides: list[str] | None = None) -> Config:
    from taiji.config import load_config

    if not (run / "config.json").is_file():
        raise TaijiError("This is no run directory.", where=str(run), expected="a folder that `taiji run` made, with config.json", fix="give runs/NAME")
    return load_config(run / "config.json", overrides=overrides or [])


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the ``taiji`` command."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # nobody asked for it: TRL's trainers would report each start
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' notes to their developers; python -W shows them
    from taiji.pipeline.names import STAGE_NAMES

    for stage_name, summary in STAGE_NAMES.items():
        if stage_name != "audit":  # a command of its own, which prints what it found
            _add_stage_command(stage_name, summary)
    console.guarded(lambda: app(prog_name="taiji"))


if __name__ == "__main__":
    main()

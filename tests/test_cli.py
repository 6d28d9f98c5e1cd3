"""The command line: every mistake a user can make ends in one message and exit code 2, and loses nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys

import pytest
from tests.data.discovery import exports
from tests.language.families import ending

from taiji import __version__, cli
from taiji.core.artifacts import write_json
from taiji.core.errors import NoSpace
from taiji.language.causal_lm import LanguageModel
from taiji.language.tiny import tiny_causal_lm
from taiji.pipeline.recipes import STAGE_NAMES

ITEMS = "sku,name\nA,apple\nB,bread\n"
LOG = "who,what,at,bought\nu1,A,100,1\nu1,B,200,0\nu2,B,300,1\n"
MAPPING = """\
items: {file: items.csv, item_id: sku, title: name}
events: {file: log.csv, user_id: who, item_id: what, timestamp: {column: at, unit: s}, click: bought, in_order: file}
"""


@pytest.fixture
def taiji(monkeypatch, capsys):
    """Run the command in this process: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["taiji", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def shop(tmp_path):
    """Writes a shop with some files changed and returns its folder."""

    def write(**files: str | bytes):
        folder = tmp_path / "shop"
        folder.mkdir(exist_ok=True)
        for name, text in {
            "items.csv": ITEMS,
            "log.csv": LOG,
            "mapping.yaml": MAPPING,
            **{k.replace("_", "."): v for k, v in files.items()},
        }.items():
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return write


WRONG = {
    "missing column": ({"log_csv": LOG.replace("what", "thing")}, "what"),
    "wrong type": ({"log_csv": LOG.replace("200", "yesterday")}, "yesterday"),
    "empty table": ({"log_csv": "who,what,at,bought\n"}, "log.csv"),
    "unknown id in events": ({"log_csv": LOG + "u2,Z,400,1\n"}, "Z"),
    "time that goes back": ({"log_csv": LOG + "u2,A,50,1\n"}, "in_order"),
    "duplicate items": ({"items_csv": ITEMS + "A,again\n"}, "A"),
    "unreadable file": ({"items_csv": b"\xff\xfe\x00\x01 no table"}, "items.csv"),
    "broken mapping": ({"mapping_yaml": "items: ["}, "mapping.yaml"),
    "mapping with an unknown key": ({"mapping_yaml": MAPPING.replace("title", "titel")}, "titel"),
    "label that is none": ({"log_csv": LOG.replace(",1\n", ",7\n")}, "7"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_one_clear_message(taiji, shop, tmp_path, case):
    files, word = WRONG[case]
    code, _, error = taiji("data", "--data", shop(**files), "--name", "x", "--runs", tmp_path)
    assert code == 2, error
    assert "Error:" in error
    assert "Traceback" not in error
    assert word in error
    assert not (tmp_path / "x" / "data").exists()


def test_right_data_passes(taiji, shop, tmp_path):
    code, _, error = taiji("data", "--data", shop(), "--name", "x", "--runs", tmp_path)
    assert code == 0, error
    assert (tmp_path / "x" / "data" / "manifest.json").exists()


IN_THE_WAY = {
    "runs in a file": ("data", "--data", "{shop}", "--name", "a", "--runs", "{file}"),
    "runs below a file": ("data", "--data", "{shop}", "--name", "a", "--runs", "{file}/x"),
    "runs where nothing can be": ("data", "--data", "{shop}", "--name", "a", "--runs", "/proc/x"),
    "a whole run": ("run", "--data", "{shop}", "--name", "a", "--runs", "{file}"),
    "init into a file": ("init", "{export}", "--name", "q", "--to", "{file}"),
    "init below a file": ("init", "{export}", "--name", "q", "--to", "{file}/x"),
    "init where nothing can be": ("init", "{export}", "--name", "q", "--to", "/proc/x"),
    "a result below a file": ("doctor", "--json", "{file}/x.json"),
    "a result where nothing can be": ("doctor", "--json", "/proc/x/y"),
}


@pytest.mark.parametrize("case", IN_THE_WAY)
def test_a_folder_that_cannot_be_made_is_one_message(taiji, shop, tmp_path, case):
    file, export = tmp_path / "some-file.yaml", tmp_path / "export"
    file.write_text("seed: 1\n")
    export.mkdir()
    exports.chinese(export)
    places = {"shop": shop(), "file": file, "export": export}
    code, _, error = taiji(*(word.format(**places) for word in IN_THE_WAY[case]))
    assert code == 2, error
    assert error.count("Error: Could not write") == 1 and "Traceback" not in error
    assert "choose another folder" in error
    assert "some-file.yaml is a file" in error or "/proc does not accept new files" in error
    assert "--resume" not in error and "MiB" not in error
    assert file.read_text() == "seed: 1\n"


def test_runs_in_a_folder_that_may_not_be_written(taiji, shop, tmp_path, monkeypatch):
    real = os.mkdir

    def refused(path, *rest, **more):
        if str(path).startswith(str(tmp_path / "runs")):
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        real(path, *rest, **more)

    monkeypatch.setattr(os, "mkdir", refused)
    code, _, error = taiji("run", "--data", shop(), "--name", "a", "--runs", tmp_path / "runs")
    assert code == 2, error
    assert "Operation not permitted" in error and "is not writable" in error
    assert "--resume" not in error and "Traceback" not in error


def test_a_full_disk_says_how_to_go_on_where_the_command_can(taiji, shop, tmp_path, monkeypatch):
    def full(*_):
        raise NoSpace("Could not write: No space left on device.", fix="free some space")

    monkeypatch.setattr("taiji.pipeline.engine.Run.execute", full)
    assert (
        f"continue with: taiji run --name x --runs {tmp_path} --resume"
        in taiji("run", "--data", shop(), "--name", "x", "--runs", tmp_path)[2]
    )
    monkeypatch.setattr("taiji.core.artifacts.write_json", full)
    error = taiji("doctor", "--json", tmp_path / "x.json")[2]
    assert "free some space" in error and "continue with" not in error


def test_a_first_run_that_failed_does_not_keep_its_name(taiji, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.run_commands, "summary", lambda folder, json_path: None)
    failed = taiji("run", "--data", tmp_path / "nowhere", "--name", "z", "--runs", tmp_path)
    assert failed[0] == 2 and "nowhere" in failed[2] and (tmp_path / "z" / "config.json").exists()
    # The corrected command gets as far as the first stage that this tiny log is too small for.
    corrected = ("run", "--data", shop(), "--name", "z", "--runs", tmp_path)
    code, _, error = taiji(*corrected)
    assert "data: done" in error and "A run with this name exists" not in error
    code, _, error = taiji(*corrected)
    assert code == 2 and "A run with this name exists" in error, "now a stage is done, and could be lost"


def test_resuming_what_is_not_there_starts_it_and_says_so(taiji, shop, tmp_path, monkeypatch):
    monkeypatch.setattr("taiji.pipeline.engine.Run.execute", lambda *_: None)
    monkeypatch.setattr(cli.run_commands, "summary", lambda folder, json_path: None)
    (tmp_path / "shop-a").mkdir()
    (tmp_path / "shop-a" / "config.json").write_text("{}")
    arguments = ("run", "--data", shop(), "--runs", tmp_path, "--resume", "--name")
    code, _, error = taiji(*arguments, "shpo-a")
    assert code == 0
    first, forecast = error.splitlines()
    assert first == f"There is no run shpo-a to resume, so a new one starts; runs in {tmp_path}: shop-a."
    assert forecast.startswith("15 of 15 stages to run: data, ") and "The time is unknown" in forecast
    assert taiji(*arguments, "shop-a")[2] == f"{forecast}\n"
    assert taiji(*arguments, "shpo-a", "--quiet")[2] == ""


@pytest.mark.parametrize("command", ["audit", "serve", "study", "review"])
def test_a_run_of_another_version_is_called_that(taiji, tmp_path, command):
    write_json(tmp_path / "data" / "manifest.json", {"version": "0.0.7"})
    write_json(tmp_path / "config.json", {"alignment": {"environment": {"threshold": 0.5}}})
    code, _, error = taiji(command, tmp_path)
    assert code == 2, error
    assert "different version" in error and "0.0.7" in error and "alignment.environment.threshold" in error
    assert "Traceback" not in error


def test_a_damaged_stage_is_made_again_and_a_forced_one_too(taiji, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.run_commands, "summary", lambda folder, json_path: None)
    data = ("--data", shop(), "--name", "x", "--runs", tmp_path)
    assert taiji("data", *data)[0] == 0
    assert "data: unchanged, skipped" in taiji("data", *data)[2]
    events = tmp_path / "x" / "data" / "dataset" / "events.parquet"
    events.write_bytes(events.read_bytes()[:100])
    error = taiji("data", *data)[2]
    assert "data: running again: dataset/events.parquet is damaged (100 bytes, " in error and "data: done" in error
    # The log is too small for the next stage; what is asked of the first one happens before.
    error = taiji("run", "--name", "x", "--runs", tmp_path, "--force", "data", "--verify")[2]
    assert "data: running again: requested with --force" in error and "data: done" in error
    code, _, error = taiji("run", "--name", "x", "--runs", tmp_path, "--force", "dta")
    assert code == 2 and "A stage is unknown" in error and "data, examples" in error
    (tmp_path / "x" / "config.json").unlink()
    code, _, error = taiji("run", "--name", "x", "--runs", tmp_path, "--resume")
    assert (
        code == 2
        and "saved configuration of a run is missing" in error
        and "--resume; finished stages are kept" in error
    )
    (tmp_path / "x" / "data" / "manifest.json").write_text("{")
    error = taiji("run", *data, "--resume")[2]
    assert "data: running again: its manifest is damaged" in error and "data: done" in error


def test_data_that_cannot_be_split_says_so(taiji, shop, tmp_path):
    assert taiji("data", "--data", shop(), "--name", "x", "--runs", tmp_path)[0] == 0
    code, _, error = taiji("examples", "--name", "x", "--runs", tmp_path)
    assert code == 2
    assert "what to do" in error


def test_a_model_folder_that_is_none_is_refused_before_any_work(taiji, shop, tmp_path):
    empty = tmp_path / "model"
    empty.mkdir()
    code, _, error = taiji(
        "run", "--data", shop(), "--set", f"language.model={empty}", "--name", "x", "--runs", tmp_path
    )
    assert code == 2
    assert "config.json" in error
    assert not (tmp_path / "x").exists()


def test_data_that_is_not_there(taiji, tmp_path):
    code, _, error = taiji("data", "--data", tmp_path / "nowhere", "--name", "x", "--runs", tmp_path)
    assert code == 2
    assert "nowhere" in error


def test_a_stage_without_its_inputs_names_the_command_that_makes_them(taiji, tmp_path):
    code, _, error = taiji("sft", "--name", "x", "--runs", tmp_path)
    assert code == 2
    assert "taiji data" in error


def test_help_names_every_stage_and_version_is_printed(taiji):
    code, out, _ = taiji("--help")
    assert code == 0
    assert all(name in out for name in (*STAGE_NAMES, "run", "config", "doctor"))
    assert taiji("--version")[1].strip() == __version__


def test_help_lists_each_command_under_a_task_with_its_whole_summary(taiji):
    out = taiji("--help")[1]
    places = [out.index(f"\n{task}:\n") for task in cli.TASKS]
    assert places == sorted(places) and "..." not in out[places[0] :]
    for task, commands in cli.TASKS.items():
        section = out.partition(f"\n{task}:\n")[2].partition("\n\n")[0]
        listed = re.findall(r"^  (\S+)  ", section, re.MULTILINE)
        assert len(listed) == len(commands), (task, listed)


@pytest.mark.parametrize(
    ("old", "new"), [("environment", "reward_table"), ("judge", "evaluation_ranker"), ("ceiling", "oracle")]
)
def test_commands_work_under_their_old_names_and_say_the_new_one(taiji, shop, tmp_path, monkeypatch, old, new):
    monkeypatch.setattr("taiji.pipeline.oracle.oracle", lambda *_: {"found": "it"})
    called = []
    monkeypatch.setattr("taiji.pipeline.engine.Run.execute", lambda self, names: called.append(names))
    options = ("--data", shop(), "--name", "x", "--runs", tmp_path, *(("--json", "-") if old == "ceiling" else ()))
    code, _, error = taiji(old, *options)
    assert code == 0 and f"`taiji {old}` is now called `taiji {new}`" in error, error
    assert "now called" not in taiji(new, *options)[2] and called[0] == called[1]
    assert f"\n  {old} " not in taiji("--help")[1] and f"\n  {new} " in taiji("--help")[1]


def test_config_prints_yaml_that_reads_back(taiji, tmp_path):
    code, out, _ = taiji("config", "--preset", "demo", "--set", "size.chunk=5")
    assert code == 0
    (tmp_path / "c.yaml").write_text(out)
    assert taiji("config", tmp_path / "c.yaml")[1] == out


def test_view_of_what_is_no_run_ends_with_one_message(taiji, tmp_path):
    code, _, error = taiji("view", tmp_path / "nowhere")
    assert code == 2
    assert "not a run directory" in error and "Traceback" not in error


def test_doctor_finds_the_defaults(taiji):
    code, out, _ = taiji("doctor")
    assert code == 0, out
    assert "SmolLM2" in out


def test_doctor_shows_how_the_prompts_of_a_configuration_end(taiji, tmp_path):
    model, tokenizer = tiny_causal_lm(hidden=8, layers=1, heads=2)
    tokenizer.chat_template = "{{ '<|im_start|>' }}{{ strftime_now('%Y') }}" + ending("{{ end }}")
    LanguageModel(model, tokenizer, "tiny").save(tmp_path / "model")
    (tmp_path / "my.yaml").write_text(f"language: {{model: {tmp_path / 'model'}, template_date: 2026-03-04}}")
    code, out, _ = taiji("doctor", tmp_path / "my.yaml")
    assert code == 0 and "start with '<|im_start|>2026" in out and "assistant\\n<think>'" in out
    twice = 'language.chat_template_kwargs={end: "<think>\\n<think>"}'
    code, out, _ = taiji("doctor", tmp_path / "my.yaml", "--set", twice, "--quiet")
    assert code == 0 and out.startswith("WARNING") and "opened twice" in out
    code, out, _ = taiji("doctor", tmp_path / "my.yaml", "--set", "language.chat_template_kwargs.thnk=true", "--quiet")
    assert code == 1 and "does not use this argument" in out


def test_init_proposes_writes_and_says_what_to_run(taiji, shop, tmp_path):
    folder = shop(
        log_csv="who,what,at,bought\n"
        + "".join(f"u{i % 9},{'AB'[i % 2]},{1_700_000_000 + i * 977},{int(i % 3 > 0)}\n" for i in range(120))
    )
    code, out, error = taiji(
        "init",
        folder,
        "--to",
        tmp_path,
        "--set",
        "events.user_id=who",
        "--set",
        "events.item_id=what",
        "--json",
        tmp_path / "found.json",
    )
    assert code == 0, error
    assert f"next: taiji run {tmp_path / 'shop.yaml'}" in out
    assert json.loads((tmp_path / "found.json").read_text())["guesses"]["events.click"]["value"] == "bought"
    assert taiji("data", tmp_path / "shop.yaml", "--name", "x", "--runs", tmp_path)[0] == 0
    code, out, _ = taiji(
        "init",
        folder,
        "--to",
        tmp_path,
        "--force",
        "--quiet",
        "--set",
        "events.user_id=who",
        "--set",
        "events.item_id=what",
    )
    assert (code, out.splitlines()) == (0, [f"taiji run {tmp_path / 'shop.yaml'}"])


def test_init_leaves_out_what_it_is_told_to(taiji, shop, tmp_path):
    rows = "".join(f"u{i % 9},{'AB'[i % 2]},{1_700_000_000 + i * 977},{int(i % 3 > 0)}\n" for i in range(120))
    folder = shop(log_csv="user_id,item_id,at,bought\n" + rows, old_csv="a,a\n1,2\n")
    code, _, error = taiji("init", folder, "--to", tmp_path)
    assert code == 2 and "--ignore old.csv" in error
    code, out, error = taiji("init", folder, "--to", tmp_path, "--ignore", "old*")
    assert code == 0, error
    assert "old.csv was skipped" in out and "READING" in out


def test_a_question_at_the_terminal_takes_a_number_or_a_value(monkeypatch, capsys):
    from taiji.data.discovery.parts import Guess, Question

    question = Question(
        "events.user_id", "the user of each event", (Guess("a", 0.5, ("an id",)), Guess("b", 0.5, ("an id",)))
    )
    for given, value in (("2", "b"), ("c", "c")):
        monkeypatch.setattr(cli.start_commands.typer, "prompt", lambda text, given=given: given)
        assert cli.start_commands.choose(question) == value
    assert "the user of each event" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--name", "../../elsewhere"), ("not a valid name of a run", "--runs")),
        (("run", "--name", ""), ("not a valid name of a run",)),
        (("run", "--name", "none", "--resume"), ("no run to continue", "no run in")),
        (("run", "--set", "a=b: [c"), ("--set a=b: [c", "quote")),
        (("run", "none.yaml"), ("No such file", "taiji config --preset demo > my.yaml")),
        (("run", "--set", "size=3"), ("size: a section with keys",)),
        (("run", "--preset", "demo", "--set", "size.chunk=0"), ("where: --set size.chunk=0", "found 0")),
        (("init", "nowhere"), ("nowhere", "check the path")),
        (("init", ".", "--set", "events.user_id"), ("key=value",)),
        (("audit", "nowhere"), ("not a run directory", "runs/NAME")),
        (("serve", "nowhere"), ("not a run directory", "no run in .")),
        (("copy", "nowhere"), ("neither a run nor a table of items", "nowhere")),
        (("keys", "list", "nowhere"), ("taiji keys add nowhere NAME",)),
        (("keys", "remove", "nowhere", "bob"), ("as `taiji keys add` writes it", "bob")),
        (("config", "--preset", "huge"), ("demo, laptop, paper",)),
        (("init", ".", "--name", "a b/../c"), ("not a valid name of a run", "--to")),
        (("run", "--preset", "demo", "--set", "split.fractions=[0.5, 0.5]"), ("four positive shares that sum to 1",)),
        (("run", "--preset", "demo", "--set", "size={chunk: 1, chunk: 2}"), ("'chunk'", "repeated")),
        (("nothing",), ("nothing",)),
        (("run", "--nothing"), ("--nothing",)),
    ],
)
def test_mistakes_are_one_message_with_a_way_out(taiji, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, error = taiji(*arguments)
    assert code == 2, error
    assert all(word in error for word in words), error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir()) and not (tmp_path.parent.parent / "elsewhere").exists()


def test_an_interruption_while_a_library_loads_has_the_same_exit_code(tmp_path):
    (tmp_path / "interrupted.py").write_text(
        "from taiji.cli.console import guarded\nguarded(lambda: exec('raise KeyboardInterrupt'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (130, "Interrupted.")


def test_a_scheduler_that_ends_a_run_is_told_how_to_go_on(tmp_path):
    (tmp_path / "ended.py").write_text(
        "import os, signal, time\n"
        "from taiji.cli import console\n"
        "def command():\n"
        "    console.can_go_on('taiji run --resume')\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "console.guarded(command)\n"
    )
    done = subprocess.run([sys.executable, "-m", "ended"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr.strip().endswith("Terminated; finished stages and partitions are kept. Continue with: taiji run --resume"), done.stderr  # fmt: skip


def test_ctrl_c_is_one_line_that_says_how_to_go_on(taiji, shop, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("taiji.pipeline.engine.Run.execute", interrupt)
    code, out, error = taiji("data", "--data", shop(), "--name", "x", "--runs", tmp_path)
    assert (code, out) == (130, "")
    assert (
        error.strip()
        == f"Interrupted; finished stages and partitions are kept. Continue with: taiji data --name x --runs {tmp_path}"
    )
    code, _, error = taiji("run", "--data", shop(), "--name", "x", "--runs", tmp_path)
    assert (code, error.strip().split("with: ")[1]) == (130, f"taiji run --name x --runs {tmp_path} --resume")


def test_results_for_scripts_take_standard_output(taiji):
    code, out, _ = taiji("doctor", "--json", "-")
    assert code == 0
    assert {"what", "found", "fix", "blocking", "warning"} == set(json.loads(out)[0])
    assert taiji("doctor", "--quiet")[1] == ""


def test_a_reader_that_leaves_early_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m taiji.cli config --describe | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "# Configuration\n" and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("taiji ro", {"roll-out", "roll-back"}),
        ("taiji sf", {"sft"}),
        ("taiji run --preset d", {"demo"}),
        ("taiji run --set size.c", {"size.calibration_prompts=", "size.chunk="}),
    ],
)
def test_the_shell_completes_commands_presets_and_settings(taiji, monkeypatch, line, offered):
    for name, value in (
        ("_TAIJI_COMPLETE", "complete_bash"),
        ("COMP_WORDS", line),
        ("COMP_CWORD", str(len(line.split()) - 1)),
    ):
        monkeypatch.setenv(name, value)
    assert set(taiji()[1].split()) == offered


def test_help_imports_next_to_nothing():
    """The time of `taiji --help` is the time of its imports: what it may import is the bound."""
    code = "import sys; sys.argv = ['taiji', '--help']\nfrom taiji.cli import main\ntry: main()\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert not loaded & {
        "torch",
        "numpy",
        "polars",
        "pyarrow",
        "transformers",
        "trl",
        "pydantic",
        "yaml",
        "plotly",
        "fastapi",
        "jinja2",
    }
    ours = {name for name in done.stderr.split() if name.startswith("taiji.")}
    assert {name for name in ours if not name.startswith("taiji.cli")} <= {
        "taiji.cli.console",
        "taiji.core",
        "taiji.core.advice",
        "taiji.core.errors",
        "taiji.core.file_state",
        "taiji.core.moved",
        "taiji.core.progress",
        "taiji.pipeline",
        "taiji.pipeline.amounts",
        "taiji.pipeline.names",
        "taiji.pipeline.recipes",
        "taiji.pipeline.ranker_tables",
        "taiji.pipeline.stage",
        "taiji.pipeline.stages",
        *(f"taiji.pipeline.stages.{name}_stage" for name in STAGE_NAMES),
    }


def test_worlds_are_listed_and_two_policies_compete_in_one(taiji):
    code, said, _ = taiji("world", "list")
    assert code == 0 and "short-video: " in said and "funnel (position" in said
    code, said, _ = taiji("world", "list", "--json", "-")
    assert code == 0 and {row["scenario"] for row in json.loads(said)} >= {"shop", "everything"}
    sizes = ("--users", 40, "--days", 1, "--before", 1, "--quiet")
    arms = ("--policy", "random", "--policy", "popular")
    code, said, _ = taiji("world", "run", "push", *arms, *sizes, "--without", "copy", "--json", "-")
    found = json.loads(said)
    assert code == 0 and found["treatment"] == "popular" and found["scenario"] == "push-without-copy"
    code, said, _ = taiji("world", "run", "push", *arms, *sizes)
    assert code == 0 and "popular (" in said and "cumulative" in said


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("tv", "--policy", "random", "--policy", "random"), "short-video"),
        (("push", "--policy", "random"), "--policy CONTROL"),
        (("push", "--policy", "random", "--policy", "best"), "No policy has this name"),
        (
            ("push", "--policy", "random", "--policy", "random", "--without", "watch"),
            "cannot be switched off in the world",
        ),
        (("push", "--policy", "random", "--policy", "random", "--co-diverted"), "mechanism creators"),
    ],
    ids=["scenario", "one policy", "policy", "twin", "creators"],
)
def test_mistakes_about_worlds_are_one_message(taiji, arguments, words):
    code, _, said = taiji("world", "run", *arguments, "--users", 20, "--days", 1, "--quiet")
    assert code == 2 and words in said and "Traceback" not in said

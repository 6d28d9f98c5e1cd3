"""The command line: every mistake a user can make ends in one message and exit code 2, and loses nothing."""

from __future__ import annotations

import json
import sys

import pytest

from taiji import __version__, cli
from taiji.pipeline.names import STAGE_NAMES

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
        for name, text in {"items.csv": ITEMS, "log.csv": LOG, "mapping.yaml": MAPPING, **{k.replace("_", "."): v for k, v in files.items()}}.items():
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


def test_data_that_cannot_be_split_says_so(taiji, shop, tmp_path):
    assert taiji("data", "--data", shop(), "--name", "x", "--runs", tmp_path)[0] == 0
    code, _, error = taiji("examples", "--name", "x", "--runs", tmp_path)
    assert code == 2
    assert "what to do" in error


def test_a_model_folder_that_is_none_is_refused_before_any_work(taiji, shop, tmp_path):
    empty = tmp_path / "model"
    empty.mkdir()
    code, _, error = taiji("run", "--data", shop(), "--set", f"language.model={empty}", "--name", "x", "--runs", tmp_path)
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


def test_config_prints_yaml_that_reads_back(taiji, tmp_path):
    code, out, _ = taiji("config", "--preset", "demo", "--set", "size.chunk=5")
    assert code == 0
    (tmp_path / "c.yaml").write_text(out)
    assert taiji("config", tmp_path / "c.yaml")[1] == out


def test_doctor_finds_the_defaults(taiji):
    code, out, _ = taiji("doctor")
    assert code == 0, out
    assert "SmolLM2" in out


def test_init_proposes_writes_and_says_what_to_run(taiji, shop, tmp_path):
    folder = shop(log_csv="who,what,at,bought\n" + "".join(f"u{i % 9},{'AB'[i % 2]},{1_700_000_000 + i * 977},{int(i % 3 > 0)}\n" for i in range(120)))
    code, out, error = taiji("init", folder, "--to", tmp_path, "--set", "events.user_id=who", "--set", "events.item_id=what", "--json", tmp_path / "found.json")
    assert code == 0, error
    assert f"next: taiji run {tmp_path / 'shop.yaml'}" in out
    assert json.loads((tmp_path / "found.json").read_text())["guesses"]["events.click"]["value"] == "bought"
    assert taiji("data", tmp_path / "shop.yaml", "--name", "x", "--runs", tmp_path)[0] == 0
    code, out, _ = taiji("init", folder, "--to", tmp_path, "--force", "--quiet", "--set", "events.user_id=who", "--set", "events.item_id=what")
    assert (code, out.splitlines()) == (0, [f"taiji run {tmp_path / 'shop.yaml'}"])


def test_a_question_at_the_terminal_takes_a_number_or_a_value(monkeypatch, capsys):
    from taiji.data.discovery.parts import Guess, Question

    question = Question("events.user_id", "who acted", (Guess("a", 0.5, ("an id",)), Guess("b", 0.5, ("an id",))))
    for given, value in (("2", "b"), ("c", "c")):
        monkeypatch.setattr(cli.typer, "prompt", lambda text, given=given: given)
        assert cli._choose(question) == value
    assert "who acted" in capsys.readouterr().out

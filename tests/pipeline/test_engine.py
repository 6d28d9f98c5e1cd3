"""The stage engine: skipping, invalidation, resuming, and what stays whole when a stage fails."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

import taiji
from taiji.config import Config, setting_keys
from taiji.core.artifacts import file_hash, read_json, write_json, write_text
from taiji.core.errors import TaijiError
from taiji.pipeline import engine
from taiji.pipeline.engine import Run
from taiji.pipeline.recipes import ENHANCE
from taiji.pipeline.stage import Stage


@pytest.fixture
def calls():
    return []


def stage(name, work, **attributes):
    """A stage that does the work."""
    body = {"name": name, "summary": "Work.", "run": lambda self, context: work(context), **attributes}
    return type(name.title(), (Stage,), body)()


def loop(calls, fail=lambda: None):
    def first(context):
        calls.append("data")
        write_json(context.folder / "value.json", context.config.size.test_prompts)
        return {"rows": 1}

    def second(context):
        calls.append("examples")
        value = read_json(context.input("data") / "value.json")

        def work(part):
            calls.append(f"chunk {part['row'][0] // 2}")
            return part.select(pl.col("row") * value)

        joined = context.over(pl.DataFrame({"row": range(6)}), lambda: work, "Multiplying", "rows", size=2)
        fail()
        write_json(context.folder / "rows.json", joined["row"].to_list())
        return {"rows": len(joined)}

    return [stage("data", first, settings=("size",)), stage("examples", second, needs=("data",))]


def quiet(text):
    return None


def test_unchanged_stages_are_skipped_and_changed_ones_run_again(tmp_path, calls):
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    assert calls == ["data", "examples", "chunk 0", "chunk 1", "chunk 2"]
    calls.clear()
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    assert calls == []
    Run(tmp_path / "a", Config(size={"test_prompts": 7}), loop(calls), quiet).execute()
    assert calls[:2] == ["data", "examples"]
    assert read_json(tmp_path / "a" / "examples" / "rows.json") == [0, 7, 14, 21, 28, 35]


def test_an_input_that_comes_out_the_same_does_not_invalidate_what_follows(tmp_path, calls):
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    calls.clear()
    Run(tmp_path / "a", Config(size={"feature_users": 9}), loop(calls), quiet).execute()
    assert calls == ["data"]


def test_a_failed_stage_keeps_its_chunks_and_the_earlier_result(tmp_path, calls):
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    before = file_hash(tmp_path / "a" / "examples")

    def fail():
        raise RuntimeError("killed")

    changed = Config(size={"test_prompts": 7})
    with pytest.raises(RuntimeError):
        Run(tmp_path / "a", changed, loop(calls, fail), quiet).execute()
    assert file_hash(tmp_path / "a" / "examples") == before
    calls.clear()
    Run(tmp_path / "a", changed, loop(calls), quiet).execute()
    assert calls == ["examples"], "the three chunks were kept"
    undisturbed = Run(tmp_path / "b", changed, loop(calls), quiet)
    undisturbed.execute()
    assert (tmp_path / "a/examples/rows.json").read_bytes() == (tmp_path / "b/examples/rows.json").read_bytes()
    assert not list((tmp_path / "a" / ".work").iterdir())


def test_a_kill_between_the_last_write_and_the_rename_is_completed(tmp_path, calls, monkeypatch):
    stages = loop(calls)
    real = engine.os.replace

    def killed(source, target):
        if str(target).endswith("/data"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(engine.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "a", Config(), stages, quiet).execute()
    monkeypatch.setattr(engine.os, "replace", real)
    Run(tmp_path / "a", Config(), stages, quiet).execute()
    assert calls.count("data") == 1


def test_a_stage_whose_input_was_not_run_says_which(tmp_path, calls):
    with pytest.raises(TaijiError, match="'data' has not been run"):
        Run(tmp_path / "a", Config(), loop(calls), quiet).execute(["examples"])


def test_a_stage_that_lacks_what_it_publishes_runs_again(tmp_path, calls):
    first, second = loop(calls)
    shown = stage("data", first.run, settings=("size",), publish=("value.json",))
    Run(tmp_path / "a", Config(), [shown, second], quiet).execute()
    calls.clear()
    (tmp_path / "a" / "data" / "value.json").unlink()
    Run(tmp_path / "a", Config(), [shown, second], quiet).execute()
    assert calls == ["data"]
    assert (tmp_path / "a" / "value.json").exists()


def test_two_processes_cannot_work_on_one_run(tmp_path, calls):
    run = Run(tmp_path / "a", Config(), loop(calls), quiet)
    with run._locked(), pytest.raises(TaijiError, match="Another process"):
        Run(tmp_path / "a", Config(), loop(calls), quiet).execute()


def test_a_stage_cannot_read_what_it_does_not_name(tmp_path, calls):
    def sneaky(context):
        context.input("data")

    write_text(tmp_path / "x", "")
    with pytest.raises(KeyError, match="without naming it"):
        Run(tmp_path / "a", Config(), [stage("data", sneaky)], quiet).execute()


def test_files_that_settings_name_count_by_their_content(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "student.txt").write_text("[user]\nWhat next?\n")
    config = Config.model_validate({"reasoning": {"prompts": {"templates": str(tmp_path / "templates")}}})
    stages = {stage.name: stage for stage in ENHANCE}
    before = {name: stage.outside(config) for name, stage in stages.items()}
    (tmp_path / "templates" / "student.txt").write_text("[user]\nWhat will they buy next?\n")
    changed = {name for name, stage in stages.items() if stage.outside(config) != before[name]}
    assert {"rationales", "selection", "sft", "alignment", "answers", "features"} <= changed
    assert not changed & {"data", "examples", "reward", "evaluation_ranker", "reward_table", "ranking"}
    assert not any(stage.outside(Config()) for stage in ENHANCE), "packaged data and models are told by the settings"


def test_every_key_in_an_error_message_can_be_set():
    sections = set(Config.model_fields)
    keys = set(setting_keys())
    for path in sorted(Path(taiji.__file__).parent.rglob("*.py")):
        for where, text in re.findall(r"\b(where|fix)=f?\"([^\"]*)\"", path.read_text()):
            for key in re.findall(r"(?<![\w./{-])([a-z_]+(?:\.[a-z_]+)+)", text):
                if key.split(".")[0] in sections and key.rsplit(".", 1)[1] not in ("json", "parquet", "html", "md"):
                    assert any(known == key or known.startswith(f"{key}.") for known in keys), (path.name, where, key)

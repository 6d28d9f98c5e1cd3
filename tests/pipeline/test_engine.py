"""The stage engine: skipping, invalidation, resuming, and what stays whole when a stage fails."""

from __future__ import annotations

import errno
import re
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import polars as pl
import pytest
from tests.damage import WAYS, contents, damage, damaged_copies

import taiji
from taiji.config import Config, setting_keys
from taiji.core import manifests
from taiji.core.artifacts import file_hash, read_json, write_json, write_text
from taiji.core.errors import ArtifactError, ConfigError, InputError, ResourceError, TaijiError
from taiji.core.manifests import Verifier
from taiji.models.ranking.settings import GROUP
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
    with pytest.raises(KeyError, match="missing from its needs"):
        Run(tmp_path / "a", Config(), [stage("data", sneaky)], quiet).execute()


def shown_loop(calls):
    """The loop with a file at the top of the run."""
    first, second = loop(calls)
    return [stage("data", first.run, settings=("size",), publish=("value.json",)), second]


def test_whatever_is_damaged_is_made_again_and_said(tmp_path, calls, monkeypatch):
    monkeypatch.setattr("taiji.core.artifacts.os.fsync", lambda descriptor: None)  # 30 runs, none of which loses power,
    monkeypatch.setattr(engine, "foreign_code", lambda settings: {})  # and none of which names another package
    Run(tmp_path / "a", Config(), shown_loop(calls), quiet).execute()
    whole = contents(tmp_path / "a")
    tried = 0
    for name, way, copy in damaged_copies(tmp_path / "a", tmp_path / "copies"):
        said = []
        Run(copy, Config(), shown_loop(calls), said.append).execute()
        assert contents(copy) == whole, (name, way)
        told = [line for line in said if "running again: " in line or "written again" in line]
        assert len(told) == (0 if name == "config.json" else 1), (name, way, said)
        tried += 1
    assert tried == 5 * 6, "config.json, value.json, and of both stages an artefact and a manifest"


@pytest.mark.parametrize("way", WAYS)
def test_a_stage_does_not_read_a_damaged_input(tmp_path, calls, way):
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    damage(tmp_path / "a" / "data" / "value.json", way)
    shutil.rmtree(tmp_path / "a" / "examples")
    with pytest.raises(ArtifactError, match=rf"(?s)value\.json.*taiji data --name a --runs {tmp_path}"):
        Run(tmp_path / "a", Config(), loop(calls), quiet).execute(["examples"])
    calls.clear()
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute(["data"])
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute(["examples"])
    assert calls[:2] == ["data", "examples"], "the advice helped"


def test_a_large_file_is_believed_by_size_and_time_and_hashed_on_demand(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(manifests, "HASHED_UP_TO", 0)
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    calls.clear()
    value = tmp_path / "a" / "data" / "value.json"
    damage(value, "flipped")
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    assert calls == []
    Run(tmp_path / "a", Config(), loop(calls), quiet, verifier=Verifier(thorough=True)).execute()
    assert calls == ["data"]
    value.write_bytes(value.read_bytes()[::-1])
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    assert calls == ["data", "data"], "its time of change is another"


def test_force_makes_a_stage_and_what_depends_on_it_again(tmp_path, calls):
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    whole = contents(tmp_path / "a")
    for forced, made in (("examples", ["examples"]), ("data", ["data", "examples"])):
        calls.clear()
        said = []
        run = Run(tmp_path / "a", Config(), loop(calls), said.append)
        run.force([forced])
        run.execute()
        assert [call for call in calls if "chunk" not in call] == made
        assert sum("running again: requested with --force" in line for line in said) == len(made)
        assert contents(tmp_path / "a") == whole
    with pytest.raises(ConfigError, match="A stage is unknown"):
        Run(tmp_path / "a", Config(), loop(calls), quiet).force(["exmaples"])


def test_a_forced_stage_that_was_killed_goes_on_and_is_not_forgotten(tmp_path, calls):
    def fail():
        raise RuntimeError("killed")

    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    run = Run(tmp_path / "a", Config(), loop(calls, fail), quiet)
    run.force(["examples"])
    with pytest.raises(RuntimeError):
        run.execute()
    calls.clear()
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    assert calls == ["examples"], "the chunks of the forced attempt were kept"
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    assert calls == ["examples"]


def test_it_is_said_why_a_stage_is_made_again(tmp_path, calls):
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    said = []
    Run(tmp_path / "a", Config(size={"test_prompts": 7}), loop(calls), said.append).execute()
    assert "[1/2] data: running again: settings changed: size.test_prompts: 100 → 7" in said
    assert "[2/2] examples: running again: inputs changed: data" in said


def test_what_a_stage_found_is_said_when_it_has_run(tmp_path):
    def told(self, folder):
        return [f"found {read_json(folder / 'value.json')}"]

    stages = [stage("data", lambda context: write_json(context.folder / "value.json", 7) or {}, told=told)]
    said, again = [], []
    Run(tmp_path / "a", Config(), stages, said.append).execute()
    Run(tmp_path / "a", Config(), stages, again.append).execute()
    assert said[-1] == "    found 7" and len(again) == 1


def test_a_moved_run_goes_on_and_its_manifests_hold_no_path(tmp_path, calls):
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "a", tmp_path / "elsewhere" / "b")
    calls.clear()
    Run(tmp_path / "elsewhere" / "b", Config(), loop(calls), quiet).execute()
    assert calls == []
    assert not any(str(tmp_path) in f.read_text() for f in (tmp_path / "elsewhere").rglob("manifest.json"))


def test_files_that_are_gone_are_not_needed_by_a_finished_stage(tmp_path, calls):
    def outside(self, config):
        if not (tmp_path / "log.csv").exists():
            raise InputError("There is no such file.", where="log.csv")
        return (tmp_path / "log.csv").read_text()

    first, second = loop(calls)
    stages = [stage("data", first.run, settings=("size",), outside=outside), second]
    write_text(tmp_path / "log.csv", "who,what")
    Run(tmp_path / "a", Config(), stages, quiet).execute()
    (tmp_path / "log.csv").unlink()
    calls.clear()
    said = []
    Run(tmp_path / "a", Config(), stages, said.append).execute()
    assert calls == [] and "log.csv" in said[0] and "the stored tables are used" in said[0]
    with pytest.raises(InputError, match="no such file"):
        Run(tmp_path / "a", Config(size={"test_prompts": 7}), stages, quiet).execute()
    damage(tmp_path / "a" / "data" / "manifest.json", "truncated")
    with pytest.raises(InputError, match="no such file"):  # and no advice to do what was just done
        Run(tmp_path / "a", Config(), stages, quiet).execute()


def test_a_run_of_an_earlier_version_is_compared_as_a_whole(tmp_path, calls):
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    for key in ("data", "examples"):
        path = tmp_path / "a" / key / "manifest.json"
        old = {name: value for name, value in read_json(path).items() if name not in ("files", "checksum")}
        assert old["output"] == file_hash(path.parent, leave_out=("manifest.json",))
        write_json(path, old)
    calls.clear()
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    assert calls == []
    damage(tmp_path / "a" / "data" / "value.json", "flipped")
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    assert calls == ["data"]


@pytest.mark.parametrize("file", ["fingerprint.json", "scratch/rows/part-00001*.parquet", "scratch/rows/part-00001*.sha256", "scratch/rows/rows-00001*.parquet"])  # fmt: skip
@pytest.mark.parametrize("way", WAYS)
def test_damaged_work_of_a_killed_stage_is_done_again(tmp_path, calls, file, way):
    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        Run(tmp_path / "a", Config(), loop(calls, fail), quiet).execute()
    (broken,) = (tmp_path / "a" / ".work" / "examples").glob(file)
    damage(broken, way)
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    assert read_json(tmp_path / "a" / "examples" / "rows.json") == [0, 100, 200, 300, 400, 500]


def test_a_stage_that_was_damaged_before_its_final_rename_is_done_again(tmp_path, calls, monkeypatch):
    real = engine.os.replace

    def killed(source, target):
        if str(target).endswith("/data"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(engine.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    monkeypatch.setattr(engine.os, "replace", real)
    damage(tmp_path / "a" / ".work" / "data" / "out" / "value.json", "flipped")
    Run(tmp_path / "a", Config(), loop(calls), quiet).execute()
    assert calls.count("data") == 2 and read_json(tmp_path / "a" / "data" / "value.json") == 100


def test_a_folder_that_may_not_be_replaced_is_one_message(tmp_path, calls, monkeypatch):
    real = engine.os.replace

    def forbidden(source, target):
        if str(target).endswith("/data"):
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        real(source, target)

    monkeypatch.setattr(engine.os, "replace", forbidden)
    with pytest.raises(ResourceError, match="Permission denied"):
        Run(tmp_path / "a", Config(), loop(calls), quiet).execute()


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
    rankers = [entry.load().Settings for entry in entry_points(group=GROUP)]
    keys = set(setting_keys()) | {f"ranking.{name}" for settings in rankers for name in settings.model_fields}
    for path in sorted(Path(taiji.__file__).parent.rglob("*.py")):
        for where, text in re.findall(r"\b(where|fix)=f?\"([^\"]*)\"", path.read_text()):
            for key in re.findall(r"(?<![\w./{-])([a-z_]+(?:\.[a-z_]+)+)", text):
                if key.split(".")[0] in sections and key.rsplit(".", 1)[1] not in ("json", "parquet", "html", "md"):
                    assert any(known == key or known.startswith(f"{key}.") for known in keys), (path.name, where, key)

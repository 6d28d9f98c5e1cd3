"""The real command, from a log to a report: finished, repeated, killed in every stage, and given a full disk."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from markupsafe import escape

from taiji.core.artifacts import file_hash, read_json
from taiji.pipeline.recipes import STAGE_NAMES

TIMED = {"report/metrics.json", "report/report.html"}
"""Hold the seconds each stage took, which no two runs share."""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "taiji.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def taiji(*arguments: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=environment(), **options
    )


def artefacts(folder: Path) -> dict[str, str]:
    files = [
        f
        for stage in STAGE_NAMES
        for f in sorted((folder / stage).rglob("*"))
        if f.is_file() and f.name != "manifest.json"
    ]
    return {name: file_hash(f) for f in files if (name := f.relative_to(folder).as_posix()) not in TIMED}


@pytest.fixture(scope="module")
def undisturbed(small_config, tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    done = taiji("run", small_config, "--name", "whole", "--runs", runs)
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    return runs / "whole"


def test_the_inspector_shows_every_user_of_a_real_run(undisturbed):
    from taiji.inspector.pages import Inspector, address

    inspector = Inspector(undisturbed, undisturbed)
    users = inspector.runs[0].dataset.users["user_id"]
    for path in ("/", "/users", "/alignment", "/compare", "/report", *map(address, users)):
        assert inspector.page(path, "").status == 200, path
    assert b"Rollout 1" in inspector.page("/alignment", "step=2").body
    assert set(inspector.runs[0].kept_lines.values()) == {4}, "the stages note how many interactions each prompt held"


def test_every_stage_leaves_artefacts_and_the_figures_have_the_promised_keys(undisturbed):
    assert {path.split("/")[0] for path in artefacts(undisturbed)} >= set(STAGE_NAMES) - {"report"}
    metrics = read_json(undisturbed / "metrics.json")
    assert {"split", "rationales", "llm", "alignment", "ranking", "seconds"} <= set(metrics)
    assert {"fingerprint", "dates", "rows"} <= set(metrics["split"])
    assert set(metrics["features"]) == {"history_mean", "taiji"} and 0 < metrics["features"]["taiji"]["coverage"] <= 1
    assert {"written", "kept", "threshold"} <= set(metrics["rationales"])
    assert {row["model"] for row in metrics["llm"] if row["kind"] == "model"} == {"base", "sft", "aligned"}
    assert {row["features"] for row in metrics["ranking"]} == {"none", "history_mean", "taiji"}
    assert all({"value", "low", "high"} <= set(row) for row in metrics["llm"] + metrics["ranking"])
    assert metrics["alignment"]["rule"] == "popo"
    assert len(metrics["alignment"]["steps"]) == 3
    assert set(metrics["seconds"]) == set(STAGE_NAMES) - {"report"}
    page = (undisturbed / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "the page stands on its own"


def test_the_audit_is_in_the_report_and_can_be_enlarged(undisturbed, tmp_path):
    run = tmp_path / "runs" / "whole"
    shutil.copytree(undisturbed, run)
    small = read_json(run / "audit.json")
    assert small["controls"]["own"]["n"] == 4
    assert 'id="audit"' in (run / "report.html").read_text()
    assert escape(small["order"]["says"].split(":")[0]) in (run / "report.html").read_text()
    kept = artefacts(run)
    done = taiji("audit", run, "--set", "reasoning.audit.controls=6", "--json", tmp_path / "copy.json", "--quiet")
    assert done.returncode == 0, done.stderr
    large = read_json(run / "audit.json")
    assert large["controls"]["own"]["n"] == 6
    assert read_json(tmp_path / "copy.json") == large
    assert read_json(run / "metrics.json")["audit"]["controls"] == large["controls"]
    assert {name for name, content in artefacts(run).items() if kept[name] != content} == {"audit/audit.json"}
    again = taiji("run", "--name", "whole", "--runs", run.parent, "--resume")
    assert again.stderr.count("unchanged, skipped") == len(STAGE_NAMES)


def test_a_person_reviews_a_run_through_files(undisturbed, tmp_path):
    run = tmp_path / "whole"
    shutil.copytree(undisturbed, run)
    first = taiji("review", run, "--as", "ada", "--files", "--count", "3", "--beside", "rules")
    assert first.returncode == 0, first.stderr
    sheets = [json.loads(line) for line in (run / "review" / "ada.todo.jsonl").read_text().splitlines()]
    assert len(sheets) == 3
    assert all("Item title" in sheet["answer"] and sheet["context"] for sheet in sheets)
    lines = [json.dumps({**sheet, "scores": dict.fromkeys(sheet["scores"], 5)}) + "\n" for sheet in sheets[:2]]
    (run / "review" / "ada.done.jsonl").write_text("".join(lines))
    second = taiji("review", run, "--as", "ada", "--files", "--count", "3", "--beside", "rules")
    assert second.returncode == 0, second.stderr
    assert len((run / "review" / "ada.todo.jsonl").read_text().splitlines()) == 1
    assert "1 waiting for ada" in second.stdout
    refused = taiji("review", run, "--as", "rules", "--files")
    assert refused.returncode == 2
    assert "give your own name" in refused.stderr


def test_a_finished_run_tells_what_a_larger_one_will_cost(undisturbed, small_config):
    said = taiji(
        "plan",
        small_config,
        "--users",
        4000,
        "--measured",
        undisturbed,
        "--set",
        "size.test_prompts=600",
        "--json",
        "-",
    )
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    metrics = read_json(undisturbed / "metrics.json")
    assert {cost["stage"] for cost in found["stages"]} == set(STAGE_NAMES)
    seconds = {cost["stage"]: cost["seconds"] for cost in found["stages"]}
    assert seconds["answers"] > 50 * metrics["seconds"]["answers"] and seconds["sft"] == pytest.approx(
        metrics["seconds"]["sft"], rel=0.01
    )
    assert any("events per user" in line for line in found["assumptions"]) and found["gigabytes"] > 0
    unfinished = taiji("plan", small_config, "--measured", undisturbed.parent / "nothing")
    assert unfinished.returncode == 2 and "not finished" in unfinished.stderr


def test_again_does_nothing_and_a_used_name_is_refused(undisturbed, small_config):
    before = artefacts(undisturbed)
    again = taiji("run", "--name", "whole", "--runs", undisturbed.parent, "--resume")
    assert again.returncode == 0
    assert again.stderr.count("unchanged, skipped") == len(STAGE_NAMES)
    assert artefacts(undisturbed) == before
    refused = taiji("run", small_config, "--name", "whole", "--runs", undisturbed.parent)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr


def test_more_feature_users_cost_no_training_again(undisturbed, tmp_path):
    run = shutil.copytree(undisturbed, tmp_path / "more", symlinks=True)
    done = taiji(
        "run", run / "config.json", "--set", "size.feature_users=14", "--name", "more", "--runs", tmp_path, "--resume"
    )
    assert done.returncode == 0, done.stderr
    made = [
        line.split("] ")[1].split(":")[0]
        for line in done.stderr.splitlines()
        if line.startswith("[") and line.split(": ")[1].startswith("done")
    ]
    assert made == ["features", "ranking", "report"]


def test_killed_in_every_stage_it_goes_on_and_ends_in_the_same_bytes(undisturbed, small_config, tmp_path):
    folder = tmp_path / "killed"
    for stage in STAGE_NAMES:
        for delay in (0.05, 0.01, 0, 0, 0):
            shutil.rmtree(folder / stage, ignore_errors=True)  # it was done before the kill came: once more, sooner
            process = subprocess.Popen(
                command("run", small_config, "--name", "killed", "--runs", tmp_path, "--resume"),
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while process.poll() is None and not (folder / ".work" / stage / "fingerprint.json").exists():
                time.sleep(0.001)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if not (folder / stage / "manifest.json").exists():
                break
        assert (folder / ".work" / stage).exists() and not (folder / stage / "manifest.json").exists(), (
            f"{stage} was not killed under way"
        )
    finished = taiji("run", small_config, "--name", "killed", "--runs", tmp_path, "--resume")
    assert finished.returncode == 0, finished.stderr
    assert artefacts(folder) == artefacts(undisturbed)


def test_a_full_disk_ends_in_one_message_and_earlier_artefacts_stay_whole(undisturbed, small_config, tmp_path):
    """A limit on the size of files stands in for the full disk: the kernel refuses the write in the same place."""
    assert taiji("data", small_config, "--name", "full", "--runs", tmp_path).returncode == 0
    before = file_hash(tmp_path / "full" / "data")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    failed = taiji("run", small_config, "--name", "full", "--runs", tmp_path, "--resume", preexec_fn=limit)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert "--resume" in failed.stderr
    assert file_hash(tmp_path / "full" / "data") == before
    assert taiji("examples", small_config, "--name", "full", "--runs", tmp_path).returncode == 0


def test_ctrl_c_ends_in_one_line_and_the_run_goes_on(small_config, tmp_path):
    process = subprocess.Popen(
        command("run", small_config, "--name", "stopped", "--runs", tmp_path),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (tmp_path / "stopped" / ".work" / "reward" / "fingerprint.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].endswith(f"Continue with: taiji run --name stopped --runs {tmp_path} --resume")
    done = taiji("examples", "--name", "stopped", "--runs", tmp_path)
    assert done.returncode == 0 and "unchanged, skipped" in done.stderr

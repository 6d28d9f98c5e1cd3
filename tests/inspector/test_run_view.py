"""Artefacts are read when asked for; a run under way shows what it has; a broken file is named."""

from __future__ import annotations

import os
import shutil

import pytest

from taiji.core.errors import ArtifactError, TaijiError
from taiji.inspector.run_view import RunFiles, run_state
from taiji.pipeline.recipes import STAGE_NAMES


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(TaijiError, match="not a run directory"):
        RunFiles(tmp_path)


def test_a_run_that_has_only_begun_has_nothing_but_says_so(run_folder, tmp_path):
    shutil.copy(run_folder / "config.json", tmp_path)
    run = RunFiles(tmp_path)
    assert [stage.seconds for stage in run.stages] == [None] * len(STAGE_NAMES)
    assert run.dataset is None and run.metrics is None and run.split is None
    run.warm()
    assert run.verdicts.of("anything") == [] and run.completions.of(3) == []


def test_everything_of_a_finished_run_is_there(run_folder):
    run = RunFiles(run_folder)
    run.warm()
    assert all(stage.seconds is not None for stage in run.stages)
    for user in (0, 17, 59):
        assert [row["user"] for row in run.completions.of(user)] == [user, user]
        assert all(row["user"] == user for row in run.judged.of(user))
        times = run.events.part(user)["time"]
        assert times.is_sorted() and len(times) == 30
    assert set(run.judged.frame.columns) >= {"click none", "click taiji", "ctcvr history_mean"}
    assert set(run.kept_lines.values()) == {3, 4}
    with pytest.raises(KeyError):
        run.answers("../../config")


def test_a_stage_that_finishes_changes_the_state(run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    before = run_state(folder)
    assert before == run_state(folder)
    os.utime(folder / "answers" / "manifest.json", ns=(1, 1))
    assert run_state(folder) != before


def test_a_broken_artefact_is_named_with_what_to_do(run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    verdicts = folder / "selection" / "verdicts.parquet"
    whole = verdicts.read_bytes()
    again = rf"verdicts\.parquet[\s\S]*recompute damaged and missing parts with taiji run --name run --runs {tmp_path} --resume"
    for broken in (b"PAR1 no more", whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], None):
        verdicts.unlink(missing_ok=True)
        if broken is not None:
            verdicts.write_bytes(broken)
        with pytest.raises(ArtifactError, match=again):
            _ = RunFiles(folder).verdicts


@pytest.mark.parametrize(
    ("file", "asked"),
    [
        ("data/dataset/events.parquet", "dataset"),
        ("examples/split.json", "split"),
        ("features/taiji.parquet", "completions"),
        ("ranking/predictions-taiji.parquet", "judged"),
        ("metrics.json", "metrics"),
        ("answers/manifest.json", "stages"),
        ("answers/aligned.parquet", "kept_lines"),
    ],
)
def test_a_changed_byte_is_never_shown_as_if_it_were_true(run_folder, tmp_path, file, asked):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)
    run = RunFiles(folder)
    with pytest.raises(ArtifactError, match="what to do"):
        getattr(run, asked)


def test_a_file_that_somebody_put_beside_the_predictions_is_no_arm(run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    shutil.copy(folder / "ranking/predictions-taiji.parquet", folder / "ranking/predictions-taiji (copy).parquet")
    assert not [name for name in RunFiles(folder).judged.frame.columns if "copy" in name]


def test_many_readers_load_each_artefact_once_and_only_wait_for_their_own(run_folder):
    import threading

    run, entered, leave, loads = RunFiles(run_folder), threading.Event(), threading.Event(), []

    def slow():
        loads.append("slow")
        entered.set()
        assert leave.wait(30)
        return "slow"

    readers = [threading.Thread(target=run._once, args=("slow", slow)) for _ in range(4)]
    for reader in readers:
        reader.start()
    assert entered.wait(30)
    assert run.metrics is not None, "another artefact is not held up"
    leave.set()
    for reader in readers:
        reader.join(30)
    assert loads == ["slow"]

"""The statistics of a run's log are made once, by a process that ends, and read from disk."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.data.test_stored import log

from taiji.core.errors import ResourceError
from taiji.data.event_counts import LogCounts
from taiji.data.statistics import NAMES, OWN, Statistics, statistics_of
from taiji.data.stored import open_dataset
from taiji.data.stored_counts import StoredCounts
from taiji.serving import run_statistics as module
from taiji.serving.run_statistics import FOLDER, main, run_statistics


@pytest.fixture
def run(tmp_path: Path) -> Path:
    log(3, 2000).save(tmp_path / "run" / "data" / "dataset")
    return tmp_path / "run"


def same(found: Statistics) -> None:
    random, dataset = np.random.default_rng(0), log(3, 2000)
    asked = random.integers(0, 30, 200), random.integers(0, 20, 200), random.integers(0, 240, 200)
    ours, theirs = found.at(*asked), statistics_of(dataset).at(*asked)
    for name in set(NAMES) - set(OWN):
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_they_are_made_by_a_process_of_their_own_and_then_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(run / "data" / "dataset")
    found = run_statistics(run, dataset)
    assert isinstance(found.counts, StoredCounts) and "events" not in vars(dataset)
    same(found)
    monkeypatch.setattr(module.subprocess, "run", lambda *rest, **options: pytest.fail("they are made again"))
    same(run_statistics(run, dataset))


def test_a_run_directory_that_takes_no_files_has_them_in_memory(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "serving").write_text("not a folder")
    found = run_statistics(run, open_dataset(run / "data" / "dataset"))
    assert isinstance(found.counts, LogCounts)
    same(found)


def test_a_process_that_cannot_make_them_is_an_error(run: Path) -> None:
    dataset = open_dataset(run / "data" / "dataset")
    (run / "data" / "dataset" / "events.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResourceError, match="could not be computed"):
        run_statistics(run, dataset)
    assert not (run / "serving" / FOLDER).exists()


def test_processes_that_start_together_make_them_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, store = [], module.store_counts
    monkeypatch.setattr(module, "store_counts", lambda *rest: (made.append(1), store(*rest)))
    threads = [threading.Thread(target=main, args=(run,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    same(run_statistics(run, open_dataset(run / "data" / "dataset")))


def test_they_are_made_again_for_another_log(run: Path) -> None:
    main(run)
    other = log(4, 1000)
    shutil.rmtree(run / "data")
    other.save(run / "data" / "dataset")
    found = run_statistics(run, open_dataset(run / "data" / "dataset"))
    assert found.counts.count("everything", "shown").index.offsets[-1] == other.events["exposed"].sum()

"""A release is served when it is prepared; a run that was moved is found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from taiji.core.errors import ArtifactError, ResourceError
from taiji.serving import releases, roll_out
from taiji.serving.clock import wall_us
from taiji.serving.releases import introduce, located, unprepared
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.stores import open_store
from taiji.serving.types import Event, EventBatch

SETTINGS = ServingSettings.model_validate(
    {"backend": "tests.serving.doubles", "worker": {"batch": 1}, "trigger": {"window_s": 0.0}}
)


def make_run(folder: Path, version: str) -> Path:
    folder.mkdir()
    (folder / "version").write_text(version)
    (folder / "users").write_text("u1")
    return folder


def test_a_release_lacks_models_then_features_then_nothing(make_store: Callable[..., Store], tmp_path: Path) -> None:
    store, now = make_store(trigger={"window_s": 0.0}), wall_us()
    introduce(store, make_run(tmp_path / "old", "echo-1"), SETTINGS)
    name = introduce(store, make_run(tmp_path / "new", "echo-2"), SETTINGS).name
    store.beat("one", {"kind": "api", "loaded": ["old-echo-1", name], "failed": {}}, now)
    store.beat("two", {"kind": "api", "loaded": ["old-echo-1"], "failed": {}}, now)
    assert "being loaded" in unprepared(store, name, SETTINGS, now)
    store.beat("two", {"kind": "api", "loaded": ["old-echo-1"], "failed": {name: "a damaged file"}}, now)
    assert "a damaged file" in unprepared(store, name, SETTINGS, now)
    store.beat("two", {"kind": "api", "loaded": [name], "failed": {}}, now)
    assert unprepared(store, name, SETTINGS, now) == ""
    store.append([EventBatch("k", "d", tuple(Event(f"e{user}", user, "i", 5) for user in ("u1", "u2")))], now)
    store.absorb("w", 10, now)
    assert "2 users" in unprepared(store, name, SETTINGS, now)
    assert unprepared(store, name, SETTINGS.model_copy(update={"workers": 0}), now) == ""
    store.claim(name, "w", 2, now, 10**6)
    assert "2 users" in unprepared(store, name, SETTINGS, now)
    assert unprepared(store, "none", SETTINGS, now) == "It is not live."


def test_a_roll_out_waits_until_it_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "POLL_S", 0.01)
    old, new = make_run(tmp_path / "old", "echo-1"), make_run(tmp_path / "new", "echo-2")
    store = open_store(SETTINGS, old)
    introduce(store, old, SETTINGS)
    store.beat("api", {"kind": "api", "loaded": ["old-echo-1"], "failed": {}}, wall_us())
    with pytest.raises(ResourceError, match="the previous release is still being served"):
        roll_out(new, SETTINGS, beside=old, patience_s=0.05)
    assert store.releases().active == "old-echo-1" and "new-echo-2" in store.releases().live
    done: list[str] = []
    waiting = threading.Thread(target=lambda: done.append(roll_out(new, SETTINGS, beside=old).name))
    waiting.start()
    time.sleep(0.1)
    assert not done and store.releases().active == "old-echo-1"
    store.beat("api", {"kind": "api", "loaded": ["old-echo-1", "new-echo-2"], "failed": {}}, wall_us())
    waiting.join(10)
    assert done == ["new-echo-2"] and store.releases().active == "new-echo-2"
    store.close()


def test_runs_that_were_moved_are_found_or_told(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    old, new = make_run(tmp_path / "runs" / "old", "echo-1"), make_run(tmp_path / "runs" / "new", "echo-2")
    store = open_store(SETTINGS, old)
    introduce(store, old, SETTINGS)
    introduce(store, new, SETTINGS)
    store.close()
    moved = (tmp_path / "runs").rename(tmp_path / "elsewhere")
    store = open_store(SETTINGS, moved / "old")
    introduce(store, moved / "old", SETTINGS)  # as a start of the service does
    live = store.releases().live
    assert live["old-echo-1"].run == str(moved / "old") and live["new-echo-2"].run == str(new)
    assert located(Path(live["new-echo-2"].run), moved / "old") == moved / "new"
    (tmp_path / "far").mkdir()
    (moved / "new").rename(tmp_path / "far" / "new")
    with pytest.raises(ArtifactError, match="was moved or deleted"):
        located(new, moved / "old")
    introduce(store, tmp_path / "far" / "new", SETTINGS)
    assert store.releases().live["new-echo-2"].run == str(tmp_path / "far" / "new") and len(store.read(["u1"])) == 1
    store.close()

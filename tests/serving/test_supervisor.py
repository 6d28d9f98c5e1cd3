"""The whole service in its own processes: started, killed, rolled out, rolled back, stopped."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.serving.rig import Service

from taiji.core.errors import TaijiError
from taiji.serving import repair_clock, roll_back, roll_out, serve
from taiji.serving.clock import wall_us
from taiji.serving.keys import new_key
from taiji.serving.releases import WATCH_S, backend, introduce
from taiji.serving.settings import ServingSettings
from taiji.serving.stores import open_store
from taiji.serving.supervisor import THREADS, Child, Supervisor, demand_keys, demand_sound_clock


def make_run(folder: Path, name: str, version: str) -> Path:
    run = folder / name
    run.mkdir(parents=True)
    (run / "version").write_text(version)
    (run / "users").write_text("u1 u2")
    return run


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_binding_beyond_loopback_without_a_key_is_refused(host: str, tmp_path: Path) -> None:
    settings = ServingSettings(host=host, backend="tests.serving.doubles")
    with pytest.raises(TaijiError, match="only listen on this machine"):
        serve(make_run(tmp_path, "run", "v"), settings)
    new_key(tmp_path / "keys", "a", ["read"])
    demand_keys(settings.model_copy(update={"keys": tmp_path / "keys"}))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    demand_keys(ServingSettings(host=host))


def test_what_cannot_be_served_is_explained(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", "v")
    with pytest.raises(TaijiError, match="no such run"):
        serve(tmp_path / "none")
    with pytest.raises(TaijiError, match="import"):
        backend(ServingSettings(backend="no.such.module"))
    with pytest.raises(TaijiError, match="incomplete"):
        backend(ServingSettings(backend="json"))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(TaijiError, match="Could not listen"):
        serve(run, ServingSettings(port=taken.getsockname()[1], backend="tests.serving.doubles"))


def test_releases_from_the_command_line(tmp_path: Path) -> None:
    old, new = make_run(tmp_path, "old", "echo-1"), make_run(tmp_path, "new", "echo-2")
    settings = ServingSettings(backend="tests.serving.doubles")
    store = open_store(settings, old)
    introduce(store, old, settings)
    with pytest.raises(TaijiError, match="no previous release"):
        roll_back(settings, old)
    assert roll_out(new, settings, beside=old).name == "new-echo-2"
    assert store.releases().active == "new-echo-2"
    assert roll_back(settings, old) == "old-echo-1"
    roll_out(new, settings, beside=old, activate=False)
    assert store.releases().active == "old-echo-1" and len(store.read(["u1"])) == 1
    store.close()


def test_a_store_of_a_year_ahead_is_told_and_repaired(tmp_path: Path) -> None:
    run, settings = make_run(tmp_path, "run", "v"), ServingSettings(backend="tests.serving.doubles")
    store = open_store(settings, run)
    introduce(store, run, settings)
    store.claim("run-v", "w", 1, wall_us() + 365 * 86_400 * 10**6, 10**6)
    with pytest.raises(TaijiError, match="taiji repair-clock"):
        serve(run, settings)
    ahead = store.clock_floor() + 10**6

    def beats(seconds: float) -> None:
        store.beat("api", {"kind": "api"}, ahead + len(told))
        told.append(seconds)

    told: list[float] = []
    beats(0)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TaijiError, match="is using the store"):
        patch.setattr("taiji.serving.releases.time.sleep", beats)  # it lives meanwhile
        repair_clock(settings, run)
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # a last sign of life that is as far ahead as the mark, from whoever is gone
        patch.setattr("taiji.serving.releases.time.sleep", told.append)
        assert repair_clock(settings, run) > 0
    assert told[1:] == [WATCH_S, WATCH_S]
    demand_sound_clock(store, "here")
    store.close()


def api_child(folder: Path, **environment: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment with which a supervisor starts an HTTP process."""
    started: list[tuple[list[str], dict[str, str]]] = []

    class Started:
        returncode, pid = None, 0

        def __init__(self, command: list[str], env: dict[str, str], **options: object) -> None:
            started.append((command, env))

        def poll(self) -> None:
            return None

    settings = ServingSettings(backend="tests.serving.doubles")
    store = open_store(settings, folder)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        patch.setattr("taiji.serving.supervisor.subprocess.Popen", Started)
        for name in THREADS:
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        Supervisor(store, folder, settings, listener).tend()
    store.close()
    (only,) = started
    return only


def test_the_others_are_watched_while_a_process_ends(tmp_path: Path) -> None:
    """A worker of a retired release may take its time; a dead HTTP process must not wait for that."""
    settings = ServingSettings(backend="tests.serving.doubles")
    store = open_store(settings, tmp_path)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    slow = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert slow.stdout is not None and slow.stdout.readline()
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        supervisor = Supervisor(store, tmp_path, settings, listener)
        supervisor.children["worker-old-0"] = Child(["worker"], slow)
        patch.setattr("taiji.serving.supervisor.subprocess.Popen", lambda *_, **__: pytest.fail("started too early"))
        patch.setattr(supervisor, "_wanted", lambda: {})
        start = time.monotonic()
        supervisor.tend()
        assert time.monotonic() - start < 2 and slow.poll() is None, "told to end, and not waited for"
        patch.setattr(supervisor, "_wanted", lambda: {"worker-old-0": ["worker"]})
        supervisor.tend()  # one of the same name waits until it has ended
        supervisor._ending["worker-old-0"] = slow, time.monotonic()
        patch.setattr(supervisor, "_wanted", lambda: {})
        supervisor.tend()
        assert slow.poll() is not None and not supervisor._ending
    slow.stdout.close()
    store.close()


def test_http_processes_have_a_thread_each_unless_the_environment_says_otherwise(tmp_path: Path) -> None:
    assert api_child(tmp_path)[1].items() >= THREADS.items()
    chosen = api_child(tmp_path, OMP_NUM_THREADS="3")[1]
    assert (chosen["OMP_NUM_THREADS"], chosen["POLARS_MAX_THREADS"]) == ("3", "1")


def test_children_import_nothing_from_where_the_service_was_started(tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise SystemExit(99)")
    (tmp_path / "json.py").write_text("raise SystemExit(99)")
    command, _ = api_child(tmp_path)
    code = [*command[: command.index("-m")], "-c", "import json, sys; print('' in sys.path, json.__file__)"]
    done = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("False") and str(tmp_path) not in done.stdout


def test_a_life_of_the_service(tmp_path: Path) -> None:
    run, new = make_run(tmp_path, "old", "echo-1"), make_run(tmp_path, "new", "echo-2")
    settings = ServingSettings.model_validate(
        {
            "port": 0,
            "health_port": 0,
            "backend": "tests.serving.doubles",
            "api_processes": 2,
            "trigger": {"window_s": 0.0},
            "worker": {"grace_s": 2.0},
        }
    )
    service = Service(run, settings)
    service.start()
    try:
        client = httpx.Client(base_url=service.url, timeout=10)

        def get(user: str = "u1") -> dict[str, object]:
            return client.get(f"/v1/features/{user}").json()

        assert get()["release"] == "old-echo-1" and get()["events_seen"] == 0
        event = {"user_id": "u1", "item_id": "i", "timestamp": "2026-01-31T12:00:00Z"}
        assert client.post("/v1/events", json={"events": [event]}, headers={"Idempotency-Key": "a"}).status_code == 202
        until(lambda: get()["events_seen"] == 1)

        roll_out(new, settings, beside=run)
        assert get()["release"] == "new-echo-2"
        until(lambda: len(service.children("worker")) == 2)  # the old one's goes on
        until(lambda: get()["events_seen"] == 1)  # and the new one has caught up with what came before it
        assert roll_back(settings, run) == "old-echo-1" and get()["model_version"] == "echo-1"

        def asked() -> float:
            """Requests for features that all processes answered, whichever is asked."""
            name = 'taiji_requests_total{route="/v1/features/{user:path}",status="200"} '
            lines = httpx.get(f"{service.url}/metrics").text.splitlines()
            return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

        before = asked()
        for _ in range(20):
            assert httpx.get(f"{service.url}/v1/features/u1").status_code == 200  # a connection each, of either process
        assert {asked() for _ in range(4)} == {before + 20}

        assert (
            httpx.get(service.health).json() == {"status": "ok"} and httpx.get(service.health[:-1]).status_code == 404
        )
        service.kill("api")  # the listening sockets outlive it: the next request waits, and is answered
        assert httpx.get(service.health, timeout=30).status_code == 200
        assert httpx.get(f"{service.url}/healthz", timeout=30).status_code == 200
        service.kill("worker")
        client = httpx.Client(base_url=service.url, timeout=30)
        client.post("/v1/events", json={"events": [event]}, headers={"Idempotency-Key": "b"})
        until(lambda: get()["events_seen"] == 2)
        client.post("/v1/admin/releases:retire", json={"release": "new-echo-2"})
        until(lambda: len(service.children("worker")) == 1)
    finally:
        code = service.stop()
    assert code == 0
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    assert {"worker started", "process exited", "worker stopped"} <= {line["event"] for line in lines}

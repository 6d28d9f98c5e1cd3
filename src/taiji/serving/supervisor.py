"""Supervisor of a service, which binds the socket, starts the processes, and restarts failed processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from taiji.core.errors import ArtifactError, ConfigError, ResourceError
from taiji.core.optional import require
from taiji.serving.cache_policies import make_policy
from taiji.serving.child import CLOCK, GENERATION, HEALTH, RUN, SETTINGS, SOCKET
from taiji.serving.clock import SteadyClock, wall_us
from taiji.serving.keys import load_keys
from taiji.serving.logs import log, logger
from taiji.serving.releases import introduce
from taiji.serving.settings import ServingSettings, loopback
from taiji.serving.slots import Slot
from taiji.serving.store import Store, StoreUnavailable, why
from taiji.serving.stores import demand_same_store, open_store, place_of
from taiji.serving.worker import HUNG

METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client for the folder in which processes share their metrics."""
POLL_S = 0.2
ENDING_POLL_S = 0.02
RELEASES_EVERY_S = 2.0
MAX_WAIT_S = 5.0
MAX_WAIT_KILLED_S = 0.5
LONG_LIFE_S = 10.0
MAX_LEAD_S = 86_400.0
"""Largest accepted lead of the store's high-water mark over this machine's clock, in seconds; a small lead is normal
after the clock was set back.
"""
THREADS = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
"""Environment variables of an HTTP process, unless already set: PyTorch and polars use one thread each. A request is
too little work to split; ``api_processes`` makes use of more cores."""


@dataclass
class Child:
    """Slot for a process: command, running process, time of its last start or end, and seconds to wait before a
    restart."""

    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    wait: float = 0.0


class Supervisor:
    """Supervisor that keeps the required processes running.

    Args:
        store: store with the live releases; each live release gets its own workers.
        run: run directory with which the service was started.
        settings: settings, passed to the children.
        listener: bound and listening socket, shared by the API processes, so that no connection is rejected during a
            restart.
        health: bound and listening socket for probes; None if probes use ``listener``.
        suffix: suffix of the workers' names, unique per service on this host and store.
    """

    def __init__(
        self,
        store: Store,
        run: Path,
        settings: ServingSettings,
        listener: socket.socket,
        suffix: str = "",
        health: socket.socket | None = None,
    ) -> None:
        self._store, self._settings, self._suffix = store, settings, suffix
        self._listeners = [listener] if health is None else [listener, health]
        self._metrics = tempfile.TemporaryDirectory(prefix="taiji-metrics-")
        self._environment = {
            **os.environ,
            SETTINGS: settings.model_dump_json(),
            RUN: str(run),
            SOCKET: str(listener.fileno()),
            METRICS: self._metrics.name,
            GENERATION: store.generation,
            **({HEALTH: str(health.fileno())} if health is not None else {}),
        }
        self._clock = SteadyClock(store.clock_floor())
        self.children: dict[str, Child] = {}
        self._ending: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        """Terminated processes that may still finish their work, with the time at which they are killed."""
        self._releases: list[str] = []
        self._asked = -RELEASES_EVERY_S
        self.stopping = threading.Event()

    def run(self) -> None:
        """Run until :attr:`stopping` is set, then terminate all processes and wait for them."""
        while not self.stopping.is_set():
            self.tend()
            self.stopping.wait(POLL_S)
        self._end(list(self.children))
        while self._ending:
            time.sleep(ENDING_POLL_S)
            self._reap()
        self._metrics.cleanup()

    def tend(self) -> None:
        """Start missing processes, and stop those that are no longer required."""
        wanted = self._wanted()
        self._end([name for name in self.children if name not in wanted])
        self._reap()
        for name, command in wanted.items():
            if name in self._ending:  # the earlier process of this name must end first
                continue
            child = self.children.setdefault(name, Child(command))
            if child.process is not None and child.process.poll() is not None:
                lived = time.monotonic() - child.started
                killed = (
                    child.process.returncode < 0 or child.process.returncode == HUNG
                )  # killed or hung: a restart may well succeed
                child.wait = (
                    0.0
                    if lived > LONG_LIFE_S
                    else min(MAX_WAIT_KILLED_S if killed else MAX_WAIT_S, 2 * child.wait + 0.1)
                )
                forget_process(self._metrics.name, child.process.pid)
                log("process exited", process=name, code=child.process.returncode, lived=round(lived, 1))
                child.process, child.started = None, time.monotonic()
            if child.process is None and time.monotonic() >= child.started + child.wait:
                child.process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "taiji.serving.child",
                        *command,
                    ],  # -P: do not import from the current directory
                    env=(THREADS if command == ["api"] else {}) | self._environment | {CLOCK: str(self._clock())},
                    pass_fds=[listener.fileno() for listener in self._listeners],
                )
                child.started = time.monotonic()

    def _wanted(self) -> Mapping[str, list[str]]:
        if time.monotonic() - self._asked >= RELEASES_EVERY_S:
            self._asked = time.monotonic()
            try:
                self._releases = sorted(self._store.releases().live)
            except StoreUnavailable as error:
                log("store unavailable", process="supervisor", error=why(error))
        wanted = {f"api-{number}": ["api"] for number in range(self._settings.api_processes)}
        for release in self._releases:
            for number in range(self._settings.workers):
                name = f"{socket.gethostname()}{self._suffix}-{release}-{number}"
                wanted[f"worker-{release}-{number}"] = ["worker", release, name]
        return wanted

    def _end(self, names: list[str]) -> None:
        """Terminate processes without waiting for their end, because the other processes must be watched meanwhile."""
        deadline = time.monotonic() + self._settings.worker.grace_s + self._settings.drain_s + 5
        for name in names:
            process = self.children.pop(name).process
            if process is not None:
                process.terminate()
                self._ending[name] = process, deadline

    def _reap(self) -> None:
        """Forget terminated processes that have ended, and kill those that take too long."""
        for name, (process, deadline) in list(self._ending.items()):
            if process.poll() is None and time.monotonic() > deadline:
                process.kill()
                process.wait()
            if process.poll() is not None:
                forget_process(self._metrics.name, process.pid)
                del self._ending[name]


def serve(
    run: str | Path, settings: ServingSettings | None = None, *, started: Callable[[str], object] = logger.info
) -> None:
    """Serve a finished run until SIGTERM or Ctrl-C.

    Args:
        run: run directory of ``taiji run`` whose stages alignment, evaluation_ranker, features and ranking are
            finished, or of ``taiji recommend``.
        settings: settings of the service.
        started: callback that gets one line with the address once the service listens, before the processes are
            started.

    Raises:
        ArtifactError: the run is not finished.
        ConfigError: there are no API keys although the address is not loopback, or the cache policy cannot be created.
        ResourceError: the extra ``serve`` is not installed, the store cannot be used, or the address is taken.
    """
    settings, run = settings or ServingSettings(), Path(run).resolve()
    require("serve", "fastapi", "uvicorn", "prometheus_client")  # checked here: children could not show the error
    if not run.is_dir():
        raise ArtifactError("There is no such run directory.", where=str(run), fix="create one with taiji run")
    demand_keys(settings)
    make_policy(settings.recommend.policy, settings.recommend.policy_settings)  # check only: each child creates its own
    store = open_store(settings, run)
    place = place_of(settings, run)
    demand_same_store(run / "serving" / "store.json", place, store.generation)
    demand_sound_clock(store, place)
    slot = Slot(store.generation)  # by generation, because an address can be written in several ways
    introduce(store, run, settings)
    listener = _listen(settings.host, settings.port, "serving.port")
    port = settings.health_port
    health = None if port is None else _listen(settings.host, port, "serving.health_port")
    supervisor = Supervisor(store, run, settings, listener, slot.suffix(), health)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stopping.set())
    host = listener.getsockname()[0]
    notes = "documentation at /docs" if health is None else f"documentation at /docs, health on port {port_of(health)}"
    started(f"Serving {run.name} on http://{f'[{host}]' if ':' in host else host}:{port_of(listener)} ({notes})")
    supervisor.run()
    for each in filter(None, (listener, health)):
        each.close()
    store.close()
    slot.close()


def forget_process(folder: str, pid: int) -> None:
    """Remove the gauges of an ended process from the shared metrics; its counters stay."""
    for file in Path(folder).glob(f"gauge_live*_{pid}.db"):
        file.unlink(missing_ok=True)


def demand_sound_clock(store: Store, place: str) -> None:
    """Reject a store that was written with a clock far ahead of this machine's.

    Raises:
        ResourceError: the store's time is far ahead; due work would wait until this machine's clock reaches it.
    """
    lead = (store.clock_floor() - wall_us()) / 1e6
    if lead > MAX_LEAD_S:
        raise ResourceError(
            "The store was written with a clock that is far ahead of this machine's.",
            where=place,
            expected=f"at most {MAX_LEAD_S / 3600:g} hours",
            found=f"{lead / 3600:,.1f} hours",
            fix="set this machine's clock; or, if it is right, stop every service that uses the store and run taiji repair-clock RUN",
        )


def demand_keys(settings: ServingSettings) -> None:
    """Reject addresses other than loopback if there are no API keys."""
    if not len(load_keys(settings.keys)) and not loopback(settings.host):
        raise ConfigError(
            "The service has no API keys, so it can only listen on this machine.",
            where=f"serving.host={settings.host}",
            expected="127.0.0.1, ::1 or localhost, or at least one API key",
            fix="set serving.keys to a file of keys (mode 0600), or the environment variable TAIJI_API_KEYS",
        )


def port_of(listener: socket.socket) -> int:
    """Return the port on which a socket listens."""
    return int(listener.getsockname()[1])


def _listen(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ResourceError(
            "Could not listen on the address.",
            where=f"{host}:{port}",
            found=str(error),
            fix=f"choose another {setting}",
        ) from error
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener

"""One process of the service: ``python -m taiji.serving.child api`` or ``worker RELEASE NAME``.

Settings are passed as JSON in the environment, because every user of the machine can read the arguments of a process.
The listening socket is passed as an inherited file descriptor. A child stops if its supervisor no longer exists.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from taiji.core.errors import TaijiError
from taiji.core.process_memory import give_back_memory
from taiji.serving.clock import SteadyClock
from taiji.serving.logs import libraries_to_standard_error, log, to_standard_error, where
from taiji.serving.releases import backend, located
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.stores import open_store
from taiji.serving.types import Recommender, Scorer

SETTINGS, RUN, SOCKET = "TAIJI_SERVING_SETTINGS", "TAIJI_SERVING_RUN", "TAIJI_SERVING_SOCKET"
HEALTH = "TAIJI_SERVING_HEALTH"
GENERATION, CLOCK = "TAIJI_SERVING_GENERATION", "TAIJI_SERVING_CLOCK"
UNUSABLE = 2
"""Exit code of a process that cannot start because of an error that the user can correct."""


def api(settings: ServingSettings, run: Path) -> None:
    """Answer HTTP on the inherited socket until SIGTERM."""
    import uvicorn

    from taiji.serving.app import build_app
    from taiji.serving.edge import DrainingServer, Edge, allow_files
    from taiji.serving.health_listener import HealthListener
    from taiji.serving.keys import LiveKeyring, load_keys
    from taiji.serving.scorers import Scorers
    from taiji.serving.tracing import traced

    store = open_store(settings, run, generation=os.environ[GENERATION])
    clock = _clock(store)
    name = f"api-{socket.gethostname()}-{os.getpid()}"

    def models(folder: Path) -> Scorer | Recommender:
        made = backend(settings).scorer(located(folder, run), settings)
        give_back_memory()
        return made

    scorers = Scorers(
        store,
        models,
        lambda facts: store.beat(name, facts, clock()),
    )
    keys = LiveKeyring(settings.keys) if settings.keys else load_keys(None)
    app = build_app(store, scorers, settings, keys, clock)
    asgi, provider = traced(app) if settings.traces else (app, None)
    allow_files(settings.limits.connections)
    # uvicorn's limit_concurrency is not used: while silent clients hold the connections, it answers everyone with 503.
    config = uvicorn.Config(
        asgi,
        http=Edge(settings.limits, app.metrics.refuse),  # type: ignore[arg-type]
        ws="none",
        proxy_headers=False,  # the client's address is not used
        h11_max_incomplete_event_size=settings.limits.head_bytes,
        access_log=False,  # the access log would contain user ids
        log_config=None,
        log_level="error",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.worker.grace_s) or 1,
        server_header=False,
        date_header=False,
    )
    health = HealthListener(socket.socket(fileno=int(os.environ[HEALTH]))) if HEALTH in os.environ else None
    if health is not None:
        health.start()
    server = DrainingServer(config, settings.drain_s, app.drain, health.ticked if health else lambda: None)
    # Passed as a socket with its true family: uvicorn's ``fd`` would treat it as a Unix socket and leave Nagle's
    # algorithm on.
    server.run(sockets=[socket.socket(fileno=int(os.environ[SOCKET]))])
    if health is not None:
        health.close()
    if provider is not None:
        provider.shutdown()  # sends the last spans
    store.close()


def worker(settings: ServingSettings, run: Path, release: str, name: str) -> None:
    """Write features of one release until SIGTERM."""
    from taiji.serving.worker import Worker

    store = open_store(settings, run, generation=os.environ[GENERATION])
    found = store.releases().live[release]
    writer = backend(settings).writer(located(Path(found.run), run), settings, store) if found.features else None
    give_back_memory()
    made = Worker(store, writer, found, settings, name, _clock(store))
    signal.signal(signal.SIGTERM, lambda *_: made.stop())
    made.run()


def _clock(store: Store) -> SteadyClock:
    clock = SteadyClock(store.clock_floor(), int(os.environ[CLOCK]))
    if clock.jumped:
        log(
            "clock ignored",
            error="it is far ahead of the supervisor's; if this clock is right, restart the service",
        )
    return clock


def _follow_parent() -> None:
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> int:
    """Run one child, and return its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor forwards Ctrl-C exactly once
    _follow_parent()
    to_standard_error()
    libraries_to_standard_error()
    settings, run = ServingSettings.model_validate_json(os.environ.pop(SETTINGS)), Path(os.environ[RUN])
    try:
        if arguments[0] == "api":
            api(settings, run)
        else:
            worker(settings, run, arguments[1], arguments[2])
    except TaijiError as error:
        log("cannot start", kind=arguments[0], error=error.message)
        return UNUSABLE
    except Exception as error:
        log("crashed", kind=arguments[0], error=where(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

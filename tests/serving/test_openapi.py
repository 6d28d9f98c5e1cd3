"""schemathesis: whatever the OpenAPI page allows or forbids, the service answers as the page says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tests.serving.doubles import ListMaker

from taiji.serving.app import build_app
from taiji.serving.clock import SteadyClock
from taiji.serving.keys import load_keys
from taiji.serving.scorers import Scorers
from taiji.serving.settings import ServingSettings
from taiji.serving.stores import open_store
from taiji.serving.types import FeatureRow, Release

SECRET = "a" * 24
USERS = ["0", "1", "u1"]


def make_app(folder: Path) -> object:
    store = open_store(ServingSettings(store=f"sqlite:{folder / 'store.sqlite3'}"))
    for name in ("r1", "r2"):
        store.add_release(Release(name, "/run", name, name), 1)
    store.publish("r1", [FeatureRow(user, 5, (1,), None, (), "r1", "r1", 5, 0) for user in USERS], 10)
    scorers = Scorers(store, lambda run: ListMaker())
    scorers.refresh()
    return build_app(
        store, scorers, ServingSettings(), load_keys(None, {"TAIJI_API_KEYS": f"boss:admin:{SECRET}"}), SteadyClock()
    )


OPERATIONS = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("POST", "/v1/events"),
    ("GET", "/v1/features/{user}"),
    ("POST", "/v1/features:batch"),
    ("POST", "/v1/rank"),
    ("POST", "/v1/recommend"),
    ("DELETE", "/v1/users/{user}"),
    ("GET", "/v1/admin/releases"),
    ("POST", "/v1/admin/releases:activate"),
    ("POST", "/v1/admin/releases:retire"),
    ("POST", "/v1/admin/releases:rollback"),
    ("GET", "/v1/admin/dead-letters"),
    ("POST", "/v1/admin/dead-letters:retry"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    """The page of a service on a real socket, so that what the HTTP server itself refuses is in the game."""
    app: Any = make_app(tmp_path_factory.mktemp("contract"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{listener.getsockname()[1]}/openapi.json")
        server.should_exit = True
        thread.join()


def test_every_operation_is_tried(page: schemathesis.BaseSchema) -> None:
    assert {(op.ok().method.upper(), op.ok().path) for op in page.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_documented(
    page: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    """All of schemathesis's checks: no server error, documented status, media type and body, no way around the key,
    …"""

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(page[path][method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        # A schema cannot say that a date must exist and must not lie in the future.
        excluded = [positive_data_acceptance] if path == "/v1/events" else []
        case.call_and_validate(headers={"Authorization": f"Bearer {SECRET}"}, excluded_checks=excluded)

    with suppress(Unsatisfiable):  # an operation without parameters cannot be asked wrongly
        check()

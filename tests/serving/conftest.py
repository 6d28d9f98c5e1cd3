"""Stores of both kinds, and a small world around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.serving.rig import RedisServer

from taiji.serving import logs
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.stores import open_store


@pytest.fixture(autouse=True)
def json_log() -> Iterator[None]:
    """The log on standard error, as the service's own programs have it."""
    before = logs.logger.handlers[:], logs.logger.level, logs.logger.propagate
    logs.to_standard_error()
    yield
    logs.logger.handlers, logs.logger.level, logs.logger.propagate = before


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store's place, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'store.sqlite3'}"
    server: RedisServer = request.getfixturevalue("redis_server")
    import redis

    redis.Redis.from_url(server.url).flushall()
    return server.url


@pytest.fixture
def make_store(store_url: str) -> Iterator[Callable[..., Store]]:
    """Open the store with given settings (sections as keyword arguments); closed at the end."""
    opened: list[Store] = []

    def make(**sections: object) -> Store:
        store = open_store(ServingSettings.model_validate({"store": store_url, **sections}))
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()

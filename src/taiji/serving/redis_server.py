"""Connection to a Redis server, check of its durability settings, and translation of its errors."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taiji.core.errors import ResourceError
from taiji.serving.logs import log
from taiji.serving.settings import PASSWORD
from taiji.serving.store import REPLACED, StoreUnavailable, StoreUnusable

TIMEOUT_S = 5.0
LOSES = "This Redis would lose events."
DURABLE = "appendonly yes, appendfsync everysec or always, maxmemory-policy noeviction"
MAKE_DURABLE = (
    "redis-cli config set appendonly yes; redis-cli config set appendfsync always; "
    "redis-cli config set maxmemory-policy noeviction; and the same in redis.conf"
)
DURABLE_S = 1.0
"""Seconds between two checks of the server's durability settings."""
OTHER_GENERATION = re.compile(r"(^|caused error: )GENERATION ")
"""Matches the error of a script that found a store of another generation; a pipeline puts text before this error."""


def connected(url: str) -> Any:
    """Return a client of the server at ``url``; the password comes from the URL or the environment."""
    password = os.environ.get(PASSWORD)
    # No internal retries: the caller must know that a step may have been executed although its reply was lost.
    return redis.Redis.from_url(
        url,
        **({"password": password} if password else {}),
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


class Durability:
    """Check of the settings without which the server could lose events.

    Args:
        client: client of the server.
    """

    def __init__(self, client: Any) -> None:
        self._redis, self._until = client, 0.0

    def demand(self, place: str) -> None:
        """Check the settings when the store is opened.

        Args:
            place: address of the server without its password, for the error message.

        Raises:
            ResourceError: the server could lose events.
        """
        settings = self._settings()
        if found := _fragile(settings):
            raise ResourceError(LOSES, where=place, expected=DURABLE, found=found, fix=MAKE_DURABLE)
        if settings.get("appendfsync") == "everysec":
            log(
                "redis syncs once a second",
                risk="if Redis is killed while its disk is slow, it loses up to two seconds of acknowledged events",
                fix="redis-cli config set appendfsync always; and the same in redis.conf",
            )

    def demand_lasting(self) -> None:
        """Check the settings again, at most once per second.

        Raises:
            StoreUnusable: the settings were changed, so that the server could lose events.
        """
        if time.monotonic() >= self._until:
            if found := _fragile(self._settings()):
                raise StoreUnusable(f"this Redis would lose events: {found}; expected {DURABLE}; {MAKE_DURABLE}")
            self._until = time.monotonic() + DURABLE_S

    def _settings(self) -> dict[str, str]:
        """Return the server's durability settings; none for a managed service that hides its configuration."""
        try:
            found: dict[str, str] = self._redis.config_get("appendonly", "appendfsync", "maxmemory-policy")
        except redis.ResponseError:
            return {}
        return found


def _fragile(settings: dict[str, str]) -> str:
    """Return the durability settings if the server could lose events with them; otherwise an empty text.

    The text is also empty if the server hides its settings.
    """
    sound = (
        settings.get("appendonly") == "yes"
        and settings.get("appendfsync") != "no"  # with "no", the operating system decides when to sync
        and settings.get("maxmemory-policy") == "noeviction"
    )
    return "" if sound else ", ".join(f"{name} {value}" for name, value in settings.items())


@contextmanager
def translated() -> Iterator[None]:
    """Raise StoreUnavailable instead of Redis's errors, and StoreUnusable if the store was emptied or replaced."""
    try:
        yield
    except redis.RedisError as error:
        if OTHER_GENERATION.search(str(error)):
            raise StoreUnusable(REPLACED) from error
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error

"""Opening of the store that a setting names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taiji.core.errors import ConfigError
from taiji.core.optional import needs
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store


def open_store(settings: ServingSettings, run: str | Path | None = None) -> Store:
    """Open the store a setting names; ``sqlite`` alone is a file in the run directory.

    Raises:
        ConfigError: unknown kind, or no place for the file.
        ResourceError: it cannot be opened, or would lose events (Redis without an append-only file).
    """
    kind, _, place = settings.store.partition(":")
    options: dict[str, Any] = {"settings": settings}
    if kind == "sqlite":
        from taiji.serving.sqlite_store import SQLiteStore

        if not place and run is None:
            raise ConfigError(
                "No place for the store.",
                where="serving.store",
                expected="sqlite:PATH, or the run whose service is meant",
                found=settings.store,
                fix="name the run that the service was started with (roll-out: --beside RUN), or --set serving.store=sqlite:PATH",
            )
        return SQLiteStore(Path(place) if place else Path(str(run)) / "serving" / "serving.sqlite3", **options)
    if kind in ("redis", "rediss"):
        with needs("serve", where="serving.store"):
            from taiji.serving.redis_store import RedisStore

        return RedisStore(settings.store, **options)
    raise ConfigError(
        "No such store.", where="serving.store", expected="sqlite, sqlite:PATH or redis://HOST:PORT/DB", found=kind
    )

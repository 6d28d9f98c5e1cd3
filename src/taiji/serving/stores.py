"""Open the store that the setting ``serving.store`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taiji.core.artifacts import make_folder, read_json, write_json
from taiji.core.errors import ConfigError, ResourceError
from taiji.core.optional import needs
from taiji.serving.logs import log, where
from taiji.serving.settings import ServingSettings, without_password
from taiji.serving.store import Store


def open_store(settings: ServingSettings, run: str | Path | None = None, *, generation: str = "") -> Store:
    """Open the store named by ``serving.store``; ``sqlite`` without a path is a file in the run directory.

    Args:
        settings: settings of the service.
        run: run directory of the service.
        generation: required generation of the store; empty to accept any.

    Raises:
        ConfigError: the kind of store is unknown, or a SQLite store has no path.
        ResourceError: the store cannot be opened, would lose events (Redis without an append-only file), or has been
            replaced.
    """
    store = _opened(settings, run)
    if generation and store.generation != generation:
        store.close()
        raise ResourceError(
            "The store was replaced while the service was running.",
            where=place_of(settings, run),
            fix="restore the original store; to continue with the new one, restart the service and follow its message",
        )
    return store


def place_of(settings: ServingSettings, run: str | Path | None) -> str:
    """Return the address of the store, without a password."""
    kind, _, place = settings.store.partition(":")
    if kind != "sqlite":
        return without_password(settings.store) + settings.prefix
    return str(Path(place).resolve() if place else Path(str(run)).resolve() / "serving" / "serving.sqlite3")


def demand_same_store(note: Path, place: str, generation: str) -> None:
    """Compare a store with the one recorded in the file ``note`` at an earlier start; record it if none is recorded.

    An empty store in place of the original would accept earlier events again, and would not contain the erasures.

    Raises:
        ResourceError: there is a different store at the same address.
    """
    known: dict[str, str] = read_json(note) if note.exists() else {}
    if known.get(place, generation) != generation:
        raise ResourceError(
            "The store has been emptied or replaced since the last start.",
            where=place,
            expected="the store of the last start, with its events and erasures",
            found="a different store",
            fix=f"restore the store from a backup; or, to start without these events and erasures, delete {note}",
        )
    if place not in known:
        try:
            make_folder(note.parent)
            write_json(note, known | {place: generation})
        except (OSError, ResourceError) as error:  # a read-only run directory
            log("identity of the store not recorded", error=where(error))


def _opened(settings: ServingSettings, run: str | Path | None) -> Store:
    kind, _, place = settings.store.partition(":")
    options: dict[str, Any] = {"settings": settings}
    if kind == "sqlite":
        from taiji.serving.sqlite_store import SQLiteStore

        if not place and run is None:
            raise ConfigError(
                "The store has no path.",
                where="serving.store",
                expected="sqlite:PATH, or the run directory of the service",
                found=settings.store,
                fix="name the run of the service (taiji roll-out NEW_RUN --beside RUN), or give the path with --set serving.store=sqlite:PATH",
            )
        return SQLiteStore(Path(place) if place else Path(str(run)) / "serving" / "serving.sqlite3", **options)
    if kind in ("redis", "rediss"):
        with needs("serve", where="serving.store"):
            from taiji.serving.redis_store import RedisStore

        return RedisStore(settings.store, **options)
    raise ConfigError(
        "No such store.", where="serving.store", expected="sqlite, sqlite:PATH or redis://HOST:PORT/DB", found=kind
    )

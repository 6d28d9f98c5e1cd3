"""Rollout of a run next to the one that is being served, activation, and rollback."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from taiji.core.errors import ArtifactError, ConfigError, ResourceError
from taiji.core.progress import progress
from taiji.serving.clock import SteadyClock, wall_us
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.stores import open_store
from taiji.serving.types import FeatureRow, FeatureWriter, Recommender, Release, Scorer

POLL_S = 0.1
WATCH_S = 5.0
"""Seconds within which every process of a service reports at least once that it is alive."""


class Backend(Protocol):
    """Functions that the module in ``ServingSettings.backend`` must have."""

    def release(self, run: Path) -> Release:
        """Return the name and versions of the run's release, without loading models."""
        ...

    def rows(self, run: Path) -> Iterator[Sequence[FeatureRow]]:
        """Yield batches of the run's feature rows, only the newest row of each user; nothing if it has no features."""
        ...

    def writer(self, run: Path, settings: ServingSettings, store: Store) -> FeatureWriter:
        """Load the LLM and the components that process its answers; not called if the release has no quantiser
        version."""
        ...

    def scorer(self, run: Path, settings: ServingSettings) -> Scorer | Recommender:
        """Load the rankers of given candidates, the recommender, or an object that is both."""
        ...


def backend(settings: ServingSettings) -> Backend:
    """Import the module in ``settings.backend``.

    Raises:
        ConfigError: the module cannot be imported, or lacks a function.
    """
    try:
        module = import_module(settings.backend)
    except ImportError as error:
        raise ConfigError("Could not import the serving backend.", where="serving.backend", found=str(error)) from error
    missing = [name for name in ("release", "rows", "writer", "scorer") if not hasattr(module, name)]
    if missing:
        raise ConfigError(
            "The serving backend is incomplete.",
            where=settings.backend,
            expected="functions release, rows, writer, scorer",
            found=f"no {', '.join(missing)}",
        )
    return cast(Backend, module)


def introduce(store: Store, run: Path, settings: ServingSettings) -> Release:
    """Publish a run's rows and make its release live.

    If the release is live already, only the path of its run is updated, and an interrupted ``add_release`` is
    completed.
    """
    module = backend(settings)
    release = module.release(run)
    now, done = SteadyClock(store.clock_floor())(), 0
    if release.name in store.releases().live:
        store.add_release(release, now)
        return release
    with progress(f"Publishing the rows of {release.name}", unit="rows") as update:
        for batch in module.rows(run):
            store.publish(release.name, batch, now)
            done += len(batch)
            update(done)
    store.add_release(release, now)
    return release


def located(run: Path, beside: Path) -> Path:
    """Return the path of a release's run: as stored, or next to the run of the service if both were moved.

    Args:
        run: directory according to the store.
        beside: the run directory that the service was started with.

    Raises:
        ArtifactError: the run is in neither place.
    """
    for place in (run, beside.parent / run.name):
        if place.is_dir():
            return place
    raise ArtifactError(
        "The run directory of a live release was moved or deleted.",
        where=str(run),
        expected=f"a run directory there, or {beside.parent / run.name}",
        fix="move it back, or tell the service its new path: taiji roll-out NEW_PLACE --prepare",
    )


def unprepared(store: Store, name: str, settings: ServingSettings, now: int) -> str:
    """Return the reason why a live release is not ready to be served; empty if it is ready.

    It is ready once every running HTTP process has loaded the release's models, and the users with events who still
    wait for their features fit in one batch of a worker.
    """
    release = store.releases().live.get(name)
    if release is None:
        return "It is not live."
    for beat in store.beats(now).values():
        if beat.get("kind") == "api":
            if reason := beat["failed"].get(name):
                return f"Its models cannot be loaded: {reason}"
            if name not in beat["loaded"]:
                return "Its models are being loaded."
    waiting = store.waiting(name, now) if release.features and settings.workers else 0
    return f"{waiting} users with events are waiting for their features." if waiting > settings.worker.batch else ""


def roll_out(
    run: str | Path,
    settings: ServingSettings,
    *,
    beside: str | Path | None = None,
    activate: bool = True,
    patience_s: float = 3600.0,
) -> Release:
    """Bring a finished run into a running service and, by default, serve it.

    The run's rows are published under a new release before any of them can be read. Within seconds, the service starts
    a worker for this release and loads its models. Once the models are loaded and the users with events have features,
    reads switch to the release. The previous release stays live, with its worker, so :func:`roll_back` is immediate and
    loses nothing.

    Args:
        run: the new run directory.
        settings: settings of the service.
        beside: the run directory with which the service was started, if the store is a file in it.
        activate: False prepares the release without serving it; a later call with True serves it.
        patience_s: longest waiting time for the preparation.

    Raises:
        ArtifactError: the run is not finished.
        ResourceError: the store cannot be opened, or the release was not ready within ``patience_s``. The previous
            release is then still served.
    """
    store = open_store(settings, beside)
    try:
        release = introduce(store, Path(run).resolve(), settings)
        if activate:
            _await_prepared(store, release.name, settings, patience_s)
            store.activate(release.name)
        return release
    finally:
        store.close()


def _await_prepared(store: Store, name: str, settings: ServingSettings, patience_s: float) -> None:
    clock = SteadyClock(store.clock_floor())
    if not any(beat.get("kind") == "api" for beat in store.beats(clock()).values()):
        return  # no service is running that could become ready
    deadline = time.monotonic() + patience_s
    while reason := unprepared(store, name, settings, clock()):
        if time.monotonic() > deadline:
            raise ResourceError(
                "The release is not ready yet; the previous release is still being served.",
                where=name,
                expected=f"models loaded and features written within {patience_s:g} s",
                found=reason,
                fix="repeat the command later, or look at the log of the service",
            )
        time.sleep(POLL_S)


def roll_back(settings: ServingSettings, run: str | Path | None = None) -> str:
    """Serve the previous release again, and return its name.

    Args:
        settings: settings of the service.
        run: run directory with which the service was started, if the store is a file in it.

    Raises:
        ArtifactError: there is no previous release.
    """
    store = open_store(settings, run)
    try:
        return store.roll_back()
    except KeyError:
        raise ArtifactError(
            "There is no previous release to go back to.",
            where=settings.store,
            found=f"active: {store.releases().active or 'no release at all'}",
            fix="publish a first release with taiji serve RUN, and a second one with taiji roll-out NEW_RUN --beside RUN",
        ) from None
    finally:
        store.close()


def repair_clock(settings: ServingSettings, run: str | Path | None = None) -> int:
    """Repair a store to which a service wrote times while its clock was far ahead.

    All affected users become due now. Return their number.

    Args:
        settings: settings of the service, which must not be running.
        run: run directory with which the service was started, if the store is a file in it.

    Raises:
        ResourceError: the store cannot be opened, or a service uses it.
    """
    store = open_store(settings, run)
    try:
        before = store.last_beats()
        time.sleep(WATCH_S if before else 0.0)
        # A process is alive if its last reported time changes. Its age cannot be used, because the clocks differ.
        if alive := sorted(name for name, at in store.last_beats().items() if before.get(name) != at):
            raise ResourceError(
                "A service is using the store.", where=settings.store, found=", ".join(alive), fix="stop the service"
            )
        return store.repair_clock(wall_us())
    finally:
        store.close()

"""Bringing a run into service beside the one that is served, switching to it, and switching back."""

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
"""Time in which every process of a service says at least once that it lives."""


class Backend(Protocol):
    """Functions of the module that ``ServingSettings.backend`` names."""

    def release(self, run: Path) -> Release:
        """Name and versions, found without loading models."""
        ...

    def rows(self, run: Path) -> Iterator[Sequence[FeatureRow]]:
        """The rows the batch run made, newest of each user, in batches; none where the run has no features."""
        ...

    def writer(self, run: Path, settings: ServingSettings, store: Store) -> FeatureWriter:
        """Load the LLM and what follows it; not asked for where the release has no quantiser version."""
        ...

    def scorer(self, run: Path, settings: ServingSettings) -> Scorer | Recommender:
        """Load the rankers of given candidates, the recommender, or one object that is both."""
        ...


def backend(settings: ServingSettings) -> Backend:
    """Import the module the settings name."""
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
    """Publish a run's rows and make its release live; of one that is live already, only the place of its run is noted."""
    module = backend(settings)
    release = module.release(run)
    now, done = SteadyClock(store.clock_floor())(), 0
    if known := store.releases().live.get(release.name):
        if known != release:  # the run directory was moved
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
    """Return where a release's run is: at the place that the store keeps, or moved together with the run of the service.

    Args:
        run: directory as the store has it. beside: the run directory that the service was started with.

    Raises:
        ArtifactError: it is at neither place.
    """
    for place in (run, beside.parent / run.name):
        if place.is_dir():
            return place
    raise ArtifactError(
        "The run of a live release is not where it was.",
        where=str(run),
        expected=f"a run directory there, or {beside.parent / run.name}",
        fix="move it back, or tell the service its new place: taiji roll-out NEW_PLACE --prepare",
    )


def unprepared(store: Store, name: str, settings: ServingSettings, now: int) -> str:
    """Return what a live release lacks to be served as well as the active one; empty where it lacks nothing.

    Every living HTTP process must have its models, and of the users with events no more than a batch may wait for features.
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
    return f"{waiting} users with events wait for their features." if waiting > settings.worker.batch else ""


def roll_out(
    run: str | Path,
    settings: ServingSettings,
    *,
    beside: str | Path | None = None,
    activate: bool = True,
    patience_s: float = 3600.0,
) -> Release:
    """Bring a finished run into a running service and, unless told otherwise, serve it.

    Its rows are published under its own release before a read can see one of them; the service starts a worker for it
    within seconds and loads its models. When all of that is done, and the users with events have their features, reads switch. The
    release served so far stays live, with its worker: :func:`roll_back` is immediate and loses nothing.

    Args:
        run: the new run directory.
        settings: those of the service.
        beside: the run directory the service was started with, where its store is a file in there.
        activate: False to prepare it only; the same call with True, later, then serves it.
        patience_s: longest wait for the service to be prepared.

    Raises:
        ArtifactError: the run is not finished.
        ResourceError: the store cannot be opened, or the release was not prepared in time; the one before is served then.
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
        return  # no service runs that could be ready
    deadline = time.monotonic() + patience_s
    while reason := unprepared(store, name, settings, clock()):
        if time.monotonic() > deadline:
            raise ResourceError(
                "The release is not prepared; the one before is still served.",
                where=name,
                expected=f"models loaded and features written within {patience_s:g} s",
                found=reason,
                fix="repeat the command later, or look at the log of the service",
            )
        time.sleep(POLL_S)


def roll_back(settings: ServingSettings, run: str | Path | None = None) -> str:
    """Serve the previous release again; returns its name.

    Args:
        settings: those of the service. run: as ``beside`` of :func:`roll_out`.

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
            fix="taiji serve RUN publishes a first release, taiji roll-out RUN --beside RUN a second one",
        ) from None
    finally:
        store.close()


def repair_clock(settings: ServingSettings, run: str | Path | None = None) -> int:
    """Undo what a service wrote under a clock that was far ahead; returns how many users are due by it.

    Args:
        settings: those of the service, which must not run. run: as ``beside`` of :func:`roll_out`.

    Raises:
        ResourceError: the store cannot be opened, or a service uses it.
    """
    store = open_store(settings, run)
    try:
        before = store.last_beats()
        time.sleep(WATCH_S if before else 0.0)
        # Not by their age: their clock and this one differ, and the store's mark stands still when nobody is there.
        if alive := sorted(name for name, at in store.last_beats().items() if before.get(name) != at):
            raise ResourceError("A service uses the store.", where=settings.store, found=", ".join(alive), fix="end it")
        return store.repair_clock(wall_us())
    finally:
        store.close()

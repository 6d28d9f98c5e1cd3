"""Bringing a run into service beside the one that is served, switching to it, and switching back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from taiji.core.errors import ArtifactError, ConfigError
from taiji.core.progress import progress
from taiji.serving.clock import SteadyClock
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store, to_previous
from taiji.serving.stores import open_store
from taiji.serving.types import FeatureRow, FeatureWriter, Recommender, Release, Scorer


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
    """Publish a run's rows and make its release live; nothing happens when it is live already."""
    module = backend(settings)
    release = module.release(run)
    if release.name in store.releases().live:
        return release
    now, done = SteadyClock(store.clock_floor())(), 0
    with progress(f"Publishing the rows of {release.name}", unit="rows") as update:
        for batch in module.rows(run):
            store.publish(release.name, batch, now)
            done += len(batch)
            update(done)
    store.add_release(release, now)
    return release


def roll_out(
    run: str | Path, settings: ServingSettings, *, beside: str | Path | None = None, activate: bool = True
) -> Release:
    """Bring a finished run into a running service and, unless told otherwise, serve it.

    Its rows are published under its own release before a read can see one of them; the service starts a worker for it
    within seconds and loads its ranker. The release served so far stays live, with its worker: :func:`roll_back` is
    immediate and loses nothing.

    Args:
        run: the new run directory.
        settings: those of the service.
        beside: the run directory the service was started with, where its store is a file in there.

    Raises:
        ArtifactError: the run is not finished.
        ResourceError: the store cannot be opened.
    """
    store = open_store(settings, beside)
    try:
        release = introduce(store, Path(run).resolve(), settings)
        if activate:
            store.activate(release.name)
        return release
    finally:
        store.close()


def roll_back(settings: ServingSettings, run: str | Path | None = None) -> str:
    """Serve the previous release again; returns its name.

    Args:
        settings: those of the service. run: as ``beside`` of :func:`roll_out`.

    Raises:
        ArtifactError: there is no previous release.
    """
    store = open_store(settings, run)
    try:
        return to_previous(store)
    except KeyError:
        raise ArtifactError(
            "There is no previous release to go back to.",
            where=settings.store,
            found=f"active: {store.releases().active or 'no release at all'}",
            fix="taiji serve RUN publishes a first release, taiji roll-out RUN --beside RUN a second one",
        ) from None
    finally:
        store.close()

"""Access to a run directory for the pages. Artefacts are loaded on first use and then kept in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from taiji.config import Config, load_config
from taiji.core.advice import check_run
from taiji.core.artifacts import read_json, read_parquet
from taiji.core.manifests import MANIFEST, Verifier, read_manifest, stage_files
from taiji.data import Dataset, Split
from taiji.data.dataset import read_reading
from taiji.data.reading_report import ReadingReport
from taiji.inspector.indexed_frame import Table
from taiji.pipeline.names import ARMS, MODELS
from taiji.pipeline.recipes import stages_of
from taiji.pipeline.recommend_recipe import recommend_stages
from taiji.reporting.summary import RunMetrics, check_metrics

T = TypeVar("T")


@dataclass(frozen=True)
class StageState:
    """State of a stage for the overview."""

    name: str
    summary: str
    seconds: float | None
    """Seconds of computation; ``None`` if the stage is not finished."""
    finished: str
    facts: dict[str, Any]


class RunFiles:
    """Artefacts of one run. A missing artefact is ``None`` or an empty table.

    Args:
        folder: run directory.

    Raises:
        ArtifactError: the folder is not a run directory.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        check_run(self.folder)
        self.name = self.folder.resolve().name
        self.state = run_state(self.folder)
        self._kept: dict[str, Any] = {}
        self._guard = threading.Lock()
        self._locks: dict[str, threading.RLock] = {}
        self._verifier = Verifier()

    def _once(self, name: str, load: Callable[[], T]) -> T:
        """Load a value on the first request that needs it. Concurrent requests wait for it."""
        if name not in self._kept:
            with self._guard:
                lock = self._locks.setdefault(name, threading.RLock())
            with lock:
                if name not in self._kept:
                    self._kept[name] = load()
        return self._kept[name]  # type: ignore[no-any-return]

    @property
    def config(self) -> Config:
        """Resolved configuration."""
        return self._once("config", lambda: load_config(self.folder / "config.json"))

    @property
    def stages(self) -> list[StageState]:
        """All stages, including those of other packages, finished or not."""

        def load() -> list[StageState]:
            found: dict[str, str] = {}
            if self.enhances:
                found |= {stage.key: stage.summary for stage in stages_of(self.config)}
            if self.recommends:
                found |= {stage.key: stage.summary for stage in recommend_stages(self.config)}
            return [self._stage(key, summary) for key, summary in found.items()]

        return self._once("stages", load)

    @property
    def recommends(self) -> bool:
        """True for a run of ``taiji recommend``."""
        return next(self.folder.glob("retriever-*"), None) is not None

    @property
    def enhances(self) -> bool:
        """False for a run of ``taiji recommend``, unless it also has the stages of ``taiji run``; otherwise True."""
        return not self.recommends or self.done("examples")

    @property
    def recommendation(self) -> dict[str, Any] | None:
        """Metrics of a recommender; None if it has not been evaluated."""
        return self._json("recommendation", "recommendation.json")

    @property
    def closed_loop(self) -> dict[str, Any] | None:
        """Results of the closed loop, in which a recommender serves users of its simulated world; None without it."""
        return self._json("closed_loop", "closed_loop.json")

    def _json(self, stage: str, name: str) -> dict[str, Any] | None:
        def load() -> dict[str, Any] | None:
            file = self.folder / stage / name
            return read_json(file) if self.whole(stage) and file.is_file() else None

        return self._once(f"{stage}/{name}", load)

    @property
    def requests(self) -> pl.DataFrame:
        """Traced requests: ``request, user, time``, context, ``targets``."""
        return self._verified_frame("recommendation/requests.parquet")

    @property
    def traces(self) -> pl.DataFrame:
        """Candidates of traced requests; see :mod:`taiji.pipeline.traced_requests`."""
        return self._verified_frame("recommendation/traces.parquet")

    @property
    def copies(self) -> pl.DataFrame:
        """Candidate copies; see :mod:`taiji.copywriting.copy_table`."""
        return self._verified_frame("copywriting/copies.parquet")

    @property
    def facts(self) -> pl.DataFrame:
        """Facts on which the copies are based: ``item_id, source, name, text, time``."""
        return self._verified_frame("copywriting/facts.parquet")

    def _verified_frame(self, path: str) -> pl.DataFrame:
        def load() -> pl.DataFrame:
            available = self.whole(path.split("/")[0]) and (self.folder / path).is_file()
            return read_parquet(self.folder / path) if available else pl.DataFrame()

        return self._once(path, load)

    def _stage(self, name: str, summary: str) -> StageState:
        path = self.folder / name / MANIFEST
        about = read_manifest(path.parent) if path.is_file() else None
        if about is None:
            return StageState(name, summary, None, "", {})
        return StageState(
            name,
            summary,
            float(about["seconds"]),
            str(about.get("finished", "")),
            dict(about.get("facts") or {}),
        )

    @property
    def seconds(self) -> float:
        """Computing time of the finished stages in seconds.

        It includes the report stage. The computing time in the metrics that this stage writes does not.
        """
        return sum(state.seconds or 0.0 for state in self.stages)

    def done(self, stage: str) -> bool:
        """Return True if a stage is finished."""
        return (self.folder / stage / MANIFEST).is_file()

    @property
    def metrics(self) -> RunMetrics | None:
        """Metrics of the run; None if the report has not been written."""

        def load() -> RunMetrics | None:
            path = self.published("metrics.json")
            return check_metrics(read_json(path)) if path.is_file() else None

        return self._once("metrics", load)

    def published(self, name: str, stage: str = "report") -> Path:
        """Return the path of a file that a stage publishes at the top of the run, whether or not it exists.

        Raises:
            ArtifactError: the file has changed since the stage wrote it.
        """
        return self._verifier.published(self.folder, stage, name)

    def whole(self, stage: str) -> bool:
        """Return True if a stage is finished, after checking its artefacts.

        Raises:
            ArtifactError: the artefacts have changed since the stage wrote them.
        """
        if self.done(stage):
            self._once(f"whole {stage}", lambda: self._verifier.demand(self.folder, [stage]))
        return self.done(stage)

    @property
    def dataset(self) -> Dataset | None:
        """Dataset with histories, or None."""
        return self._once(
            "dataset", lambda: Dataset.load(self.folder / "data" / "dataset") if self.whole("data") else None
        )

    @property
    def reading(self) -> ReadingReport | None:
        """Reading report of the log, or None."""
        return self._once(
            "reading", lambda: read_reading(self.folder / "data" / "dataset") if self.done("data") else None
        )

    @property
    def numbers(self) -> dict[str, int]:
        """Map from the original user id, as text, to the dense id."""

        def load() -> dict[str, int]:
            dataset = self.dataset
            if dataset is None:
                return {}
            return {name: number for number, name in enumerate(dataset.users["user_id"].cast(pl.String))}

        return self._once("numbers", load)

    @property
    def split(self) -> Split | None:
        """Split into four periods, or None."""
        path = self.folder / "examples" / "split.json"
        return self._once("split", lambda: Split(tuple(read_json(path)["bounds"])) if self.whole("examples") else None)

    @property
    def events(self) -> Table:
        """All events by user, in chronological order within a user."""
        return self._once(
            "events",
            lambda: Table.by_user(self.dataset.events, self.dataset.n_users) if self.dataset else Table.empty(),
        )

    @property
    def examples(self) -> Table:
        """Prompts of every role by user: ``example, user, as_of, target, role``."""
        return self._frame("examples/examples.parquet", by_user=True)

    @property
    def verdicts(self) -> Table:
        """Scored rationales by example."""
        return self._frame("selection/verdicts.parquet")

    @property
    def rationales(self) -> Table:
        """All written rationales by example. This is the only table with the rationales of calibration prompts."""
        return self._frame("rationales/rationales.parquet")

    @property
    def rollouts(self) -> Table:
        """Sampled rollouts by example."""
        return self._frame("alignment/rollouts.parquet")

    @property
    def grounding(self) -> Table:
        """Nearest catalogue items of the test answers by example."""
        return self._frame("report/grounding.parquet")

    def answers(self, model: str) -> Table:
        """Return a model's completions of the test prompts, grouped by example."""
        return self._frame(f"answers/{_known(model, MODELS)}.parquet")

    @property
    def completions(self) -> Table:
        """Completions of the aligned model for the feature rows, by user."""
        return self._frame("features/completions.parquet", by_user=True)

    def features(self, arm: str) -> Table:
        """Return a feature table by user."""
        return self._frame(f"features/{_known(arm, ARMS)}.parquet", by_user=True)

    @property
    def judged(self) -> Table:
        """Test exposures by user, with the predictions of each ranker in columns such as ``click <arm>``."""
        return self._once("judged", self._judged)

    def _judged(self) -> Table:
        folder, dataset = self.folder / "ranking", self.dataset
        if dataset is None or not self.whole("ranking"):
            return Table.empty()
        frame = read_parquet(folder / "exposures.parquet")
        for path in stage_files(folder, "predictions-*.parquet"):
            arm = path.stem.removeprefix("predictions-")
            predictions = read_parquet(path).drop("event", strict=False)
            frame = frame.with_columns(predictions.select(pl.all().name.suffix(f" {arm}")))
        return Table.by_user(frame, dataset.n_users)

    def _frame(self, path: str, by_user: bool = False) -> Table:
        def load() -> Table:
            file = self.folder / path
            self.whole(path.split("/")[0])
            if not file.is_file():
                return Table.empty()
            frame = read_parquet(file)
            return (
                Table.by_user(frame, self.dataset.n_users if self.dataset else 0)
                if by_user
                else Table.by_example(frame)
            )

        return self._once(path, load)

    @property
    def kept_lines(self) -> dict[str, int]:
        """Number of interactions in the prompt of each example, as recorded by the stages."""

        def load() -> dict[str, int]:
            found: dict[str, int] = {}
            for path in ("selection/prompts.parquet", "alignment/prompts.parquet", "answers/aligned.parquet"):
                file = self.folder / path
                if self.whole(path.split("/")[0]) and file.is_file():
                    found.update(read_parquet(file, ["example", "kept"]).iter_rows())
            return found

        return self._once("kept", load)

    def warm(self) -> None:
        """Load everything that the pages need, so that the first request is as fast as later ones."""
        dataset = self.dataset
        if dataset is not None:
            _ = self.numbers, self.events, dataset.history.count_before([0], [0]), dataset.prices.before([0], [0])
        _ = (
            self.examples,
            self.verdicts,
            self.rationales,
            self.rollouts,
            self.grounding,
            self.completions,
            self.judged,
            self.kept_lines,
            self.requests,
            self.traces,
        )
        for arm in ARMS:
            self.features(arm)
        for model in MODELS:
            self.answers(model)


def run_state(folder: Path) -> tuple[int, ...]:
    """Return the modification times of a run's main files.

    They change whenever a stage finishes, so that the pages of a run in progress stay up to date.
    """
    paths = [folder / "config.json", folder / "metrics.json", *sorted(folder.glob(f"*/{MANIFEST}"))]
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)


def counts(table: Table, n_users: int) -> np.ndarray:
    """Return the number of rows per user, (n_users,), of a table grouped by user; zeros if the table is empty."""
    found: np.ndarray = np.diff(table.offsets) if len(table.offsets) == n_users + 1 else np.zeros(n_users, np.int64)
    return found


def _known(name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise KeyError(name)
    return name

"""A study: rankers with different features (arms), each trained with several seeds, evaluated over users *and* seeds.

One trained ranker per arm says little, because rankers of the same arm also differ between seeds. A study trains every
arm with the same seeds, and its intervals include the variation between users and between seeds. It has negative
controls: the features of another user must show no gain; otherwise the gain from a user's own features means nothing.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from taiji.core.artifacts import file_hash, make_folder, read_json, value_hash, write_json, write_parquet
from taiji.core.errors import ArtifactError, ConfigError, InputError
from taiji.core.manifests import is_sealed, sealed
from taiji.core.progress import track
from taiji.data.tasks import DEFAULT_TASKS, Task
from taiji.metrics.bootstrap import resample_weights
from taiji.metrics.exact import student_quantile
from taiji.metrics.intervals import differences, interval_of
from taiji.metrics.ranker_evaluation import evaluated_heads, head_rows, predicted_tasks
from taiji.metrics.ranking_metrics import Metric, Rows

if TYPE_CHECKING:
    from taiji.core.settings import Settings
    from taiji.data.dataset import Dataset

Array = NDArray[Any]
JOINED_FEATURES = ("ids", "neighbour_items")
NEGATIVE_CONTROL = "negative control: "
"""Prefix of the names of negative controls."""


class Predictor(Protocol):
    """A trained ranker."""

    def predict(self, exposures: pl.DataFrame) -> pl.DataFrame:
        """Return one column per prediction, such as ``click`` and ``ctcvr``, in the order of the rows."""


Trainer = Callable[[pl.DataFrame, int], Predictor]
"""Function from training exposures with feature columns, and a seed, to a trained ranker."""


@dataclass(frozen=True)
class Arm:
    """Arm of a study: the features with which its rankers are trained.

    Args:
        name: name shown in tables.
        table: feature rows; None trains without features.
        columns: features of the table that are joined.
    """

    name: str
    table: pl.DataFrame | None = None
    columns: tuple[str, ...] = JOINED_FEATURES

    def joined(self, exposures: pl.DataFrame) -> pl.DataFrame:
        """Return exposures with the arm's features as of their time."""
        from taiji.features.feature_table import join_features

        return exposures if self.table is None else join_features(exposures, self.table, self.columns)

    @property
    def version(self) -> str:
        """Version that changes whenever anything in the arm changes."""
        return value_hash([self.name, list(self.columns), "" if self.table is None else frame_hash(self.table)])


def ablation(
    tables: Mapping[str, pl.DataFrame], main: str, seed: int = 0, columns: tuple[str, ...] = JOINED_FEATURES
) -> list[Arm]:
    """Return the usual arms: no features, each table, and the ablations and negative controls of the main table.

    Args:
        tables: name → feature table, for instance history_mean, base, sft, grpo, popo-light, popo.
        main: the table to ablate.
        seed: seed of the negative controls.
        columns: features joined by default.

    Raises:
        ConfigError: ``main`` is not among the tables.
    """
    if main not in tables:
        raise ConfigError("The study's main table is missing.", expected=main, found=", ".join(tables) or "no table")
    arms = [Arm("none"), *(Arm(name, table, columns) for name, table in tables.items())]
    whole = tables[main]
    arms += [
        Arm(f"{main}, intra-user only", whole, tuple(c for c in columns if c != "neighbour_items")),
        Arm(f"{main}, cross-user only", whole, ("neighbour_items",)),
    ]
    return [
        *arms,
        Arm(f"{NEGATIVE_CONTROL}another user's", another_users(whole, seed), columns),
        Arm(f"{NEGATIVE_CONTROL}shuffled", shuffled(whole, seed), columns),
    ]


def control_findings(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Report for each negative control, and for each AUC and log-loss, whether the control shows a gain on the whole
    test set (group ``all``). In a valid study, no control does.

    ``gain`` is true if the interval of the difference lies entirely on the better side. A harmful control is not a
    gain; it shows that noise costs a ranker quality.
    """
    found = []
    for row in rows:
        if not row["features"].startswith(NEGATIVE_CONTROL) or row["group"] != "all" or "difference" not in row:
            continue
        if not row["metric"].endswith(("auc", "log_loss")):
            continue
        difference, low, high = row["difference"], row["difference"]["low"], row["difference"]["high"]
        better = low is not None and (high < 0 if row["metric"].endswith("log_loss") else low > 0)
        worse = low is not None and (low > 0 if row["metric"].endswith("log_loss") else high < 0)
        verdict = (
            "GAIN: the study is not trustworthy"
            if better
            else "loss: noise costs the ranker quality"
            if worse
            else f"not shown: {difference.get('reason') or 'too few users'}"
            if low is None
            else "no gain"
        )
        found.append({"arm": row["features"], "metric": row["metric"], "gain": better, "verdict": verdict})
    return found


def another_users(table: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Return the table with the rows of every user assigned to another user, so that no user keeps their own."""
    users = table["user"].unique().sort().to_numpy()
    if len(users) < 2:
        raise InputError(
            "Features of another user need at least two users.", where="feature table", found=f"{len(users)}"
        )
    cycle = np.random.default_rng([seed, len(users)]).permutation(users)
    receiver = dict(zip(cycle.tolist(), np.roll(cycle, 1).tolist()))
    return table.with_columns(
        pl.Series("user", [receiver[user] for user in table["user"].to_list()], dtype=table["user"].dtype)
    )


def shuffled(table: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Return the table with each feature drawn independently from a random row that is not newer.

    A newer row could contain the future of the user who receives it, so it is never drawn.
    """
    order = np.argsort(table["as_of"].to_numpy(), kind="stable")
    times = table["as_of"].to_numpy()[order]
    reach = np.searchsorted(times, times, side="right")
    generator, columns = np.random.default_rng([seed, len(table)]), {}
    for name in ("ids", "neighbour_items", "vector"):
        if name in table.columns:
            source = np.empty(len(table), dtype=np.int64)
            source[order] = order[(generator.random(len(table)) * reach).astype(np.int64)]
            columns[name] = table[name].gather(source)
    return table.with_columns(**columns)


def run_cells(
    train: pl.DataFrame,
    test: pl.DataFrame,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    trainer: Trainer,
    folder: str | Path,
    *,
    trainer_version: str,
    tasks: Sequence[Task] = DEFAULT_TASKS,
) -> list[dict[str, Any]]:
    """Train a ranker for every missing cell (arm, seed), and store its test predictions.

    A cell is a Parquet file of test predictions and a JSON file, written last, with the cell's key. A killed study
    resumes with the first missing cell. A cell is recomputed if its arm, data or trainer changed, or if its files are
    damaged.

    Args:
        train, test: exposures of the training period and of the test period.
        arms: arms to compare, with distinct names.
        seeds: training seeds, the same for every arm.
        trainer: function that trains a ranker; see :func:`built_in`.
        folder: folder of the cells.
        trainer_version: version that changes whenever the trainer's settings or tasks change.
        tasks: tasks whose predictions are stored, if the trained ranker has them.

    Returns:
        one dict per cell: arm, seed, key, seconds, rows, predictions (file name).
    """
    if len({arm.name for arm in arms}) != len(arms):
        raise ConfigError(
            "Two arms of the study have the same name.",
            expected="unique names",
            found=", ".join(arm.name for arm in arms),
        )
    folder, data = make_folder(folder), [frame_hash(train), frame_hash(test), trainer_version]
    versions, cells = {arm.name: arm.version for arm in arms}, []
    grid = [(arm, seed) for seed in seeds for arm in arms]
    for arm, seed in track(grid, "Study", unit="cells"):
        key, stem = value_hash([versions[arm.name], seed, *data]), f"{value_hash(arm.name)[:10]}-{seed}"
        path = folder / f"{stem}.json"
        if not _whole(path, key):
            start = time.monotonic()
            predicted = trainer(arm.joined(train), seed).predict(arm.joined(test))
            heads = [head for head in evaluated_heads(tasks) if head in predicted.columns]
            predicted = predicted.select(pl.col(*heads).cast(pl.Float32))
            write_parquet(folder / f"{stem}.parquet", predicted)
            cell = {
                "arm": arm.name,
                "seed": seed,
                "key": key,
                "rows": len(predicted),
                "seconds": round(time.monotonic() - start, 3),
                "predictions": f"{stem}.parquet",
                "sha256": file_hash(folder / f"{stem}.parquet"),
            }
            write_json(path, sealed(cell))
        cells.append(read_json(path))
    return cells


def _whole(path: Path, key: str) -> bool:
    """Return True if a cell with this key exists and both of its files are intact."""
    try:
        cell = read_json(path)
        fits = is_sealed(cell) and cell["key"] == key
        return bool(fits and file_hash(path.with_suffix(".parquet")) == cell["sha256"])
    except (ArtifactError, OSError, AttributeError):  # missing, or not a cell
        return False


def built_in(dataset: Dataset, settings: Settings) -> tuple[Trainer, str]:
    """Return the configured ranking model as a trainer, and a version that changes with the settings, tasks and
    tables."""
    from taiji.models.ranking.train import train_ranker

    roles = [dataset.event_columns.model_dump(mode="json"), list(dataset.levels)]
    learnt = [settings.model_dump(mode="json"), [task.model_dump(mode="json") for task in dataset.tasks], roles]
    log = int(dataset.events.hash_rows().sum())  # hash without copying the log, which may be large
    version = value_hash([*learnt, frame_hash(dataset.items), frame_hash(dataset.users), log])
    return lambda exposures, seed: train_ranker(dataset, exposures, settings, seed), version


def aggregate(
    cells: Sequence[Mapping[str, Any]],
    folder: str | Path,
    test: pl.DataFrame,
    sparse_users: ArrayLike | None = None,
    *,
    tasks: Sequence[Task] = DEFAULT_TASKS,
    groups: Mapping[str, Array] | None = None,
    against: str = "none",
    competitors: Sequence[str] = ("history_mean",),
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return the mean over seeds of every metric, with intervals and paired differences over users and seeds.

    The further arguments are those of :func:`taiji.metrics.ranker_evaluation.evaluate_rankers`; the result has the
    rows of that function with two more keys: ``seeds`` (number of seeds) and ``per_seed`` (the value of each seed).

    Raises:
        ArtifactError: an arm lacks a seed that another has, so the comparison would not be paired.
    """
    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    seeds = sorted({cell["seed"] for cell in cells})
    found = {(cell["arm"], cell["seed"]): cell for cell in cells}
    missing = [f"{arm} with seed {s}" for arm in arms for s in seeds if (arm, s) not in found]
    if missing:
        raise ArtifactError(
            "The study is not complete.",
            where=str(folder),
            expected=f"{len(arms)} arms x {len(seeds)} seeds",
            found="missing: " + "; ".join(missing[:5]),
            fix="run the missing cells",
        )
    frames = {key: pl.read_parquet(Path(folder) / cell["predictions"]) for key, cell in found.items()}
    return evaluate_seeds(
        frames,
        test,
        sparse_users,
        tasks=predicted_tasks(tasks, frames.values()),
        groups=groups,
        against=against,
        competitors=competitors,
        resamples=resamples,
        level=level,
        seed=seed,
    )


def evaluate_seeds(
    predictions: Mapping[tuple[str, int], pl.DataFrame],
    test: pl.DataFrame,
    sparse_users: ArrayLike | None = None,
    *,
    tasks: Sequence[Task] = DEFAULT_TASKS,
    groups: Mapping[str, Array] | None = None,
    against: str = "none",
    competitors: Sequence[str] = ("history_mean",),
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return the rows of :func:`aggregate` from predictions, (arm, seed) → frame. Every arm must have every seed."""
    arms, seeds = (
        list(dict.fromkeys(arm for arm, _ in predictions)),
        list(dict.fromkeys(number for _, number in predictions)),
    )
    rows: list[dict[str, Any]] = []
    for part in head_rows(test, predictions, sparse_users, groups, tasks):
        found = [
            _figures(metric, part.arms, arms, seeds, against, competitors, resamples, level, seed)
            for metric in part.metrics
        ]
        rows += [
            {"features": arm, "group": part.group, "metric": f"{part.head} {m.name}", **figures[arm]}
            for arm in arms
            for m, figures in zip(part.metrics, found)
        ]
    return rows


def over_users_and_seeds(values: Array, draws: Array, seed: int, level: float = 0.95) -> tuple[Array, Array]:
    """Return the mean over seeds, and its distribution when both users and seeds are resampled.

    Args:
        values: (S, A) metrics on the original users.
        draws: (R, S, A) metrics on resampled users.
        seed: random seed of the resampling of seeds.
        level: level of the intervals computed from the draws.

    Returns:
        (A,) means and (R, A) draws. Resampling S seeds has two faults: it underestimates the variance between seeds by
        the factor (S − 1) / S, and it ignores that this variance is itself estimated from S values. Therefore, each
        draw's deviation from the mean over all seeds is scaled by √(S / (S − 1)), and by the quantile of Student's t
        with S − 1 degrees of freedom divided by the normal quantile. With one seed, only users are resampled.
    """
    resamples, n_seeds, _ = draws.shape
    centre = draws.mean(axis=1)
    if n_seeds < 2:
        return values.mean(axis=0), centre
    picks = np.random.default_rng([seed, n_seeds, 17]).integers(n_seeds, size=(resamples, n_seeds))
    picked = draws[np.arange(resamples)[:, None], picks].mean(axis=1)
    few = student_quantile(level, n_seeds - 1) / NormalDist().inv_cdf((1 + level) / 2)
    return values.mean(axis=0), centre + few * np.sqrt(n_seeds / (n_seeds - 1)) * (picked - centre)


def _figures(
    metric: Metric,
    tables: Mapping[tuple[str, int], Rows],
    arms: list[str],
    seeds: list[int],
    against: str,
    competitors: Sequence[str],
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    statistics = [[metric.statistic(tables[arm, s]) for arm in arms] for s in seeds]
    n_users = statistics[0][0].n_users
    unit = np.ones((1, n_users))
    values = np.array([[statistic(unit)[0] for statistic in line] for line in statistics])
    blocks = [
        np.stack([np.stack([s(weights) for s in line], axis=-1) for line in statistics], axis=1)
        for weights in resample_weights(n_users, resamples, seed)
    ]
    points, draws = over_users_and_seeds(values, np.concatenate(blocks), seed, level)

    every = [list(column) for column in zip(*statistics, strict=True)]
    contents = [tuple(tables[arm, s].content for s in seeds) for arm in arms]
    gaps = differences(arms, points, draws, every, contents, against, competitors, level)
    return {
        arm: {
            **interval_of(every[column], points[column], draws[:, column], level),
            "seeds": len(seeds),
            "per_seed": [None if np.isnan(value) else float(value) for value in values[:, column]],
            **gaps[column],
        }
        for column, arm in enumerate(arms)
    }


def frame_hash(frame: pl.DataFrame) -> str:
    """SHA-256 of a frame's columns and values."""
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return hashlib.sha256(buffer.getvalue()).hexdigest()

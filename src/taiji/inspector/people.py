"""Index of the users of a run: counts of the available content per user, search, sorting and paging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from taiji.inspector.run_view import RunFiles, counts

USERS_PER_PAGE = 50
ONLY = {
    "": "all users",
    "rationales": "with rationales",
    "kept": "with a kept rationale",
    "rejected": "with a rejected rationale",
    "rollouts": "with rollouts",
    "answers": "with test answers",
    "rows": "with feature rows",
}
ORDERS = {"most": "most content first", "history": "longest history first", "id": "by id"}


@dataclass(frozen=True)
class Hits:
    """One page of search results. ``total`` is the number of users found, and ``pages`` the number of pages."""

    rows: list[dict[str, Any]]
    total: int
    page: int
    pages: int


class People:
    """Index of the users of a run, built once.

    Args:
        run: run; the index is empty if its dataset is missing.
    """

    def __init__(self, run: RunFiles) -> None:
        dataset = run.dataset
        if dataset is None:
            self.frame = pl.DataFrame()
            return
        n = dataset.n_users
        profile = [name for name in dataset.users.columns if name not in ("user", "user_id")]
        ids = dataset.users["user_id"].cast(pl.String)
        texts = dataset.users.select(
            pl.concat_str(
                [pl.col("user_id").cast(pl.String), *(pl.col(name).cast(pl.String) for name in profile)],
                separator=" ",
                ignore_nulls=True,
            )
        ).to_series()
        of_role = {role: _tally(run, role, n) for role in ("rationale", "calibration", "alignment", "test")}
        judged = (
            run.verdicts.frame.join(run.examples.frame.select("example", "user"), on="example")
            if len(run.verdicts.frame) and len(run.examples.frame)
            else None
        )
        judged_counts = {
            kept: np.bincount(judged.filter(pl.col("kept") == kept)["user"], minlength=n)
            if judged is not None
            else np.zeros(n, np.int64)
            for kept in (True, False)
        }
        columns = {
            "history": np.diff(dataset.history.offsets),
            "rationales": of_role["rationale"] + of_role["calibration"],
            "calibration": of_role["calibration"],
            "kept": judged_counts[True],
            "rejected": judged_counts[False],
            "rollouts": of_role["alignment"],
            "answers": of_role["test"],
            "rows": counts(run.completions, n),
        }
        self.frame = pl.DataFrame({"user": np.arange(n), "user_id": ids, "text": texts.str.to_lowercase(), **columns})
        # Every order is total, because ties are broken by user number.
        much = 4 * sum(
            (columns[name] > 0).astype(np.int64) for name in ("rationales", "rollouts", "answers", "rows")
        ) + np.minimum(columns["rows"], 3)
        self._order = {
            "most": np.lexsort((np.arange(n), -columns["history"], -much)),
            "history": np.lexsort((np.arange(n), -columns["history"])),
            "id": np.arange(n),
        }

    def search(
        self, query: str = "", only: str = "", order: str = "most", page: int = 1, size: int = USERS_PER_PAGE
    ) -> Hits:
        """Return the users whose id or profile contains every word of the query.

        A user whose id equals the query comes first.

        Args:
            query: words, case-insensitive; only the first eight are used.
            only: key of :data:`ONLY`; an unknown key selects all users.
            order: key of :data:`ORDERS`.
            page: page number, from 1; limited to the last page.
            size: number of users per page.
        """
        if not len(self.frame):
            return Hits([], 0, 1, 1)
        chosen = self._order.get(order, self._order["most"])
        wanted = None
        for word in query.lower().split()[:8]:
            found = self.frame["text"].str.contains(word, literal=True).to_numpy()
            wanted = found if wanted is None else wanted & found
        if only in ONLY and only:
            with_content = self.frame[only].to_numpy() > 0
            wanted = with_content if wanted is None else wanted & with_content
        if wanted is not None:
            chosen = chosen[wanted[chosen]]
        if query.strip():
            exact = (self.frame["user_id"] == query.strip()).to_numpy()[chosen]
            chosen = np.concatenate([chosen[exact], chosen[~exact]])
        pages = max(1, -(-len(chosen) // size))
        page = min(max(page, 1), pages)
        return Hits(
            self.frame[chosen[(page - 1) * size : page * size]].drop("text").to_dicts(), len(chosen), page, pages
        )


def _tally(run: RunFiles, role: str, n: int) -> np.ndarray:
    frame = run.examples.frame
    return (
        np.bincount(frame.filter(pl.col("role") == role)["user"], minlength=n) if len(frame) else np.zeros(n, np.int64)
    )

"""Which columns of a user table prompts may tell: no ids, no contact data, no text of one's own, nothing that gives answers away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from taiji.data.discovery.columns import Column
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import says
from taiji.data.identity import joined
from taiji.data.personal import private

OUTCOME = "next last latest recent first target label labels y answer outcome predicted prediction score total sum spent spend revenue ltv clv churn churned purchase purchases purchased bought order orders click clicks converted conversion rating frequency recency monetary letzte letzter nächste nächster summe umsatz gesamt 下次 最近 累计 总额 标签"
"""Names of columns that are made from what users did, for all of the log."""
LIKE_IDS = 0.9
"""Share of a column's values that are ids of items, from which on it names items."""
OWN_TEXT = 0.5
"""Share of different values from which on a text is a person's own."""


@dataclass(frozen=True)
class Profile:
    """Columns that may be told, and those that may not, each with the reason."""

    told: tuple[str, ...]
    left_out: dict[str, str]

    @property
    def doubt(self) -> str:
        """Return a sentence about the columns left out; empty where there are none."""
        if not self.left_out:
            return ""
        why = "; ".join(f"{name} ({reason})" for name, reason in self.left_out.items())
        return f"Left out of users.profile: {why}. To tell one all the same: --set 'users.profile=[COLUMN, …]'."


def profile(table: Table, columns: Sequence[Column], item_ids: Sequence[pl.Series]) -> Profile:
    """Choose the columns that prompts may tell about a user.

    Args:
        table: with the columns.
        columns: that could be told.
        item_ids: ids of items, as other columns have them.
    """
    told, left_out = [], {}
    for column in columns:
        reason = private(column.name, table.frame[column.name]) or _gives_away(table, column, item_ids)
        if reason:
            left_out[column.name] = reason
        elif tells(column):
            told.append(column.name)
    return Profile(tuple(told), left_out)


def tells(column: Column) -> bool:
    """Return whether it says something about a kind of user: not a key, not free text, not empty."""
    few = 2 <= column.distinct <= max(50, 0.02 * column.present)
    return (
        column.kind in ("text", "flag")
        and few
        and column.characters <= 40
        and (column.unique < OWN_TEXT or column.present < 10)
    ) or (column.kind in ("integer", "number") and not column.key and not column.units and column.distinct >= 2)


def _gives_away(table: Table, column: Column, item_ids: Sequence[pl.Series]) -> str:
    if column.kind in ("integer", "text") and "item" in column.means:
        return "names items"
    if column.kind in ("integer", "text") and column.distinct >= 5:
        for ids in item_ids:
            match = joined(ids, table.ids(column.name), column.name, "items").match
            texts = column.kind == "text" or says(column.name, OUTCOME)
            if texts and match.event_ids_known >= LIKE_IDS * match.event_ids:
                return "its values are ids of items"
    if says(column.name, OUTCOME):
        return "made from what users did, which a prompt must not know beforehand"
    return ""

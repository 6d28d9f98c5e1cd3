"""Choice of the user columns for prompts: no ids, no contact data, no personal text, nothing that leaks answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from taiji.data.discovery.columns import Column
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.words import MEANINGS, UNWANTED, parts, says
from taiji.data.identity import joined
from taiji.data.personal import private

OUTCOME = "rfm plays views visits sessions logins watched listened next last latest recent first target label labels y answer outcome predicted prediction score total sum spent spend revenue ltv clv churn churned purchase purchases purchased bought order orders click clicks converted conversion rating frequency recency monetary letzte letzter nächste nächster summe umsatz gesamt 下次 最近 累计 总额 标签"
"""Names of columns derived from behaviour over the whole log."""
WINDOW = re.compile(r"(^|_)(last_?)?\d+_?(d|days?|w|weeks?|m|months?|tage?|jours?)$")
"""End of the name of a count over a window of time (``n_plays_30d``)."""
LIKE_IDS = 0.9
"""Smallest share of a column's values that are item ids at which it counts as naming items."""
OWN_TEXT = 0.5
"""Smallest share of distinct values at which a text counts as personal."""


@dataclass(frozen=True)
class Profile:
    """Columns for prompts, and excluded ones with their reasons."""

    told: tuple[str, ...]
    left_out: dict[str, str]

    @property
    def doubt(self) -> str:
        """Return a sentence about the excluded columns; empty if there are none."""
        if not self.left_out:
            return ""
        why = "; ".join(f"{name} ({reason})" for name, reason in self.left_out.items())
        return f"Left out of users.profile: {why}. To tell one all the same: --set 'users.profile=[COLUMN, …]'."


def profile(table: Table, columns: Sequence[Column], item_ids: Sequence[pl.Series]) -> Profile:
    """Choose the columns that prompts may show about a user.

    Args:
        table: with the columns.
        columns: the candidates.
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
    """Return True if it describes a kind of user: not a key, not free text, not empty."""
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
    if column.understood.kind == "flag" and says(column.name, UNWANTED):
        return "marks rows behind which there is nobody's wish"
    if _names_user(column):
        return "another id of the user"
    if says(column.name, OUTCOME) or WINDOW.search(column.name.lower()):
        return "made from what users did, which a prompt must not know beforehand"
    return ""


def _names_user(column: Column) -> bool:
    """Return True if a name means only user and id: ``uid``, ``account_id``, ``customer``."""
    vocabulary = {*MEANINGS["user"].split(), *MEANINGS["id"].split()}
    return column.identifier and "user" in column.means and all(word in vocabulary for word in parts(column.name))

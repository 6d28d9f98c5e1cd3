"""Choose the user columns for prompts: no ids, no contact data, no personal text, and nothing that leaks the
outcome."""

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
"""Words in the names of columns that are derived from behaviour over the whole log."""
WINDOW = re.compile(r"(^|_)(last_?)?\d+_?(d|days?|w|weeks?|m|months?|tage?|jours?)$")
"""Pattern of column names that end in a time window (``n_plays_30d``)."""
LIKE_IDS = 0.9
"""A column is treated as a reference to items if at least this share of its values are item ids."""
OWN_TEXT = 0.5
"""A text column is treated as personal if at least this share of its values are distinct."""


@dataclass(frozen=True)
class Profile:
    """Choice of user columns for prompts.

    Attributes:
        told: columns that prompts show.
        left_out: reason for each excluded column, by column name.
    """

    told: tuple[str, ...]
    left_out: dict[str, str]

    @property
    def doubt(self) -> str:
        """Sentence about the excluded columns; empty if there are none."""
        if not self.left_out:
            return ""
        why = "; ".join(f"{name} ({reason})" for name, reason in self.left_out.items())
        return f"Left out of users.profile: {why}. To include one anyway, add --set 'users.profile=[COLUMN, …]'."


def profile(table: Table, columns: Sequence[Column], item_ids: Sequence[pl.Series]) -> Profile:
    """Choose the columns that prompts may show about a user.

    Args:
        table: table that contains the columns.
        columns: candidate columns.
        item_ids: distinct ids and titles of items, one series for each column that contains them.
    """
    shown, left_out = [], {}
    for column in columns:
        reason = private(column.name, table.frame[column.name]) or _reason_to_exclude(table, column, item_ids)
        if reason:
            left_out[column.name] = reason
        elif describes_users(column):
            shown.append(column.name)
    return Profile(tuple(shown), left_out)


def describes_users(column: Column) -> bool:
    """Return True if a column is a user attribute: not a key, not free text and not constant."""
    few = 2 <= column.distinct <= max(50, 0.02 * column.present)
    return (
        column.kind in ("text", "flag")
        and few
        and column.characters <= 40
        and (column.unique < OWN_TEXT or column.present < 10)
    ) or (column.kind in ("integer", "number") and not column.key and not column.units and column.distinct >= 2)


def _reason_to_exclude(table: Table, column: Column, item_ids: Sequence[pl.Series]) -> str:
    if column.kind in ("integer", "text") and "item" in column.means:
        return "refers to items"
    if column.kind in ("integer", "text") and column.distinct >= 5:
        for ids in item_ids:
            match = joined(ids, table.ids(column.name), column.name, "items").match
            texts = column.kind == "text" or says(column.name, OUTCOME)
            if texts and match.event_ids_known >= LIKE_IDS * match.event_ids:
                return "its values are item ids"
    if column.understood.kind == "flag" and says(column.name, UNWANTED):
        return "marks bot, test or cancelled rows"
    if _is_user_id(column):
        return "another id of the user"
    if says(column.name, OUTCOME) or WINDOW.search(column.name.lower()):
        return "derived from user behaviour, which a prompt must not reveal in advance"
    return ""


def _is_user_id(column: Column) -> bool:
    """Return True if a column is named like a user id and nothing else: ``uid``, ``account_id``, ``customer``."""
    vocabulary = {*MEANINGS["user"].split(), *MEANINGS["id"].split()}
    return column.identifier and "user" in column.means and all(word in vocabulary for word in parts(column.name))

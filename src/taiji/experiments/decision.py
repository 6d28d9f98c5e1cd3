"""Decision table on whether text, or a language model, is worth its cost.

It is based on the measured ladder, a series of rankers with more and more inputs (:mod:`taiji.experiments.ladder`), and
on facts about the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from taiji.core.number_format import number_text

NEW_ITEMS = 0.05
"""Smallest share of interactions with new items that the table calls large."""
SHORT = 10
"""Largest median number of distinct items in a history that the table calls short."""
MOST = 0.5
"""A rung (step of the ladder) counts as kept if the ranker keeps its fields in at least this share of seeds, as in
:mod:`taiji.experiments.ladder`."""
ITEM_TOKENS, USER_TOKENS = 250, 600
"""Tokens read and written for the knowledge about one item, and for the answer about one user, with the packaged
prompts."""


@dataclass(frozen=True)
class Decision:
    """Row of the table: a question, the measurements that answer it (``found``), and the conclusion (``says``)."""

    question: str
    found: str
    says: str


def decisions(facts: Mapping[str, float], rows: Sequence[Mapping[str, Any]], catalogue: int) -> list[dict[str, str]]:
    """Return the decision table as dicts of ``question, found, says``.

    Args:
        facts: facts about the log from :func:`taiji.experiments.uplift_trial.log_facts`.
        rows: rows of :func:`taiji.experiments.ladder.climb` for a single ranking model.
        catalogue: number of items.
    """
    whole = [row for row in rows if row["group"] == "all" and "gain" in row]
    text = _of(whole, lambda name: name.startswith("2 ") and "control" not in name)
    control = _of(whole, lambda name: "permuted" in name)
    oracle = _of(whole, lambda name: name.startswith("4 "))
    cold = _of(
        [row for row in rows if row["group"] == "cold items" and "gain" in row],
        lambda name: name.startswith("2 ") and "control" not in name,
    )
    base = _of(whole, lambda name: name.startswith("1 "))
    users = int(facts["users"])
    table = [
        Decision(
            "Do collaborative fields improve on counts?",
            f"gain of collaborative fields over counts: {gap(base)}",
            _sign(
                base,
                "Keep `collaborative` on.",
                "No gain over counts is shown, and no harm: `collaborative` may stay on.",
                "Remove `collaborative` from `ranking.pair_fields`.",
            ),
        ),
        Decision(
            "Are the titles informative?",
            f"gain of text match over collaborative fields: {gap(text)}{_kept_text(text)}; with permuted texts: {gap(control)}; {facts['distinct_titles']:.0%} of the texts are distinct; a text has {facts['words']:.1f} words on average",
            _titles(text, control),
        ),
        Decision(
            "How many interactions are with new items?",
            f"{facts['new_items']:.1%} of the interactions in the test period are with items without an event before that period; text match there: {gap(cold)}",
            "This share is large, and counts and neighbours contain nothing about these items. "
            + _sign(cold, "Text pays off there.", "No gain from text is shown there.", "Text does harm there.")
            if facts["new_items"] >= NEW_ITEMS
            else "This share is small: counts and neighbours cover almost all interactions.",
        ),
        Decision(
            "How long are the histories?",
            f"a median of {facts['history']:g} distinct items before a test row",
            "The histories are short, so a model that reads them has little to read. Try knowledge about items first."
            if facts["history"] <= SHORT
            else "The histories are long enough to reveal a taste.",
        ),
        Decision(
            "What could a correct answer about users add?",
            f"gain of the true next items (except those at a test row's own time) over {_base(oracle)}: {gap(oracle)}",
            _sign(
                oracle,
                "A language model that predicts the next items could help, but no real model is always right."
                if _over_text(oracle)
                else "A language model could help a ranker without text. Whether it could also help a ranker with text was not measured, because text did not pay off.",
                "No gain is shown: this ranker does not measurably gain even from correct answers about users.",
                "Even the true next items make this ranker worse, so nothing follows about a language model. "
                "Try more data or other settings first.",
            ),
        ),
        Decision(
            "What does it cost?",
            f"about {_tokens(catalogue * ITEM_TOKENS)} tokens for all {catalogue:,} items once; about {_tokens(users * USER_TOKENS)} per refresh of {users:,} users",
            "Items are cheaper than one refresh of the users."
            if catalogue * ITEM_TOKENS < users * USER_TOKENS
            else "One refresh of the users is cheaper than the whole catalogue.",
        ),
    ]
    return [asdict(line) for line in table]


def _over_text(oracle: Mapping[str, Any] | None) -> bool:
    return oracle is None or str(oracle.get("against", "2 text match")).startswith("2 text match")


def _base(oracle: Mapping[str, Any] | None) -> str:
    """Return the name of the rung with which the oracle is compared: text match, or the rung before it if text did not
    pay off."""
    if oracle is None or _over_text(oracle):
        return "text match"
    return str(oracle["against"]).partition(" ")[2]


def _of(rows: Sequence[Mapping[str, Any]], fits: Callable[[str], bool]) -> Mapping[str, Any] | None:
    return next((row for row in rows if fits(str(row["rung"]))), None)


def gap(row: Mapping[str, Any] | None) -> str:
    """Return a gain with its interval as text."""
    if row is None or row.get("gain") is None:
        return "not measured"
    text = number_text(row["gain"], 4, signed=True)
    if row.get("low") is None:
        return f"{text} (too few users for an interval)"
    return f"{text} [{number_text(row['low'], 4, signed=True)}, {number_text(row['high'], 4, signed=True)}] AUC"


def sign(row: Mapping[str, Any] | None) -> int | None:
    """Return 1 if the interval lies above zero, −1 if it lies below, 0 if it includes zero, None without an
    interval."""
    if row is None or row.get("low") is None:
        return None
    return 1 if row["low"] > 0 else -1 if row["high"] < 0 else 0


def _sign(row: Mapping[str, Any] | None, better: str, level: str, worse: str) -> str:
    found = sign(row)
    return "Too little data to decide." if found is None else {1: better, 0: level, -1: worse}[found]


def is_kept(row: Mapping[str, Any] | None) -> bool | None:
    """Return True if the ranker keeps the rung's fields in at least half of the seeds, None if this was not
    measured."""
    if row is None or row.get("kept") is None:
        return None
    return float(row["kept"]) >= MOST


def _kept_text(row: Mapping[str, Any] | None) -> str:
    """Return a text on the share of seeds in which the ranker keeps the fields; empty if this was not measured.

    If the ranker keeps the fields in some seeds but not in all, the text contains the ranker's own gain.
    """
    if row is None or row.get("kept") is None:
        return ""
    share = f"the ranker keeps them in {float(row['kept']):.0%} of the seeds"
    own = _own(row)
    return f" with the fields in use ({share}{f'; over all seeds, it gains {gap(own)}' if own else ''})"


def _own(row: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the gain of the ranker that drops the fields in some of the seeds; None if it keeps or drops them in
    all."""
    if row is None or row.get("kept_low") is None or not 0 < float(row.get("kept") or 0) < 1:
        return None
    return {name: row[f"kept_{name}"] for name in ("gain", "low", "high")}


def _titles(text: Mapping[str, Any] | None, control: Mapping[str, Any] | None) -> str:
    """Return the conclusion about titles, from the gain of the trained fields and from whether the ranker keeps
    them."""
    if sign(text) == 1 and sign(control) == 1:
        return "The gain is not due to the text alone, because permuted texts help as well. Do not attribute the gain to the titles."
    if is_kept(text) is False:
        return _sign(
            text,
            "Text helps on the test rows. But its gain on the training rows is too small, so the default ranker drops `text_match` and gains nothing. Try more rows or a better embedder.",
            "No gain is shown from text beyond the log's own signals, and rankers with the default fields drop `text_match`.",
            "No: rankers with the default fields drop `text_match` automatically where it does not pay off.",
        )
    if sign(text) == 1 and (own := _own(text)) is not None and sign(own) != 1:
        return "Text helps a ranker that always reads it. But the default ranker drops it in some of the seeds, so its own gain is not shown. Try more rows, or `{field: text_match}` without `must_pay`."
    return _sign(
        text,
        "Yes: leave `text_match` on; richer texts and knowledge about items may add more.",
        "No gain is shown from text beyond the log's own signals.",
        "No: text does harm here, though it seemed to pay off on the training rows. Remove `text_match` from `ranking.pair_fields`."
        if is_kept(text)
        else "No: remove `text_match` from `ranking.pair_fields`.",
    )


def _tokens(count: int) -> str:
    return f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count:,}"

"""View of all content of a run about one user: profile, timeline, and each prompt or feature row with its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from taiji.data import PERIODS
from taiji.inspector.run_view import RunFiles
from taiji.pipeline.names import ARMS, MODELS
from taiji.reasoning.answers import parse
from taiji.reasoning.prompts import prompt_as_asked

EVENTS = 30
"""Number of events per page of the timeline."""
ROLES = {
    "rationale": "Rationale prompt",
    "calibration": "Calibration prompt",
    "alignment": "Alignment prompt",
    "test": "Test prompt",
    "feature": "Feature row",
}


@dataclass(frozen=True)
class Moment:
    """Prompt or feature row of a user at one time. It uses only data strictly before ``as_of`` (microseconds)."""

    role: str
    as_of: int
    example: str
    target: int | None
    targets: tuple[int, ...] = ()
    """Next items if the answer is a set, the target first."""

    @property
    def title(self) -> str:
        """Title to display."""
        return ROLES.get(self.role, self.role)


def moments_of(run: RunFiles, user: int) -> list[Moment]:
    """Return the prompts and feature rows of a user, the oldest first."""
    prompts = [
        Moment(row["role"], row["as_of"], row["example"], row["target"], tuple(row.get("targets") or ()))
        for row in run.examples.of(user)
    ]
    rows = [Moment("feature", row["as_of"], row["example"], None) for row in run.completions.of(user)]
    order = list(ROLES)
    return sorted(
        prompts + rows,
        key=lambda moment: (moment.as_of, order.index(moment.role) if moment.role in ROLES else len(order)),
    )


def items_of(run: RunFiles, items: Sequence[int]) -> list[dict[str, Any]]:
    """Return title, category path and id of items, in the given order."""
    dataset = run.dataset
    if dataset is None or not len(items):
        return []
    names = ("item", "item_id", "title", *dataset.levels)
    rows = dataset.items[np.asarray(items, dtype=np.int64)].select(names).to_dicts()
    return [{**row, "path": " › ".join(row[name] for name in names[3:] if row[name])} for row in rows]


def about(run: RunFiles, user: int) -> dict[str, Any]:
    """Return the original id and the profile of a user, and counts of interactions and exposures."""
    dataset = run.dataset
    assert dataset is not None
    row = dataset.users.row(user, named=True)
    events = run.events.part(user)
    return {
        "user": user,
        "user_id": str(row["user_id"]),
        "profile": {
            name.replace("_", " "): str(value)
            for name, value in row.items()
            if name not in ("user", "user_id") and value is not None
        },
        "interactions": int((events["click"] == 1).sum()),
        "exposures": int(events["exposed"].sum()),
    }


def timeline(run: RunFiles, user: int, moments: Sequence[Moment], *, clicks_only: bool, page: int) -> dict[str, Any]:
    """Return one page of the events of a user, newest first, together with the prompts, the feature rows and the
    boundaries of periods."""
    part = run.events.part(user)
    if clicks_only:
        part = part.filter(part["click"] == 1)
    times = part["time"].to_numpy()
    pages = max(1, -(-len(part) // EVENTS))
    page = min(max(page, 1), pages)
    end = len(part) - (page - 1) * EVENTS
    start = max(0, end - EVENTS)
    rows = part[start:end].reverse().to_dicts()
    described = items_of(run, [row["item"] for row in rows])
    entries: list[dict[str, Any]] = [
        {
            "kind": "event",
            "time": row["time"],
            "when": when(row["time"]),
            "what": what,
            "price": row["price"],
            "marks": _marks(row),
        }
        for row, what in zip(rows, described)
    ]
    newest = np.iinfo(np.int64).max if page == 1 else int(times[end])
    oldest = np.iinfo(np.int64).min if page == pages else int(times[start])
    for number, moment in enumerate(moments):
        if oldest < moment.as_of <= newest:
            entries.append(
                {"kind": "moment", "time": moment.as_of, "when": when(moment.as_of), "number": number, "moment": moment}
            )
    split = run.split
    if split is not None:
        for period in PERIODS:
            begin = split.interval(period)[0]
            if oldest < begin <= newest:
                entries.append({"kind": "period", "time": begin, "when": when(begin), "period": period})
    # Entries are sorted newest first. At equal times, events come before prompts, because an event at ``as_of`` is not
    # part of the prompt's history. Prompts come before period boundaries.
    rank = {"event": 0, "moment": 1, "period": 2}
    entries.sort(key=lambda entry: (-entry["time"], rank[entry["kind"]]))
    return {"entries": entries, "page": page, "pages": pages, "total": len(part), "clicks_only": clicks_only}


def page_at(run: RunFiles, user: int, as_of: int, clicks_only: bool) -> int:
    """Return the page of the timeline that contains the time ``as_of``."""
    part = run.events.part(user)
    if clicks_only:
        part = part.filter(part["click"] == 1)
    return int((part["time"] >= as_of).sum()) // EVENTS + 1


def _marks(row: dict[str, Any]) -> list[str]:
    marks = ["shown"] if row["exposed"] else []
    return marks + (["click"] if row["click"] else []) + (["conversion"] if row["conversion"] else [])


def view(run: RunFiles, user: int, moment: Moment) -> dict[str, Any]:
    """Return the content of one prompt or feature row: prompt, rationales, answers, rollouts and features."""
    target = items_of(run, [moment.target])[0] if moment.target is not None else None
    return {
        "moment": moment,
        "when": when(moment.as_of),
        "target": target,
        "targets": items_of(run, moment.targets),
        "prompt": prompt_of(run, user, moment),
        "rationales": _rationales(run, moment),
        "answers": [answer for model in MODELS for answer in [_answer(run, model, moment)] if answer],
        "rollouts": rollouts_of(run, run.rollouts.of(moment.example)) if moment.role == "alignment" else [],
        "row": _feature_row(run, user, moment) if moment.role == "feature" else None,
    }


def prompt_of(run: RunFiles, user: int, moment: Moment) -> dict[str, Any] | None:
    """Return the rebuilt student prompt, which does not contain the target, and its numbers of shown and omitted
    interactions.

    ``noted`` is False if the run did not record how many interactions the prompt had. The limit in the settings is then
    used.
    """
    dataset = run.dataset
    assert dataset is not None
    settings = run.config.reasoning.prompts
    if moment.role == "feature":
        kept = next((row["kept"] for row in run.completions.of(user) if row["as_of"] == moment.as_of), None)
    else:
        kept = run.kept_lines.get(moment.example)
    prompt = prompt_as_asked(
        dataset, user, moment.as_of, settings, settings.history_limit if kept is None else int(kept)
    )
    return {"messages": prompt.messages, "kept": prompt.kept, "dropped": prompt.dropped, "noted": kept is not None}


def _rationales(run: RunFiles, moment: Moment) -> list[dict[str, Any]]:
    """Return the rationales with their verdicts, kept ones first. Rationales of calibration prompts have no verdict."""
    if moment.role == "rationale":
        rows = run.verdicts.of(moment.example) or [{**row, "kept": None} for row in run.rationales.of(moment.example)]
    elif moment.role == "calibration":
        rows = [{**row, "kept": None} for row in run.rationales.of(moment.example)]
    else:
        return []
    return sorted(rows, key=lambda row: (not row["kept"], row["sample"]))


def _answer(run: RunFiles, model: str, moment: Moment) -> dict[str, Any] | None:
    if moment.role != "test":
        return None
    row = next(iter(run.answers(model).of(moment.example)), None)
    if row is None:
        return None
    grounded = sorted(
        (near for near in run.grounding.of(moment.example) if near["model"] == model), key=lambda near: near["place"]
    )
    found = [
        {**near, **what, "true": near["item"] in (moment.targets or (moment.target,))}
        for near, what in zip(grounded, items_of(run, [near["item"] for near in grounded]))
    ]
    return {
        "model": model,
        **said(run, row["completion"]),
        "grounded": found,
        "target_place": grounded[0]["target_place"] if grounded else None,
    }


def said(run: RunFiles, completion: str) -> dict[str, Any]:
    """Return a completion, its parsed answer and, if the answer is a set, its intents."""
    most = run.config.reasoning.prompts.most
    answer = parse(completion, most=most)
    return {"completion": completion, "answer": answer, "intents": answer.intents if most > 1 else ()}


def rollouts_of(run: RunFiles, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rollouts with the names of their grounded items."""
    grounded = [row.get("items") or [row["item"]] if row.get("item") is not None else [] for row in rows]
    names = {what["item"]: what for what in items_of(run, sorted({item for items in grounded for item in items}))}
    return [
        {**row, **said(run, row["completion"]), "grounded": [names[item] for item in dict.fromkeys(items)]}
        for row, items in zip(rows, grounded)
    ]


def _feature_row(run: RunFiles, user: int, moment: Moment) -> dict[str, Any]:
    """Return the completion and features of a feature row, and the ranker predictions for the exposures that use it."""
    dataset = run.dataset
    assert dataset is not None
    written = next((row for row in run.completions.of(user) if row["as_of"] == moment.as_of), None)
    arms = {arm: row for arm in ARMS for row in run.features(arm).of(user) if row["as_of"] == moment.as_of}
    before, _ = dataset.history.before(user, moment.as_of)
    known, everything = set(before.tolist()), run.events.part(user)
    later = set(everything.filter((everything["click"] == 1) & (everything["time"] >= moment.as_of))["item"].to_list())
    neighbours = {}
    for arm, row in arms.items():
        neighbour_items = row["neighbour_items"] or []
        neighbours[arm] = {
            "ids": row["ids"],
            "user": row["neighbour"],
            "user_id": None if row["neighbour"] is None else str(dataset.users["user_id"][row["neighbour"]]),
            "similarity": row["similarity"],
            "items": [
                {**what, "had": what["item"] in known, "later": what["item"] in later}
                for what in items_of(run, neighbour_items)
            ],
            "made_by": row["model_version"],
            "intents": _intents(row),
        }
        neighbours[arm]["new"] = sum(not what["had"] for what in neighbours[arm]["items"])
        neighbours[arm]["hits"] = len(
            {what["item"] for what in neighbours[arm]["items"] if what["later"] and not what["had"]}
        )
    known_from = {row["as_of"]: row.get("available_at", row["as_of"]) for row in run.features("taiji").of(user)}
    available = known_from.get(moment.as_of, moment.as_of)
    following = sorted(at for as_of, at in known_from.items() if as_of > moment.as_of)
    shown = [
        row for row in run.judged.of(user) if row["time"] > available and (not following or row["time"] <= following[0])
    ]
    return {
        "said": said(run, written["completion"]) if written else None,
        "arms": neighbours,
        "exposures": _exposures(run, shown),
    }


def _intents(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the weight and the category path of each intent of a feature row."""
    return [
        {"weight": weight, "path": " › ".join(level for level in levels if level)}
        for weight, levels in zip(row.get("intent_weights") or (), row.get("intent_levels") or ())
    ]


def _exposures(run: RunFiles, rows: Sequence[dict[str, Any]], most: int = 12) -> dict[str, Any]:
    """Return the first ``most`` exposures with the click probability that each ranker predicts.

    Args:
        run: run of the exposures.
        rows: test exposures for which the feature row was the newest available one.
        most: largest number of exposures to return.
    """
    arms = [name.removeprefix("click ") for name in (rows[0] if rows else {}) if name.startswith("click ")]
    arms.sort(key=lambda arm: (arm != "none", arm))
    what = items_of(run, [row["item"] for row in rows[:most]])
    shown = [
        {"when": when(row["time"]), "what": item, "click": row["click"], "told": [row[f"click {arm}"] for arm in arms]}
        for row, item in zip(rows, what)
    ]
    return {"arms": arms, "rows": shown, "total": len(rows)}


def when(micros: int) -> str:
    """Format a timestamp in microseconds as UTC date and time, to the minute."""
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:%M")

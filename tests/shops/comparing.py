"""What a reader made of a shop, beside the truth: every difference, and whether the reader said so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.shops.defects import counted
from tests.shops.tables import FACETS, ExpectedRow, Shop

from taiji.pipeline.initialise import Initialised

Row = tuple[Any, ...]
NUMBER = re.compile(r"^-?\d+(\.0+)?$")


@dataclass(frozen=True)
class Difference:
    """One thing that is not as written.

    Attributes:
        place: ``rows``, ``titles``, a facet, …
        detail: a few examples.
        told: a sentence of the reader names it.
    """

    place: str
    detail: str
    told: bool


def said(made: Initialised) -> list[str]:
    """Return what the reader tells a person: its doubts, the notes, and its account of what was not used as written."""
    reading = made.dataset.reading
    files = reading.files if reading else ()
    left = [entry.text for file in files for entry in file.left_out]
    cells = [column.text for file in files for column in file.columns if column.understood < column.values]
    return [*made.doubts, *made.dataset.notes, *left, *cells, *(note for file in files for note in file.notes)]


def differences(shop: Shop, made: Initialised) -> list[Difference]:
    """Compare what was loaded with the truth."""
    told = said(made)
    found = [*_rows(shop, made, told), *_items(shop, made, told), *_users(shop, made, told)]
    if not found and shop.told and not _names(told, shop.told):
        found.append(Difference("defect", f"nothing names any of {shop.told}", False))
    return found


def _names(sentences: Iterable[str], patterns: Iterable[str]) -> bool:
    asked = "|".join(pattern for pattern in patterns if pattern)
    return (
        any(re.search(rf"(?<![a-zA-Z0-9_])({asked})(?![a-zA-Z0-9_])", sentence) for sentence in sentences)
        if asked
        else False
    )


def _nameless(shop: Shop) -> bool:
    """Tell whether the columns have no names: what values alone do not tell is listed as not used, and more cannot be
    done."""
    return shop.choices["names"] == "nameless" or shop.choices["header"] == "none"


def _column_names(shop: Shop, role: str) -> list[str]:
    tables = [table for table in (shop.log, shop.items, shop.users) if table]
    found = [column for table in tables for column in table.columns if column.role == role]
    names = [column.name.strip() for column in found]
    if shop.choices["header"] == "none":
        places = [t.columns.index(c) + 1 for t in tables for c in t.columns if c.role == role]
        names += [f"column_{place}" for place in places]
    return names


class _Numbers:
    """Numbers of the truth's users or items by any right spelling of their ids."""

    def __init__(self, shop: Shop, who: str, count: int) -> None:
        form = shop.id_form(who)
        self.known: dict[str, int] = {}
        for number in range(count):
            for text in (form.log(number), form.in_table(number)):
                self.known[text.strip()] = number
                if form.table is not None and NUMBER.match(text.strip()):
                    self.known[str(int(float(text)))] = number

    def of(self, value: Any) -> Any:
        """Return the number; an id that is none of the truth's as it is."""
        return self.known.get(str(value).strip(), str(value))


def _rows(shop: Shop, made: Initialised, told: list[str]) -> list[Difference]:
    dataset, truth = made.dataset, shop.truth
    users = _Numbers(shop, "user", len(truth.towns))
    items = _Numbers(shop, "item", len(truth.items))
    user_numbers = [users.of(value) for value in dataset.users["user_id"].to_list()]
    item_numbers = [items.of(value) for value in dataset.items["item_id"].to_list()]
    found = []
    for who, numbers in (("user", user_numbers), ("item", item_numbers)):
        twice = [number for number, count in Counter(map(str, numbers)).items() if count > 1]
        if twice:
            found.append(Difference(f"{who} ids", f"one {who} became several: {twice[:3]}", False))
    events = dataset.events
    if made.proposal is not None and made.proposal.values.get("events", {}).get("non_clicks"):
        events = events.filter(events["click"] == 1)  # the others are sampled beside the log's
    names = _facet_names(shop, made)
    got: list[dict[str, Any]] = []
    for row in events.iter_rows(named=True):
        core = (user_numbers[row["user"]], item_numbers[row["item"]], shop.time.read(row["time"]))
        got.append({"core": core, **{facet: row.get(name) for facet, name in names.items()}})
    missing, extra, dropped = _matched(shop.rows, [(row["core"],) for row in got], None)
    if missing or extra:
        absent = len(shop.rows) - len(got)
        known = _names(told, [counted(absent)]) if missing and not extra else False
        known = known or (bool(missing) and not extra and _unused_file(shop, made, told))
        detail = f"{len(missing)} missing, {len(extra)} not of the truth; e.g. {missing[:2]} and {extra[:2]}"
        return [*found, Difference("rows", detail, known)]
    if dropped and not _names(told, [counted(dropped), *shop.told]):
        found.append(Difference("rows", f"{dropped} left out, and nobody says so", False))
    for facet in FACETS:
        if facet == "conversion" and shop.choices["signal"] == "rating":
            found += _by_rating(shop, got, told)
            continue
        if facet in ("seconds", "quantity", "liked") and facet not in names:
            continue  # named among the columns that play no part
        pairs = [(row["core"], _plain(row.get(facet))) for row in got]
        missing, extra, _ = _matched(shop.rows, pairs, facet)
        if missing or extra:
            roles = {"click": ("click", "action"), "conversion": ("conversion", "action")}.get(facet, (facet,))
            words = [re.escape(name) for role in roles for name in _column_names(shop, role)]
            detail = f"{len(missing)} of {len(got)} differ; e.g. {missing[:2]} became {extra[:2]}"
            announced = facet in ("click", "conversion", "price") and (_names(told, words) or _nameless(shop))
            announced = announced or (shop.choices["signal"] == "behaviours" and _unused_file(shop, made, told))
            found.append(Difference(facet, detail, announced))
    return found


def _unused_file(shop: Shop, made: Initialised, told: list[str]) -> bool:
    """Tell whether the reader says that some of the log's files play no part."""
    if shop.choices["layout"] not in ("behaviours", "parts beside"):
        return False
    unused = made.proposal.unused if made.proposal else {}
    used = (
        {table.path.name for table in vars(made.proposal.roles).values() if hasattr(table, "path")}
        if made.proposal
        else set()
    )
    return bool(set(unused) - used) or _names(told, ["not used"])


def _plain(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else int(value) if isinstance(value, bool) else value


def _facet_names(shop: Shop, made: Initialised) -> dict[str, str]:
    """Return facet to column of the dataset's events."""
    names = {"click": "click", "conversion": "conversion", "price": "price"}
    proposal = made.proposal
    labels = proposal.values["events"].get("labels", {}) if proposal else {}
    for facet in ("seconds", "quantity", "liked"):
        columns = _column_names(shop, facet)
        for name, label in labels.items():
            if (label or {}).get("column", name).strip() in columns:
                names[facet] = name
    return names


def _matched(rows: list[ExpectedRow], got: list[Row], facet: str | None) -> tuple[list[Row], list[Row], int]:
    """Return rows that are missing, rows that are nowhere in the truth, and how many were rightly left out."""
    left = Counter(got)
    missing, open_rows = [], []
    for row in rows:
        values = (None,) if facet is None else row.cells[facet]
        options = [(core,) if facet is None else (core, _plain(value)) for core in row.cores for value in values]
        if len(options) == 1 and not row.droppable:
            if left[options[0]] > 0:
                left[options[0]] -= 1
            else:
                missing.append(options[0])
        else:
            open_rows.append((row, options))
    dropped = 0
    for row, options in open_rows:
        match = next((option for option in options if left[option] > 0), None)
        if match is not None:
            left[match] -= 1
        elif row.droppable:
            dropped += 1
        else:
            missing.append(options[0] if options else ())
    return missing, [row for row, count in left.items() for _ in range(count)], dropped


def _by_rating(shop: Shop, got: list[dict[str, Any]], told: list[str]) -> list[Difference]:
    """Check that the ratings that convert are those above some bar, and that a missing one is unknown."""
    counts = Counter(row.cores[0] for row in shop.rows if row.cores)  # a day may have one pair several times
    ratings = {row.cores[0]: row.cells["conversion"][0] for row in shop.rows if row.cores and counts[row.cores[0]] == 1}
    converted: dict[Any, set[int]] = {0: set(), 1: set(), None: set()}
    for row in got:
        if row["core"] in ratings:
            converted[row["conversion"]].add(ratings[row["core"]])
    unknown = {None} if None in ratings.values() else set()
    right = converted[None] == unknown and None not in converted[0] | converted[1] and converted[0] and converted[1]
    if right and max(converted[0]) < min(converted[1]):
        return []
    known = _nameless(shop) or _names(told, map(re.escape, _column_names(shop, "rating")))
    return [Difference("conversion", f"by rating: {converted}", known)]


def _items(shop: Shop, made: Initialised, told: list[str]) -> list[Difference]:
    frame = made.dataset.items
    numbers = _Numbers(shop, "item", len(shop.catalogue))
    got = {numbers.of(row["item_id"]): row for row in frame.iter_rows(named=True)}
    found = []
    strange = [key for key in got if not isinstance(key, int)]
    if strange:
        found.append(Difference("item ids", f"not of the truth: {strange[:3]}", False))
    wrong: dict[str, list[str]] = {}
    levels = made.dataset.levels
    for number, item in enumerate(shop.catalogue):
        row = got.get(number)
        if row is None:
            if None not in item.titles:
                wrong.setdefault("titles", []).append(f"item {number} is missing")
            continue
        title = row["title"] and str(row["title"]).strip()
        if title not in [text and text.strip() for text in item.titles]:
            wrong.setdefault("titles", []).append(f"{item.titles} became {row['title']!r}")
        given = tuple(row[level] for level in levels)
        if (item.levels and given[: len(item.levels)] != item.levels[: len(given)]) or (item.levels and not given):
            wrong.setdefault("levels", []).append(f"{item.levels} became {given}")
        if _plain(row["price"]) not in item.prices:
            wrong.setdefault("item price", []).append(f"{item.prices} became {row['price']}")
    roles = {"titles": ("title",), "levels": ("level1", "level2", "level3", "levels"), "item price": ("price",)}
    for place, examples in wrong.items():
        words = [re.escape(name) for role in roles[place] for name in _column_names(shop, role)]
        found.append(
            Difference(
                place,
                f"{len(examples)} of {len(shop.catalogue)}: {examples[:2]}",
                _names(told, words) or _nameless(shop),
            )
        )
    return found


def _users(shop: Shop, made: Initialised, told: list[str]) -> list[Difference]:
    frame, truth = made.dataset.users, shop.truth
    profile = [name for name in frame.columns if name not in ("user", "user_id")]
    secret = [
        name for name in profile if name.strip() in (*_column_names(shop, "email"), *_column_names(shop, "phone"))
    ]
    found = [Difference("profile", f"tells {secret}", False)] if secret else []
    numbers = _Numbers(shop, "user", len(truth.towns))
    known = {"town": truth.towns, "age": tuple(map(str, truth.ages))}
    for role, values in known.items():
        for name in set(profile) & set(_column_names(shop, role)):
            wrong = [
                (numbers.of(key), value)
                for key, value in frame.select("user_id", name).iter_rows()
                if isinstance(numbers.of(key), int) and str(value) != values[numbers.of(key)]
            ]
            if wrong:
                found.append(Difference(f"profile {role}", f"{wrong[:3]}", False))
    return found

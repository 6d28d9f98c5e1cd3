"""The columns of a shop's files: what the truth looks like when it is written in the chosen forms."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.shops.time_forms import TIMES, TimeForm
from tests.shops.truth import Event, Truth
from tests.shops.value_forms import ACTIONS, IDS, LABELS, NAMES, NUMBERS, IdForm, kept

FACETS = ("click", "conversion", "price", "seconds", "quantity", "liked")
"""What is compared of a row beside user, item and time."""


@dataclass
class Column:
    """One column of a file.

    Attributes:
        role: a key of :data:`~tests.shops.value_forms.NAMES`.
        texts: as they stand in a text file; None is an empty cell.
        typed: as they stand in a typed file; None writes the texts there too.
    """

    role: str
    name: str
    texts: list[str | None]
    typed: list[Any] | None = None

    def put(self, row: int, text: str | None, value: Any = None) -> None:
        """Write another cell."""
        self.texts[row] = text
        if self.typed is not None:
            self.typed[row] = value


@dataclass
class Table:
    """One file before it is written; ``rows`` are the numbers of the truth's events (or of items, users) by row."""

    name: str
    columns: list[Column]
    rows: list[int]

    def column(self, role: str) -> Column | None:
        """Return the column that plays a role."""
        return next((column for column in self.columns if column.role == role), None)

    def take(self, places: Iterable[int], name: str) -> Table:
        """Return some of the rows as a table of their own."""
        places = list(places)
        columns = [
            Column(
                column.role,
                column.name,
                [column.texts[place] for place in places],
                None if column.typed is None else [column.typed[place] for place in places],
            )
            for column in self.columns
        ]
        return Table(name, columns, [self.rows[place] for place in places])


@dataclass
class ExpectedRow:
    """What a right reader makes of a row.

    Attributes:
        cores: (user, item, time) that are right; one, except where a defect leaves it open.
        cells: facet to the values that are right.
        droppable: it may be left out, if that is said.
    """

    cores: list[tuple[int, int, int]]
    cells: dict[str, tuple[Any, ...]]
    droppable: bool = False


@dataclass
class ExpectedItem:
    """What a right reader makes of an item; None among the titles allows that the item is missing."""

    titles: tuple[str | None, ...]
    levels: tuple[str, ...]
    prices: tuple[float | None, ...]


@dataclass
class Shop:
    """A shop about to be written.

    Attributes:
        choices: axis to form.
        log, items, users: the tables; None where the layout has none.
        rows, catalogue: what is right.
        place: words of which an error about the planted defect must name one.
        told: patterns of which a right reader's sentences hold one, because a cell or row is not as written.
        after: changes to the written lines of a file: (table, what).
        beside: further files by name.
        rng: for choices of place.
    """

    choices: Mapping[str, str]
    truth: Truth
    log: Table
    items: Table | None
    users: Table | None
    rows: list[ExpectedRow]
    catalogue: list[ExpectedItem]
    rng: random.Random
    place: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    after: tuple[str, int] | None = None
    beside: dict[str, bytes] = field(default_factory=dict)

    @property
    def names(self) -> Mapping[str, str]:
        """Column and file names by role."""
        return NAMES[self.choices["names"]]

    @property
    def time(self) -> TimeForm:
        """Form of its times."""
        return TIMES[self.choices["time"]]

    def id_form(self, who: str) -> IdForm:
        """Return the form of ``user`` or ``item`` ids."""
        return IDS[self.choices[f"{who} ids"]]


def build(choices: Mapping[str, str], truth: Truth, seed: int) -> Shop:
    """Write the truth into columns as the choices say; no defect is in them yet."""
    rng = random.Random(seed + 1)
    shop = Shop(choices, truth, Table("", [], []), None, None, [], [], rng)
    order = list(range(len(truth.events)))
    if choices["order"] == "shuffled":
        rng.shuffle(order)
    shop.log = _log(shop, order)
    joined = choices["layout"] == "joined"
    if choices["layout"] not in ("joined", "log"):
        shop.items = _items(shop)
    if choices["layout"] in ("users", "recbole"):
        shop.users = _users(shop)
    shop.rows = [_expected(shop, event) for event in truth.events]
    met = {event.item for event in truth.events}
    count = _depth(choices)
    for number, item in enumerate(truth.items):
        there = choices["layout"] not in ("joined", "log") or number in met
        title = shop.id_form("item").log(number) if choices["layout"] == "log" else item.title
        levels = item.levels[:count] if choices["layout"] != "log" else ()
        price = kept(choices["numbers"], item.price) if choices["price"] == "items" and shop.items is not None else None
        if choices["price"] == "items" and joined:
            price = None  # stands in the log's rows, and is compared there
        shop.catalogue.append(ExpectedItem((title,) if there else (None,), levels, (price,)))
    return shop


def _depth(choices: Mapping[str, str]) -> int:
    return {"0": 0, "1": 1, "2": 2}.get(choices["levels"], 3)


def _expected(shop: Shop, event: Event) -> ExpectedRow:
    signal = shop.choices["signal"]
    click, conversion = 1, None
    if signal in ("click", "counts"):
        click = event.click
    elif signal == "click, purchase" or signal == "action":
        click, conversion = event.click, event.conversion
    elif signal == "purchase":
        click = event.conversion  # the only label serves as the click
    elif signal == "rating":
        conversion = event.rating  # compared by order: which ratings convert is the reader's rule
    return _row(shop, event, {"click": (click,), "conversion": (conversion,)})


def _row(shop: Shop, event: Event, labels: dict[str, tuple[Any, ...]]) -> ExpectedRow:
    layout, price, further = (shop.choices[axis] for axis in ("layout", "price", "further"))
    priced = price == "log" or (layout == "joined" and price == "items")
    return ExpectedRow(
        [(event.user, event.item, shop.time.kept(event.time))],
        {
            **labels,
            "price": (kept(shop.choices["numbers"], event.price) if priced else None,),
            "seconds": (event.seconds if further in ("seconds", "all") else None,),
            "quantity": (event.quantity if further in ("quantity", "all") else None,),
            "liked": (event.liked if further in ("liked", "all") else None,),
        },
    )


def _column(shop: Shop, role: str, texts: list[str | None], typed: list[Any] | None = None) -> Column:
    return Column(role, shop.names[role], texts, typed)


def _ids(shop: Shop, who: str, numbers: list[int], *, table: bool = False) -> Column:
    form = shop.id_form(who)
    texts = [form.in_table(number) if table else form.log(number) for number in numbers]
    typed = None
    if form.typed is not None:
        typed = [int(text) if table and form.typed is float else form.typed(text) for text in texts]
    return _column(shop, who, list(texts), typed)


def _numbers(shop: Shop, role: str, values: list[float], axis: str) -> Column:
    plain = shop.choices[axis] in ("plain", "two places", "exponent", "plus", "bare point")
    return _column(
        shop, role, [NUMBERS[shop.choices[axis]](value) for value in values], list(values) if plain else None
    )


def _label(shop: Shop, role: str, values: list[int], form_name: str) -> Column:
    form = LABELS[form_name]
    texts: list[str | None] = [form.yes if value else form.no or None for value in values]
    typed = None if form.typed is None else [form.typed[value] for value in values]
    return Column(role, form.name or shop.names[role], texts, typed)


def _log(shop: Shop, order: list[int]) -> Table:
    choices, truth = shop.choices, shop.truth
    events = [truth.events[place] for place in order]
    columns = [
        _ids(shop, "user", [event.user for event in events]),
        _ids(shop, "item", [event.item for event in events]),
        *_times(shop, events),
        *_signal(shop, events),
    ]
    further = choices["further"]
    if further in ("seconds", "all"):
        columns.append(_numbers(shop, "seconds", [event.seconds for event in events], "seconds"))
    if further in ("quantity", "all"):
        values = [event.quantity for event in events]
        columns.append(_column(shop, "quantity", [str(value) for value in values], values))
    if further in ("liked", "all"):
        values = [event.liked for event in events]
        columns.append(_column(shop, "liked", [str(value) for value in values], values))
    if choices["layout"] == "joined":
        columns += _about_items(shop, [event.item for event in events])
    if choices["price"] == "log" or (choices["price"] == "items" and choices["layout"] == "joined"):
        columns.append(_numbers(shop, "price", [event.price for event in events], "numbers"))
    columns += _extra(shop, events)
    if choices["extra"] == "rotated":
        columns = columns[2:] + columns[:2]
    return Table(shop.names["log"], columns, order)


def _times(shop: Shop, events: list[Event]) -> list[Column]:
    form = shop.time
    texts = [form.write(event.time) for event in events]
    if "\t" in texts[0]:
        days, clocks = zip(*(text.split("\t") for text in texts))
        return [_column(shop, "date", list(days)), _column(shop, "clock", list(clocks))]
    typed = None if form.typed is None else [form.typed(event.time) for event in events]
    return [_column(shop, "time", list(texts), typed)]


def _signal(shop: Shop, events: list[Event]) -> list[Column]:
    signal, label = shop.choices["signal"], shop.choices["label"]
    if signal == "click":
        return [_label(shop, "click", [event.click for event in events], label)]
    if signal == "click, purchase":
        plain = label if LABELS[label].name is None and label != "words" else "0/1"
        return [
            _label(shop, "click", [event.click for event in events], label),
            _label(shop, "conversion", [event.conversion for event in events], plain),
        ]
    if signal == "purchase":
        return [_label(shop, "conversion", [event.conversion for event in events], "0/1")]
    if signal == "counts":
        values = [event.click * event.quantity for event in events]
        return [_column(shop, "click", [str(value) for value in values], values)]
    if signal == "rating":
        values = [event.rating for event in events]
        half = shop.choices["label"] == "0.0/1.0"
        texts = [f"{value}.0" if half else str(value) for value in values]
        return [_column(shop, "rating", list(texts), [float(value) for value in values] if half else values)]
    if signal == "action":
        words = dict(zip(("shown", "click", "cart", "buy"), ACTIONS[shop.choices["actions"]]))
        return [_column(shop, "action", [words[event.kind] for event in events])]
    return []


def _about_items(shop: Shop, numbers: list[int]) -> list[Column]:
    items = [shop.truth.items[number] for number in numbers]
    columns = [_column(shop, "title", [item.title for item in items])]
    form, depth = shop.choices["levels"], _depth(shop.choices)
    if form in ("path", "path >"):
        joint = "|" if form == "path" else " > "
        columns.append(_column(shop, "levels", [joint.join(item.levels) for item in items]))
    elif form == "list":
        columns.append(
            _column(shop, "levels", ["|".join(item.levels) for item in items], [list(item.levels) for item in items])
        )
    else:
        columns += [
            _column(shop, f"level{place + 1}", [item.levels[place] for item in items]) for place in range(depth)
        ]
    return columns


def _items(shop: Shop) -> Table:
    numbers = list(range(len(shop.truth.items)))
    columns = [_ids(shop, "item", numbers, table=True), *_about_items(shop, numbers)]
    if shop.choices["price"] == "items":
        columns.append(_numbers(shop, "price", [item.price for item in shop.truth.items], "numbers"))
    return Table(shop.names["items"], columns, numbers)


def _users(shop: Shop) -> Table:
    numbers = list(range(len(shop.truth.towns)))
    columns = [
        _ids(shop, "user", numbers, table=True),
        _column(shop, "town", list(shop.truth.towns)),
        _column(shop, "age", [str(age) for age in shop.truth.ages], list(shop.truth.ages)),
    ]
    if shop.choices["extra"] == "personal":
        columns += _personal(shop, numbers)
    return Table(shop.names["users"], columns, numbers)


def _personal(shop: Shop, users: list[int]) -> list[Column]:
    return [
        _column(shop, "email", [f"somebody{user % 7}@shop{user}.example" for user in users]),
        _column(shop, "phone", [f"+49 30 {5550000 + user * 37}" for user in users]),
    ]


def _extra(shop: Shop, events: list[Event]) -> list[Column]:
    """Columns that play no part."""
    extra = shop.choices["extra"]
    count = len(events)
    if extra == "session":
        return [_column(shop, "session", [f"s{event.time // 3_600_000_000 % 997}" for event in events])]
    if extra == "row number":
        return [Column("number", "row", [str(row + 1) for row in range(count)], list(range(1, count + 1)))]
    if extra == "order number":
        return [Column("number", "order_number", [str(50_000 + row * 3) for row in range(count)])]
    if extra == "constant":
        return [Column("constant", "source", ["web"] * count)]
    if extra == "empty":
        return [Column("empty", "comment", [None] * count)]
    if extra == "personal" and shop.choices["layout"] == "joined":
        return _personal(shop, [event.user for event in events])
    return []

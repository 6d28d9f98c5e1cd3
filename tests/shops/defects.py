"""Defects of known place, put into a shop's columns before it is written; what is right then is changed with them."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.shops.tables import Column, ExpectedItem, ExpectedRow, Shop, Table
from tests.shops.time_forms import moment

FEW = 3
Defect = Callable[[Shop], bool]
"""Plants itself; False where the shop has no place for it."""


def counted(number: int) -> str:
    """Return the pattern of a sentence that counts rows, cells or lines."""
    return rf"{number:,} (of|rows?|cells?|values?|lines?|events?)"


def _rows(shop: Shop, table: Table) -> list[int]:
    return sorted(shop.rng.sample(range(3, len(table.rows)), FEW))


def _named(shop: Shop, column: Column, rows: list[int]) -> None:
    shop.place = (column.name.strip(), *(f"{row + offset}" for row in rows for offset in (1, 2)))
    shop.told = (re.escape(column.name.strip()), counted(len(rows)))


def _event(shop: Shop, row: int) -> ExpectedRow:
    return shop.rows[shop.log.rows[row]]


def bad_price(text: str | None, value: float | None, *, keep: bool = False) -> Defect:
    """Cells of a price that are no price: null, and said."""

    def plant(shop: Shop) -> bool:
        for table in (shop.log, shop.items):
            column = table.column("price") if table else None
            if table is None or column is None:
                continue
            rows = _rows(shop, table)
            for row in rows:
                column.put(row, text, value)
                right = (None, value) if keep else (None,)
                if table is shop.log:
                    _event(shop, row).cells["price"] = right
                else:
                    shop.catalogue[table.rows[row]].prices = right
            _named(shop, column, rows)
            unknown = text is None if column.typed is None else value is None or value != value
            shop.told = () if unknown else shop.told  # an empty cell needs no word
            return True
        return False

    return plant


def bad_label(text: str | None) -> Defect:
    """Cells of the click column that say nothing: the rows are left out, and that is said."""

    def plant(shop: Shop) -> bool:
        column = shop.log.column("click")
        if column is None or shop.choices["label"] == "blank/x":
            return False
        rows = _rows(shop, shop.log)
        for row in rows:
            column.put(row, text)
            _event(shop, row).droppable = True
            _event(shop, row).cells["click"] = ()
        _named(shop, column, rows)
        return True

    return plant


def unknown_conversion(shop: Shop) -> bool:
    """Plant empty cells of the conversion: not known."""
    column = shop.log.column("conversion")
    if column is None or shop.choices["label"] == "blank/x":
        return False
    for row in _rows(shop, shop.log):
        column.put(row, None)
        _event(shop, row).cells["conversion"] = (None,)
    return True


def missing_rating(shop: Shop) -> bool:
    """Plant empty cells and NaN of a rating: nobody knows whether that row converted."""
    column = shop.log.column("rating")
    if column is None:
        return False
    for row in range(1, len(shop.log.rows), 2):
        column.put(row, "NaN" if shop.choices["order"] == "shuffled" else None, float("nan"))
        _event(shop, row).cells["conversion"] = (None,)
    if column.typed is not None:
        column.typed = [float(value) for value in column.typed]
    return True


def bad_time(text: str | None, literal: int | None = None) -> Defect:
    """Times that are none, or absurd: left out (or kept as written), and said."""

    def plant(shop: Shop) -> bool:
        column = shop.log.column("time") or shop.log.column("date")
        if column is None:
            return False
        rows = _rows(shop, shop.log)[:1]
        form = shop.choices["time"]
        if literal is not None and (form != "iso" if literal else not form.startswith("epoch")):
            return False
        for row in rows:
            column.put(row, text, literal if literal == 0 else moment(literal) if literal else None)
            expected = _event(shop, row)
            expected.droppable = True
            user, item, _ = expected.cores[0]
            expected.cores = [] if literal is None else [(user, item, literal)]
        _named(shop, column, rows)
        return True

    return plant


def no_id(who: str, text: str | None) -> Defect:
    """Rows without an id: left out, and said."""

    def plant(shop: Shop) -> bool:
        column = shop.log.column(who)
        if column is None or (text is not None and column.typed is not None):
            return False
        rows = _rows(shop, shop.log)
        for row in rows:
            column.put(row, text)
            _event(shop, row).droppable = True
            _event(shop, row).cores = []
        _named(shop, column, rows)
        return True

    return plant


def unknown_item(shop: Shop) -> bool:
    """Take an item out of its table: its rows are left out (or kept without a title), and that is said."""
    if shop.items is None:
        return False
    counts = [sum(event.item == number for event in shop.truth.events) for number in range(len(shop.truth.items))]
    gone = min((number for number in range(len(counts)) if counts[number]), key=lambda number: counts[number])
    shop.items = shop.items.take([row for row in range(len(shop.items.rows)) if row != gone], shop.items.name)
    for event, expected in zip(shop.truth.events, shop.rows):
        if event.item == gone:
            expected.droppable = True
    shop.catalogue[gone] = ExpectedItem((None, shop.id_form("item").log(gone)), (), (None,))
    column = shop.items.column("item")
    assert column is not None
    shop.place = (column.name.strip(),)
    shop.told = (re.escape(column.name.strip()), "the items do not have")
    return True


def doubled_items(shop: Shop) -> bool:
    """Repeat two rows of the item table with another title: the first one counts, and that is said."""
    if shop.items is None:
        return False
    count = len(shop.items.rows)
    shop.items = shop.items.take([*range(count), 1, 2], shop.items.name)
    title, key = shop.items.column("title"), shop.items.column("item")
    assert title is not None and key is not None
    title.put(count, "another title")
    shop.place = (key.name.strip(),)
    shop.told = (re.escape(key.name.strip()), "rows? .*(repeat|earlier)")
    return True


def no_title(shop: Shop) -> bool:
    """Empty one title: the item (and its rows) may be left out, and that is said."""
    column = shop.items.column("title") if shop.items else None
    if shop.items is None or column is None:
        return False
    counts = [sum(event.item == number for event in shop.truth.events) for number in range(len(shop.truth.items))]
    number = min(range(len(counts)), key=lambda place: counts[place])
    column.put(shop.items.rows.index(number), None)
    shop.catalogue[number].titles = (None, "", shop.id_form("item").log(number))
    for event, expected in zip(shop.truth.events, shop.rows):
        if event.item == number:
            expected.droppable = True
    shop.place = (column.name.strip(),)
    shop.told = (re.escape(column.name.strip()), "without a title")
    return True


def doubled_rows(shop: Shop) -> bool:
    """Write some rows of the log twice: both are kept, or one is left out and that is said."""
    rows = _rows(shop, shop.log)
    shop.log = shop.log.take([*range(len(shop.log.rows)), *rows], shop.log.name)
    for row in rows:
        known = _event(shop, row)
        shop.rows.append(ExpectedRow(list(known.cores), dict(known.cells), droppable=True))
    return True


def negative_quantity(shop: Shop) -> bool:
    """Plant a negative quantity: kept nowhere, and said."""
    column = shop.log.column("quantity")
    if column is None:
        return False
    rows = _rows(shop, shop.log)[:1]
    for row in rows:
        column.put(row, "-1", -1)
        _event(shop, row).cells["quantity"] = (None, -1)
        _event(shop, row).droppable = True
    _named(shop, column, rows)
    shop.told = ()
    return True


def broken_line(kind: str) -> Defect:
    """A line with too few or too many cells, or cut in its middle: left out, and said."""

    def plant(shop: Shop) -> bool:
        text = not shop.choices["file"].startswith("parquet") and shop.choices["file"] not in ("xlsx", "json")
        if not text or (kind != "cut" and shop.choices["file"].startswith("jsonl")):
            return False
        row = len(shop.log.rows) - 1 if kind == "cut" else shop.rng.randrange(5, len(shop.log.rows) - 2)
        shop.after = (kind, row)
        expected = _event(shop, row)
        expected.droppable = True
        last = shop.log.columns[-1].role
        if kind == "cut" or (kind == "short" and last in ("user", "item", "time", "date", "clock", "click", "action")):
            expected.cores = []
        elif kind == "short":
            facet = "conversion" if last == "rating" else last
            expected.cells[facet] = (*expected.cells.get(facet, ()), None)
        shop.place = (f"{row + 1}", f"{row + 2}")
        shop.told = (counted(1), f"(line|row) ({row + 1}|{row + 2})")
        return True

    return plant


def header_again(shop: Shop) -> bool:
    """Repeat the header in the middle of the log, as files do that were put one behind the other: no row, and that is
    said."""
    kind, header = shop.choices["file"], shop.choices["header"]
    if (
        kind.startswith(("parquet", "json"))
        or kind == "xlsx"
        or header not in ("yes", "sep line", "title line", "comment")
    ):
        return False
    place = len(shop.log.rows) // 2
    shop.log = shop.log.take([*range(place), 0, *range(place, len(shop.log.rows))], shop.log.name)
    for column in shop.log.columns:
        column.typed = None
        column.texts[place] = column.name
    shop.told = (counted(1), f"(line|row) ({place + 1}|{place + 2})")
    shop.place = tuple(str(place + more) for more in (1, 2, 3, 4, 5))
    return True


def damaged(shop: Shop) -> bool:
    """Cut a compressed or binary file in its middle: an error that names it."""
    if shop.choices["file"] not in ("parquet", "parquet narrow", "jsonl.gz", "csv.gz", "csv.zip", "xlsx"):
        return False
    shop.after = ("half", 0)
    shop.place = ("",)
    for expected in shop.rows:
        expected.cores = []
    return True


def beside(name: str, content: bytes) -> Defect:
    """A further file that is none of the shop's: left out."""

    def plant(shop: Shop) -> bool:
        shop.beside[name] = content
        return True

    return plant


README = b"# Our shop\n\nThis folder has the log, see above; questions to us: data team, floor 3\n"
DEFECTS: dict[str, Defect] = {
    "price NaN": bad_price("NaN", float("nan")),
    "price n/a": bad_price("n/a", None),
    "price NULL": bad_price("NULL", None),
    "price \\N": bad_price("\\N", None),
    "price inf": bad_price("inf", float("inf")),
    "price negative": bad_price("-3.5", -3.5, keep=True),
    "price blank": bad_price(None, None),
    "label NULL": bad_label("NULL"),
    "label blank": bad_label(None),
    "label odd": bad_label("?"),
    "conversion blank": unknown_conversion,
    "rating missing": missing_rating,
    "time NULL": bad_time("NULL"),
    "time blank": bad_time(None),
    "time words": bad_time("not a date"),
    "time 0": bad_time("0", 0),
    "time 0000": bad_time("0000-00-00 00:00:00"),
    "time 9999": bad_time("9999-12-31 00:00:00", 253_402_214_400_000_000),
    "time impossible": bad_time("2023-02-30 12:00:00"),
    "user blank": no_id("user", None),
    "user NULL": no_id("user", "NULL"),
    "item blank": no_id("item", None),
    "item unknown": unknown_item,
    "items doubled": doubled_items,
    "title blank": no_title,
    "rows doubled": doubled_rows,
    "quantity negative": negative_quantity,
    "line short": broken_line("short"),
    "line long": broken_line("long"),
    "header again": header_again,
    "last line cut": broken_line("cut"),
    "file cut": damaged,
    "empty file beside": beside("notes.csv", b""),
    "header alone beside": beside("returns.csv", b"user_id,item_id,timestamp\n"),
    "readme beside": beside("README.txt", README),
    "licence beside": beside("LICENSE", README),
    "hidden beside": beside(".DS_Store", b"\0\1\2"),
}

"""From a shop's tables to files in a folder."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
from tests.shops.tables import Shop, Table
from tests.shops.time_forms import moment

SEPARATOR = {"tsv": "\t", "semicolon": ";", "pipe": "|", "colons": "::", "tabs in txt": "\t"}
SUFFIX = {
    "parquet narrow": ".parquet",
    "semicolon": ".csv", "pipe": ".csv", "colons": ".dat", "tabs in txt": ".txt", "parquet categorical": ".parquet",
}  # fmt: skip
RECBOLE = {"user": "token", "item": "token", "time": "float", "click": "float", "conversion": "float", "rating": "float",
           "price": "float", "quantity": "float", "seconds": "float", "liked": "float", "age": "float",
           "title": "token_seq"}  # fmt: skip
SPLIT = 3
KIND_FILES = {"shown": "impressions", "click": "clicks", "cart": "carts", "buy": "purchases"}


@dataclass(frozen=True)
class Written:
    """Files of a shop, as a person would name them: the log's (or the folder of its parts), the items', the users'."""

    log: str
    items: str | None
    users: str | None
    all: tuple[str, ...]


def write(shop: Shop, folder: Path) -> Written:
    """Write a shop into an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in shop.beside.items():
        (folder / name).write_bytes(content)
    layout, kind = shop.choices["layout"], shop.choices["file"]
    suffix = SUFFIX.get(kind, f".{kind}")
    written: list[str] = []

    def put(table: Table, name: str, after: tuple[str, int] | None = None) -> str:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(shop, table, path.name, after))
        written.append(name)
        return name

    log = shop.log
    if layout == "recbole":
        main = put(log, "shop.inter", shop.after)
        items = put(shop.items, "shop.item") if shop.items else None
        users = put(shop.users, "shop.user") if shop.users else None
        return Written(main, items, users, tuple(written))
    parts: dict[str, list[int]] = {f"{log.name}{suffix}": list(range(len(log.rows)))}
    if layout in ("parts", "parts beside", "hive", "behaviours"):
        parts = _parts(shop, suffix)
    for name, places in parts.items():
        after = None
        if shop.after is not None and shop.after[0] == "half":
            after = shop.after
        elif shop.after is not None and shop.after[1] in places:
            after = shop.after[0], places.index(shop.after[1])
            if after[0] == "cut":  # the last line of its file
                places = [*(place for place in places if place != shop.after[1]), shop.after[1]]
                after = "cut", len(places) - 1
        put(log.take(places, log.name), name, after)
    main = next(iter(parts))
    if layout in ("parts", "hive"):
        main = main.partition("/")[0]
    items = put(shop.items, f"{shop.items.name}{suffix}") if shop.items else None
    users = put(shop.users, f"{shop.users.name}{suffix}") if shop.users else None
    return Written(main, items, users, tuple(written))


def _parts(shop: Shop, suffix: str) -> dict[str, list[int]]:
    layout, name = shop.choices["layout"], shop.log.name
    found: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(shop.log.rows):
        event = shop.truth.events[row]
        if layout == "hive":
            month = moment(event.time).strftime("%Y-%m")
            found[f"{name}/month={month}/part-0{suffix}"].append(place)
        elif layout == "behaviours":
            found[f"{KIND_FILES[event.kind]}{suffix}"].append(place)
        else:
            part = place * SPLIT // len(shop.log.rows)
            found[f"{name}/part-0000{part}{suffix}" if layout == "parts" else f"{name}_{part + 1}{suffix}"].append(
                place
            )
    return dict(sorted(found.items()))


def _content(shop: Shop, table: Table, name: str, after: tuple[str, int] | None) -> bytes:
    kind = shop.choices["file"]
    if shop.choices["layout"] == "recbole":
        head = [f"{column.name}:{RECBOLE.get(column.role, 'token')}" for column in table.columns]
        return _text(shop, table, "\t", after, head).encode()
    if kind.startswith("parquet"):
        data = _parquet(table, kind)
    elif kind == "xlsx":
        data = _workbook(table)
    elif kind.startswith("jsonl"):
        data = _json_lines(table, after).encode(shop.choices["encoding"])
    elif kind == "json":
        data = json.dumps(_objects(table), ensure_ascii=False, default=str, indent=1).encode()
    else:
        text = _text(shop, table, SEPARATOR.get(kind, ","), after)
        data = text.encode(shop.choices["encoding"])
    if kind.endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    if kind.endswith(".zip"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name.removesuffix(".zip"), data)
        data = out.getvalue()
    return data[: len(data) // 2] if after is not None and after[0] == "half" else data


def _text(
    shop: Shop, table: Table, separator: str, after: tuple[str, int] | None, head: list[str] | None = None
) -> str:
    quoting, header, ends = shop.choices["quoting"], shop.choices["header"], shop.choices["ends"]
    end = {"\\r\\n": "\r\n", "\\r": "\r"}.get(ends, "\n")
    rows: list[list[str]] = [] if header == "none" else [head or [column.name for column in table.columns]]
    first = len(rows)
    cells = [
        _tricky(column.texts, quoting, separator) if column.role == "title" else column.texts
        for column in table.columns
    ]
    rows += [[text or "" for text in row] for row in zip(*cells)]
    if header == "trailing separator":
        rows = [[*row, ""] for row in rows]
    if header == "index column":
        rows = [["" if place < first else str(place - first), *row] for place, row in enumerate(rows)]
    if after is not None and after[0] == "short":
        rows[after[1] + first] = rows[after[1] + first][:-1]
    if after is not None and after[0] == "long":
        rows[after[1] + first] = [*rows[after[1] + first], "stray"]
    lines = [_line(row, separator, quoting) for row in rows]
    if after is not None and after[0] == "cut":
        whole = lines[-1]
        lines[-1] = whole[: whole.index(separator) + len(separator) + 1]
    if header == "sep line":
        lines.insert(0, f"sep={separator}")
    if header == "title line":
        lines[:0] = ["Export of all orders", ""]
    if header == "comment":
        lines[:0] = ["# exported 2023-09-12", "# by the shop"]
    text = end.join(lines)
    if ends == "blank at the end":
        return text + end * 3
    return text if ends == "none at the end" or (after is not None and after[0] == "cut") else text + end


def _tricky(titles: list[str | None], quoting: str, separator: str) -> list[str | None]:
    if quoting in ("tricky", "backslash"):
        return [title and tricky_title(title, separator) for title in titles]
    if quoting == "stray quote":
        return [title and stray_title(title) for title in titles]
    return titles


def tricky_title(title: str, separator: str) -> str:
    """Return a title as it is written where quoting is put to the test."""
    return f'The "{title}"{separator} new\nand improved' if title.endswith(("3", "7")) else title


def stray_title(title: str) -> str:
    """Return a title with the sign for inches, which is a quote."""
    return f'5" {title}' if title.endswith("2") else title


def _line(row: list[str], separator: str, quoting: str) -> str:
    if len(separator) > 1:
        return separator.join(row)
    if quoting == "stray quote":
        return separator.join(f'"{cell}"' if separator in cell else cell for cell in row)
    if quoting == "backslash":
        return separator.join(f'"{_escaped(cell)}"' for cell in row)
    out = io.StringIO()
    style = csv.QUOTE_ALL if quoting == "all" else csv.QUOTE_MINIMAL
    csv.writer(out, delimiter=separator, lineterminator="", quoting=style).writerow(row)
    return out.getvalue()


def _escaped(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace('"', '\\"')


def _values(column: Any) -> list[Any]:
    values: list[Any] = column.texts if column.typed is None else column.typed
    return values


def _parquet(table: Table, kind: str) -> bytes:
    arrays = {}
    for column in table.columns:
        array = pa.array(_values(column))
        if kind == "parquet categorical" and pa.types.is_string(array.type) and column.role != "number":
            array = array.dictionary_encode()
        elif kind == "parquet narrow":
            array = _narrow(array)
        arrays[column.name] = array
    out = io.BytesIO()
    pq.write_table(pa.table(arrays), out)
    return out.getvalue()


def _narrow(array: pa.Array) -> pa.Array:
    """Store numbers as a database does that counts bytes: small integers, decimals of two places, seconds."""
    if pa.types.is_int64(array.type):
        small = next((kind for kind in (pa.int8(), pa.int16(), pa.int32()) if _fits(array, kind)), pa.int64())
        return array.cast(small)
    if pa.types.is_float64(array.type) and _fits(array, pa.decimal128(18, 2)):
        return array.cast(pa.decimal128(18, 2))
    return array.cast(pa.large_string()) if pa.types.is_string(array.type) else array


def _fits(array: pa.Array, kind: pa.DataType) -> bool:
    try:
        return bool(array.cast(kind).cast(array.type).equals(array))
    except pa.ArrowInvalid:
        return False


def _objects(table: Table) -> list[dict[str, Any]]:
    rows = zip(*(_values(column) for column in table.columns))
    return [{column.name: value for column, value in zip(table.columns, row)} for row in rows]


def _json_lines(table: Table, after: tuple[str, int] | None) -> str:
    lines = [json.dumps(about, ensure_ascii=False, default=str) for about in _objects(table)]
    if after is not None and after[0] == "cut":
        lines[-1] = lines[-1][: len(lines[-1]) // 2]
    return "\n".join(lines) + ("" if after else "\n")


BOOK = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/><Override PartName="/xl/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles" Target="styles.xml"/></Relationships>',
    "xl/styles.xml": '<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><fonts count="1"><font/></fonts><fills count="1"><fill/></fills><borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="2"><xf/><xf numFmtId="22" applyNumberFormat="1"/></cellXfs></styleSheet>',
}
"""A workbook's parts beside its one sheet; style 1 shows a number as a date."""


def _workbook(table: Table) -> bytes:
    return workbook([[column.name for column in table.columns], *zip(*(_values(column) for column in table.columns))])


def workbook(lines: Sequence[Sequence[Any]]) -> bytes:
    """Return an Excel file with one sheet of these rows."""
    rows = [_sheet_row(values, number) for number, values in enumerate(lines, start=1)]
    sheet = f'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{"".join(rows)}</sheetData></worksheet>'
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**BOOK, "xl/worksheets/sheet1.xml": sheet}.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + text)
    return out.getvalue()


def _sheet_row(values: Any, number: int) -> str:
    cells = "".join(_sheet_cell(value, f"{chr(65 + place)}{number}") for place, value in enumerate(values))
    return f'<row r="{number}">{cells}</row>'


def _sheet_cell(value: Any, at: str) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return f'<c r="{at}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, datetime | date):
        midnight = not isinstance(value, datetime)
        when = datetime(value.year, value.month, value.day) if midnight else value.replace(tzinfo=None)
        return f'<c r="{at}" s="1"><v>{(when - datetime(1899, 12, 30)).total_seconds() / 86_400!r}</v></c>'
    if isinstance(value, int | float) and abs(value) < 2**53:
        return f'<c r="{at}"><v>{value!r}</v></c>'
    return f'<c r="{at}" t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'


def with_tricky_titles(shop: Shop) -> Shop:
    """Return the shop with the titles that are right where the writer made them tricky."""
    quoting = shop.choices["quoting"]
    if quoting not in ("tricky", "stray quote", "backslash") or shop.choices["layout"] == "log":
        return shop
    separator = SEPARATOR.get(shop.choices["file"], ",")
    change = (lambda title: tricky_title(title, separator)) if quoting != "stray quote" else stray_title
    catalogue = [
        replace(item, titles=tuple(title and change(title) for title in item.titles)) for item in shop.catalogue
    ]
    return replace(shop, catalogue=catalogue)

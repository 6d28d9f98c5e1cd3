"""Exports of one and the same kind of shop, as different companies would hand them over."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

USERS, ITEMS, EVENTS = 60, 80, 3000
WORDS = ("oat", "rye", "plum", "mint")


def log(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Users, items and ascending times (seconds) of a log, and the generator for more."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, USERS, EVENTS),
        rng.integers(0, ITEMS, EVENTS),
        np.sort(rng.integers(1_680_000_000, 1_700_000_000, EVENTS)),
        rng,
    )


def german(folder: Path) -> None:
    """Semicolons, decimal commas, dates with dots, an action column, ids with leading zeros; three files."""
    who, what, at, rng = log()
    items = {
        "Artikelnummer": [f"{i:05d}" for i in range(ITEMS)],
        "Bezeichnung": [f"{WORDS[i % 4]} Ding {i}" for i in range(ITEMS)],
        "Warengruppe": [f"Gruppe {i % 4}" for i in range(ITEMS)],
    }
    items["Preis"] = [f"{1.5 + i / 10:.2f}".replace(".", ",") for i in range(ITEMS)]
    pl.DataFrame(items).write_csv(folder / "artikel.csv", separator=";")
    pl.DataFrame(
        {"Kundennummer": range(1000, 1000 + USERS), "Geschlecht": ["m" if i % 2 else "w" for i in range(USERS)]}
    ).write_csv(folder / "kunden.csv", separator=";")
    dates = [datetime.fromtimestamp(int(t), UTC).strftime("%d.%m.%Y %H:%M") for t in at]
    actions = rng.choice(["angezeigt", "geklickt", "gekauft"], EVENTS)
    orders = {
        "Bestellnummer": range(EVENTS),
        "KundenNr": who + 1000,
        "ArtikelNr": [f"{i:05d}" for i in what],
        "Zeitpunkt": dates,
        "Menge": rng.integers(1, 5, EVENTS),
        "Aktion": actions,
    }
    pl.DataFrame(orders).write_csv(folder / "verlauf.csv", separator=";")


def chinese(folder: Path) -> None:
    """Parquet, epoch milliseconds, two category levels that nest."""
    who, what, at, rng = log()
    items = {
        "商品编号": range(5000, 5000 + ITEMS),
        "商品名称": [f"商品 {i} 号" for i in range(ITEMS)],
        "一级类目": [f"类{i % 3}" for i in range(ITEMS)],
        "二级类目": [f"类{i % 3}-{i % 9}" for i in range(ITEMS)],
    }
    pl.DataFrame({**items, "单价": [1.5 + i for i in range(ITEMS)]}).write_parquet(folder / "商品.parquet")
    pl.DataFrame(
        {
            "用户编号": who,
            "商品编号": what + 5000,
            "行为时间": at * 1000,
            "行为类型": rng.choice(["曝光", "点击", "购买"], EVENTS),
        }
    ).write_parquet(folder / "行为日志.parquet")


def events_only(folder: Path) -> None:
    """One file of clicks, epoch seconds, nothing about items."""
    who, what, at, _ = log()
    pl.DataFrame({"visitor": [f"v{u}" for u in who], "sku": [f"s{i}" for i in what], "ts": at}).write_csv(
        folder / "clicks.csv"
    )


def joined(folder: Path) -> None:
    """One table with everything, ISO times with a zone, flags for click and purchase, a price that changes."""
    who, what, at, rng = log()
    clicked = rng.integers(0, 2, EVENTS)
    table = {
        "session_id": rng.integers(0, 900, EVENTS),
        "customer_id": who,
        "product_id": what + 900,
        "product_name": [f"{WORDS[i % 4]} thing {i}" for i in what],
        "category": [f"c{i % 4}" for i in what],
        "city": [f"town{u % 7}" for u in who],
        "created_at": [datetime.fromtimestamp(int(t), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for t in at],
        "amount": rng.uniform(1, 9, EVENTS).round(2),
        "clicked": clicked,
        "purchased": clicked * rng.integers(0, 2, EVENTS),
    }
    pl.DataFrame(table).write_csv(folder / "export.csv")


def ratings(folder: Path) -> None:
    """Stars in Parquet with native times; some rows without a user, some of unknown films, one film without a title."""
    who, what, at, rng = log()
    users = [None if row % 97 == 0 else int(u) for row, u in enumerate(who)]
    times = pl.Series(at).cast(pl.Int64) * 1_000_000
    pl.DataFrame(
        {
            "user_id": users,
            "movie_id": what,
            "stars": rng.integers(1, 6, EVENTS),
            "rated_at": times.cast(pl.Datetime("us")),
        }
    ).write_parquet(folder / "ratings.parquet")
    films = {
        "movie_id": range(1, ITEMS),
        "title": [f"The film no {i}" if i != 3 else None for i in range(1, ITEMS)],
        "genres": ["Action|Drama" if i % 2 else "Comedy|Teen" for i in range(1, ITEMS)],
    }
    pl.DataFrame(films).write_parquet(folder / "movies.parquet")


def nameless(folder: Path) -> None:
    """Columns called a, b, c."""
    who, what, at, _ = log()
    pl.DataFrame({"a": who, "b": what, "c": at}).write_csv(folder / "x.csv")


def both_ways(folder: Path) -> None:
    """Dates that are days first or months first: the values do not tell."""
    who, what, _, _ = log()
    dates = [f"{1 + row % 12:02d}/{1 + row // 250:02d}/2023" for row in range(EVENTS)]
    pl.DataFrame({"user": who, "item": what, "when": dates}).write_csv(folder / "log.csv")
    pl.DataFrame({"item": range(ITEMS), "name": [f"thing no {i}" for i in range(ITEMS)]}).write_csv(
        folder / "items.csv"
    )


def in_two_files(folder: Path) -> None:
    """Orders and their lines: no file is a log by itself."""
    who, what, at, rng = log()
    pl.DataFrame({"order_id": range(1000), "customer_id": who[:1000], "order_date": at[:1000]}).write_csv(
        folder / "orders.csv"
    )
    pl.DataFrame(
        {"order_id": rng.integers(0, 1000, EVENTS), "product_id": what, "quantity": rng.integers(1, 4, EVENTS)}
    ).write_csv(folder / "order_items.csv")
    pl.DataFrame({"product_id": range(ITEMS), "product_name": [f"thing no {i}" for i in range(ITEMS)]}).write_csv(
        folder / "products.csv"
    )

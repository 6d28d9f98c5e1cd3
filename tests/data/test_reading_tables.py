"""Reading report as tables: what it shows, and nothing about what is in order."""

from __future__ import annotations

from taiji.data.reading_report import IdReading, LabelReading, Reading, TimeReading
from taiji.data.reading_tables import reading_tables


def made():
    reading = Reading()
    reading.file("events", "log.csv", 1200)
    reading.left_out("events", "rows without a user_id", [3, 9])
    reading.column("events", "preis", "price", values=400, understood=399, places=[4], examples=["n/a"])
    reading.column("events", "when", "timestamp", values=400, understood=400)
    match = {"ids": 9, "used": 7, "event_ids": 8, "event_ids_known": 7, "rows": 1200, "rows_known": 1190, "near": 1}
    reading.ids(IdReading(column="item_id", table="items", **match))
    times = TimeReading(rows=1198, first="2024-01-01", last="2024-02-01", commonest="2024-01-05", commonest_rows=3)
    labels = (LabelReading(name="click", rows=1198, known=1198, mean=0.25), LabelReading(name="liked", rows=9, known=0))
    return reading.report().model_copy(update={"times": times, "labels": labels})


def test_rows_columns_ids_labels_and_times():
    shown = {title: rows for title, _, rows in reading_tables(made())}
    assert shown["Files"] == [("events", "log.csv", "1,200", "1,198", "2 rows without a user_id")]
    assert shown["Columns with unreadable values"] == [("log.csv", "preis", "price", "400", "99.75%", "n/a")]
    assert shown["Ids"] == [("item_id", "1,190 of 1,200", "7 of 8", "7 of 9 items", "1")]
    assert shown["Labels"] == [("click", "1,198 of 1,198", "0.25"), ("liked", "0 of 9", "–")]
    assert shown["Times"] == [("2024-01-01", "2024-02-01", "0", "0", "2024-01-05 (3 of 1,198)")]


def test_each_row_has_a_cell_for_each_column():
    assert all(len(row) == len(head) for _, head, rows in reading_tables(made()) for row in rows)

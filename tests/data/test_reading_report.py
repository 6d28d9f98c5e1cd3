"""Builder of the reading report: what a reader tells is what the report holds, as JSON too."""

from __future__ import annotations

import json

from taiji.data.reading_report import LeftOut, Reading, ReadingReport


def test_added_records_are_in_the_report_and_survive_json():
    reading = Reading()
    reading.file("events", "log.csv", 100)
    reading.left_out("events", "rows without a user_id", [3, 9], examples=["x"])
    reading.left_out("events", "lines that cannot be read as rows", range(1, 8), unit="line")
    reading.column("events", "preis", "price", values=90, understood=88, places=[4, 5], examples=["n/a", "n/a", "?"])
    reading.note("events", "something was changed")
    report = reading.report()
    (file,) = report.files
    assert (file.rows, file.used) == (100, 91)
    assert file.left_out[0].text == "2 rows without a user_id (rows 3, 9): 'x'"
    assert file.left_out[1].text == "7 lines that cannot be read as rows (lines 1, 2, 3, 4, 5 and 2 more)"
    one = [
        LeftOut(reason=reason, rows=1).text
        for reason in ("lines that cannot be read as rows", "rows that repeat an earlier one")
    ]
    assert one == ["1 line that cannot be read as a row", "1 row that repeats an earlier one"]
    assert file.columns[0].text == ("2 of 90 values of column preis (price) could not be read (rows 4, 5): 'n/a', '?'")
    assert ReadingReport.model_validate(json.loads(json.dumps(report.model_dump(mode="json")))) == report


def test_no_rows_are_left_out_without_positions():
    reading = Reading()
    reading.file("items", "items.csv", 3)
    reading.left_out("items", "rows without a title", [])
    assert reading.report().files[0].left_out == ()

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from taiji.core.errors import TaijiError
from taiji.data import Dataset, load_source
from taiji.data.settings import DataSettings
from taiji.data.sources import find_source

DOCUMENT = Path(__file__).parents[3] / "docs" / "data.md"
ITEMS = "id,name,l1\n1,One,a\n2,Two,b\n"
LOG = "u,i,t,stars\nx,1,2020-01-01 00:00:00,5\ny,2,2020-01-02 00:00:00,2\nx,2,2020-01-03 00:00:00,4\n"
PLAN = {
    "items": {"file": "items.csv", "item_id": "id", "title": "name", "category_l1": "l1"},
    "events": {"file": "log.csv", "user_id": "u", "item_id": "i", "timestamp": "t", "conversion": "stars >= 4"},
}


@pytest.fixture
def load(tmp_path):
    def build(log=LOG, items=ITEMS, events=None, plan=None, files=None, **options):
        (tmp_path / "items.csv").write_text(items)
        (tmp_path / "log.csv").write_text(log)
        for name, frame in (files or {}).items():
            frame.write_parquet(tmp_path / name)
        whole = {**PLAN, "events": {**PLAN["events"], **(events or {})}, **(plan or {})}
        (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(whole))
        return load_source(tmp_path, **options)

    return build


def test_the_documented_example_does_what_it_says(tmp_path, monkeypatch):
    text = DOCUMENT.read_text(encoding="utf-8")
    files = re.findall(r"```(?:csv|yaml) (\S+)\n(.*?)```", text, re.S)
    assert [name for name, _ in files] == ["items.csv", "log.csv", "mapping.yaml"]
    for name, content in files:
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "load_source" in block)
    space: dict = {}
    exec(code, space)
    dataset: Dataset = space["dataset"]
    assert (dataset.name, dataset.domain) == ("corner-shop", "shop")
    assert dataset.items.select("item_id", "title", "category_l1", "category_l2", "category_l3", "price").rows() == [
        ("A1", "Oat Milk", "Drinks", "Milk", "Plant", 2.49),
        ("A2", "Rye Bread", "Bakery", "Bread", None, 3.1),
        ("A3", "Espresso Beans", "Drinks", "Coffee", None, 7.9),
    ]
    rows = dataset.events.select("user", "item", "time", "click", "conversion").rows()
    start = 1_700_000_000_000_000
    minute = 60_000_000
    assert rows == [
        (0, 0, start, 1, None),
        (0, 1, start + minute, 1, 1),
        (1, 0, start + 2 * minute, 1, 0),
        (1, 2, start + 3 * minute, 0, None),
    ]


def test_defaults_and_dates_written_out(load):
    events = load().events
    assert (
        events["click"].to_list() == [1, 1, 1]
        and events["exposed"].all()
        and events["conversion"].to_list() == [1, 0, 1]
    )
    assert events["timestamp"][0] == datetime(2020, 1, 1) and (events["matured_at"] == events["timestamp"]).all()


@pytest.mark.parametrize(
    ("written", "time"),
    [
        ("1577836800", {"unit": "s"}),
        ("1577836800000", {"unit": "ms"}),
        ("1577836800000000", {"unit": "us"}),
        ("1577836800000000000", {"unit": "ns"}),
        ("01.01.2020 00:00", {"format": "%d.%m.%Y %H:%M"}),
        ("2020-01-01T00:00:00Z", {}),
        ("2020-01-01 00:00:00", {}),
    ],
)
def test_units_of_time(load, written, time):
    tables = load(f"u,i,t,stars\nx,1,{written},5\n", events={"timestamp": {"column": "t", **time}})
    assert tables.events["timestamp"].to_list() == [datetime(2020, 1, 1)]


def test_exposed_price_and_maturity(load):
    log = "u,i,t,stars,seen,paid\nx,1,0,5,true,1.5\nx,2,86400,5,no,\ny,1,864000,1,1,2\n"
    events = {"timestamp": {"column": "t", "unit": "s"}, "exposed": "seen", "price": "paid", "matures_after_days": 9}
    made = load(log, events=events).events
    assert made["exposed"].to_list() == [True, False, True] and made["price"].to_list() == [1.5, None, 2.0]
    assert made["conversion"].to_list() == [1, 1, None]  # the last can never mature within the log
    assert made["matured_at"][0] == datetime(1970, 1, 10)


def test_a_column_of_maturity(load):
    log = "u,i,t,stars,m\nx,1,2020-01-01 00:00:00,5,2020-01-05 00:00:00\nx,2,2020-01-01 00:00:00,5,\n"
    made = load(log, events={"matured_at": "m"}).events
    assert made["matured_at"].to_list() == [datetime(2020, 1, 5), datetime(2020, 1, 1)]


def test_parquet_with_integer_ids_meets_a_csv(load):
    frame = pl.DataFrame({"who": [7, 8], "city": ["A", None], "age": [30, 40]})
    log = "u,i,t,stars\n7,1,2020-01-01 00:00:00,5\n"
    made = load(
        log,
        plan={"users": {"file": "users.parquet", "user_id": "who", "profile": ["city"]}},
        files={"users.parquet": frame},
    )
    assert made.users.rows() == [("7", "A"), ("8", None)] and made.users.columns == ["user_id", "city"]


def test_sampled_non_clicks_and_users(load):
    items = "id,name,l1\n" + "".join(f"{k},Item {k},a\n" for k in range(20))
    log = "u,i,t,stars\n" + "".join(f"u{k % 9},{k * 7 % 20},{k},5\n" for k in range(200))
    time = {"timestamp": {"column": "t", "unit": "s"}}
    plain = load(log, items, events=time)
    assert plain.events["click"].min() == 1 and not plain.notes
    sampled = load(log, items, events={**time, "non_clicks": 2})
    assert 0 < (sampled.events["click"] == 0).sum() <= 400 and "sampled, not observed" in sampled.notes[0]
    few = load(log, items, events=time, users=3, non_clicks=1, seed=4)
    assert len(few.users) == 3 and few.events["user_id"].n_unique() == 3 and "3 of 9 users" in few.notes[-1]
    assert set(few.items["item_id"]) == set(few.events["item_id"])
    assert few.events.equals(load(log, items, events=time, users=3, non_clicks=1, seed=4).events)


FAULTS = {
    "missing column": ({"log": LOG.replace("stars", "star")}, ["log.csv", "column stars", "u, i, t, star"]),
    "missing file": ({"plan": {"items": {**PLAN["items"], "file": "no.csv"}}}, ["A file is missing", "no.csv"]),
    "wrong type": ({"log": LOG.replace(",2\n", ",two\n")}, ["log.csv", "column stars", "row 2", "'two'"]),
    "wrong date": ({"log": LOG.replace("2020-01-02", "2020-13-02")}, ["log.csv", "column t", "row 2", "2020-13-02"]),
    "no date at all": ({"log": LOG.replace("2020-", "day ")}, ["column t", "rows 1, 2, 3", "unit"]),
    "wrong unit": ({"events": {"timestamp": {"column": "t", "unit": "s"}}}, ["column t", "rows 1, 2, 3", "seconds"]),
    "empty": ({"log": "u,i,t,stars\n"}, ["empty", "log.csv"]),
    "unknown item": ({"log": LOG.replace("y,2", "y,9")}, ["unknown id", "log.csv", "row 2", "'9'"]),
    "duplicate items": ({"items": ITEMS + "1,Again,c\n"}, ["Duplicate items", "items.csv", "row 3"]),
    "file order": (
        {"log": LOG.replace("2020-01-01", "2020-01-09"), "events": {"in_order": "file"}},
        ["not in ascending order", "column t", "row 2", "in_order: file"],
    ),
    "user order": (
        {"log": LOG.replace("2020-01-01", "2020-01-09"), "events": {"in_order": "user"}},
        ["not in ascending order", "row 3", "in_order: user"],
    ),
    "bad label": ({"events": {"click": "stars"}}, ["neither 0 nor 1", "column click", "rows 1, 2"]),
    "label null": (
        {"log": LOG.replace(",2\n", ",\n"), "events": {"click": "stars >= 1"}},
        ["missing", "column click", "row 2"],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_one_clear_error(load, case):
    options, words = FAULTS[case]
    with pytest.raises(TaijiError) as caught:
        load(**options)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_order_that_holds_is_accepted(load):
    for order in ("file", "user"):
        assert len(load(events={"in_order": order}).events) == 3


def test_decimal_commas_semicolons_and_written_numbers(load):
    log = "u;i;t;p;stars\nx;1;20200101;1.234,50;4,5\ny;2;20200102;7,00;3,5\n"
    tables = load(
        log,
        events={
            "separator": ";",
            "decimal": ",",
            "timestamp": {"column": "t", "format": "%Y%m%d"},
            "price": "p",
            "conversion": "stars >= 4",
        },
    )
    assert tables.events.select("price", "conversion").rows() == [(1234.5, 1), (7.0, 0)]
    assert tables.events["timestamp"][0] == datetime(2020, 1, 1)


def test_items_of_a_joined_table_are_described_by_their_first_rows(load):
    log = (
        "u,i,t,name,l1\nx,1,2020-01-01,One,a\ny,2,2020-01-02,Two,b\nz,,2020-01-02,None,c\nx,1,2020-01-03,One again,a\n"
    )
    items = {"file": "log.csv", "item_id": "i", "title": "name", "one_per_id": True}
    tables = load(
        log,
        plan={
            "items": items,
            "unusable": "drop",
            "events": {"file": "log.csv", "user_id": "u", "item_id": "i", "timestamp": "t"},
        },
    )
    assert tables.items.select("item_id", "title").rows() == [("1", "One"), ("2", "Two")]
    assert len(tables.events) == 3 and any("1 of 4 rows of events" in note for note in tables.notes)


def test_unusable_rows_stop_or_are_dropped_and_counted(load):
    log = LOG + "z,9,2020-01-04 00:00:00,1\n,1,2020-01-05 00:00:00,1\n"
    with pytest.raises(TaijiError):
        load(log)
    tables = load(log, plan={"unusable": "drop"})
    assert len(tables.events) == 3
    assert [note.split(" ")[0] for note in tables.notes] == ["1", "1"]


RICH = (
    "u,i,t,stars,watched,what,scene,load,page,place,p,asked,size\n"
    "x,1,2020-01-01,5,12.5,buy,home,0.5,a,0,0.25,yes,01\n"
    "y,2,2020-01-02,2,,view,search,1,a,1,1,,02\n"
    "x,2,2020-01-03,4,0,cart,,0.25,b,0,0.5,no,02\n"
)
DECLARED = {
    "labels": {
        "watch_seconds": {"kind": "duration", "column": "watched"},
        "carted": {"column": "what == cart"},
        "stars": {"kind": "ordinal", "grades": [1, 2, 3, 4, 5]},
        "asked": {"kind": "survey"},
    },
    "behaviour": "what",
    "context": ["scene", "load"],
    "bias": ["size"],
    "list_id": "page",
    "position": "place",
    "propensity": "p",
}


def test_a_mapping_declares_labels_and_other_columns_by_role(load):
    tables = load(RICH, events=DECLARED)
    kept = [
        "watch_seconds",
        "carted",
        "stars",
        "asked",
        "behaviour",
        "scene",
        "load",
        "size",
        "list_id",
        "position",
        "propensity",
    ]
    assert tables.events.select(kept).rows() == [
        (12.5, 0, 4, 1, "buy", "home", 0.5, "01", "a", 0, 0.25),
        (None, 0, 1, None, "view", "search", 1.0, "02", "a", 1, 1.0),
        (0.0, 1, 3, 0, "cart", None, 0.25, "02", "b", 0, 0.5),
    ]
    dataset = Dataset.from_tables(tables)
    assert [task.name for task in dataset.tasks[:2]] == ["click", "conversion"]
    declared = {task.name: (task.kind, task.levels) for task in dataset.tasks[2:]}
    assert declared == {
        "watch_seconds": ("duration", None),
        "carted": ("binary", None),
        "stars": ("ordinal", 5),
        "asked": ("survey", None),
    }


def test_three_lines_declare_a_label(load):
    log = (
        LOG.replace("stars\n", "stars,watch_seconds\n")
        .replace(",5\n", ",5,1.5\n")
        .replace(",2\n", ",2,\n")
        .replace(",4\n", ",4,9\n")
    )
    declared = yaml.safe_load("labels:\n  watch_seconds:\n    kind: duration\n")
    assert load(log, events=declared).events["watch_seconds"].to_list() == [1.5, None, 9.0]


def test_a_delayed_label_that_cannot_mature_within_the_log_is_not_known(load):
    log = "u,i,t,stars,kept\nx,1,0,5,1\nx,2,86400,5,1\ny,1,864000,1,1\n"
    events = {"timestamp": {"column": "t", "unit": "s"}, "matures_after_days": 9}
    delayed = load(log, events={**events, "labels": {"kept": {"delayed": True}}}).events["kept"]
    assert delayed.to_list() == [1, 1, None]
    assert load(log, events={**events, "labels": {"kept": None}}).events["kept"].to_list() == [1, 1, 1]


DECLARATIONS = {
    "a grade that is not listed": (
        {"labels": {"stars": {"kind": "ordinal", "grades": [4, 5]}}},
        ["grade", "log.csv", "column stars", "row 2", "one of 4, 5", "'2'"],
    ),
    "a text as a number": ({"labels": {"what": {"kind": "count"}}}, ["log.csv", "column what", "'buy'", "number"]),
    "a fraction as a count": (
        {"labels": {"watched": {"kind": "count"}}},
        ["column watched", "row 1", "12.5", "log.csv"],
    ),
    "an ordinal without grades": ({"labels": {"stars": {"kind": "ordinal"}}}, ["mapping.yaml", "stars", "levels"]),
    "an unknown kind": ({"labels": {"stars": {"kind": "grade"}}}, ["labels.stars", "kind", "mapping.yaml"]),
    "a name of its own": (
        {"labels": {"stars": {"name": "grade"}}},
        ["mapping.yaml", "key of a label is its name", "stars"],
    ),
    "a name that no label has": ({"labels": {"Watched": None}}, ["mapping.yaml", "labels.Watched"]),
    "a circle": ({"labels": {"a": {"given": "b"}, "b": {"given": "a"}}}, ["cycle", "mapping.yaml"]),
    "a comparison of no kind": ({"labels": {"c": {"kind": "count", "column": "p > 1"}}}, ["labels.c", "0 or 1"]),
    "grades of no kind": ({"labels": {"c": {"grades": [1, 2]}}}, ["labels.c", "ordinal"]),
    "two roles": ({"labels": {"scene": None}, "context": ["scene"]}, ["two roles", "scene", "mapping.yaml"]),
    "no such column": ({"position": "nowhere"}, ["column is missing", "nowhere", "log.csv"]),
    "an impossible propensity": ({"propensity": "load", "position": "watched"}, ["position", "row 1", "12.5"]),
}


@pytest.mark.parametrize("case", DECLARATIONS)
def test_a_declaration_that_does_not_fit_is_one_message(load, case):
    declared, words = DECLARATIONS[case]
    with pytest.raises(TaijiError) as caught:
        load(RICH, events=declared)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_as_many_category_levels_as_the_file_has(load):
    items = "id,name,l1,l2,l3,l4\n1,One,a,b,c,d\n2,Two,a,b,,\n"
    named = {f"category_l{k}": f"l{k}" for k in (1, 2, 3, 4)}
    plan = {"items": {"file": "items.csv", "item_id": "id", "title": "name", **named}}
    dataset = Dataset.from_tables(load(items=items, plan=plan))
    assert dataset.levels == tuple(named) and dataset.items.select(*named).rows() == [
        ("a", "b", "c", "d"),
        ("a", "b", None, None),
    ]
    joined = {"items": {**PLAN["items"], "categories": {"column": "l1", "separator": "/", "depth": 5}}}
    del joined["items"]["category_l1"]
    deep = load(items="id,name,l1\n1,One,a/b/c/d/e/f\n2,Two,a\n", plan=joined)
    assert Dataset.from_tables(deep).levels == tuple(f"category_l{k}" for k in range(1, 6))
    assert deep.items["category_l5"].to_list() == ["e", None]
    none = {"items": {"file": "items.csv", "item_id": "id", "title": "name"}}
    assert Dataset.from_tables(load(plan=none)).levels == ()


LISTS = pl.DataFrame(
    {
        "id": [1, 2], "name": ["One", "Two"], "paths": [[["a", "b"], ["c"]], [["d"]]], "path": [["a", "b"], ["d"]],
        "sides": pl.Series([["x", "y"], ["z", "w"]], dtype=pl.Array(pl.String, 2)),
    }
)  # fmt: skip
EVENTS = pl.DataFrame({"u": ["x", "y"], "i": [1, 2], "t": [1_500_000_000, 1_500_000_001], "many": [["x"], ["y", "x"]]})


@pytest.mark.parametrize(
    ("column", "levels"), [("paths", [("a", "b"), ("d", None)]), ("path", [("a", "b"), ("d", None)]), ("sides", [("x", "y"), ("z", "w")])]
)  # fmt: skip
def test_categories_may_be_lists_and_lists_of_lists(load, caplog, column, levels):
    items = {"file": "i.parquet", "item_id": "id", "title": "name", "categories": {"column": column, "depth": 2}}
    tables = load(plan={"items": items}, files={"i.parquet": LISTS})
    assert tables.items.select("category_l1", "category_l2").rows() == levels
    assert ("1 items have several lists in paths" in caplog.text) == (column == "paths")


@pytest.mark.parametrize("role", ["item_id", "title", "price", "category_l1", "events.user_id", "events.item_id", "events.timestamp", "events.click"])  # fmt: skip
def test_lists_where_one_value_is_needed_are_one_clear_error(load, role):
    items = {"file": "i.parquet", "item_id": "id", "title": "name"}
    events = {
        "file": "e.parquet",
        "user_id": "u",
        "item_id": "i",
        "timestamp": {"column": "t", "unit": "s"},
        "click": 1,
    }
    table, _, name = role.rpartition(".")
    (events if table else items)[name] = "many == 1" if name == "click" else "many" if table else "path"
    with pytest.raises(TaijiError, match="has lists where one value is needed") as caught:
        load(plan={"items": items, "events": events}, files={"i.parquet": LISTS, "e.parquet": EVENTS})
    assert ("column many" if table else "column path") in str(caught.value)


def test_a_missing_rating_converts_nothing(load):
    frame = pl.DataFrame(
        {"u": ["x", "y", "x"], "i": ["1", "2", "2"], "t": [0, 1, 2], "stars": [5.0, float("nan"), None]}
    )
    events = {"file": "log.parquet", "timestamp": {"column": "t", "unit": "s"}}
    assert load(events=events, files={"log.parquet": frame}).events["conversion"].to_list() == [1, None, None]
    log = "u,i,t,stars\nx,1,2020-01-01,5\ny,2,2020-01-01,NaN\nx,2,2020-01-01,\n"
    assert load(log).events["conversion"].to_list() == [1, None, None]


def test_a_conversion_can_be_counted_as_a_click_too(load):
    log = "u,i,t,click,bought\nx,1,2020-01-01,1,0\ny,2,2020-01-01,0,1\nx,2,2020-01-01,0,0\n"
    rules = {"click": "click == 1 or bought == 1", "conversion": "bought"}
    made = load(log, events=rules).events
    assert made["click"].to_list() == [1, 1, 0] and made["conversion"].to_list() == [0, 1, 0]
    with pytest.raises(TaijiError, match="click: clicked or purchased"):
        load(log, events={**rules, "click": "click"})


def test_a_day_and_a_clock_are_one_time(load):
    log = "u,i,day,clock,stars\nx,1,22.07.2023,04:36:20,5\n"
    when = {"column": "day", "clock": "clock", "format": "%d.%m.%Y %H:%M:%S"}
    assert load(log, events={"timestamp": when}).events["timestamp"].to_list() == [datetime(2023, 7, 22, 4, 36, 20)]


def test_broken_cells_are_dropped_and_reported_with_their_rows(load):
    log = (
        "u,i,t,stars,paid,click\n"
        "x,1,2020-01-01,5,1.5,yes\n"
        "y,2,NULL,2,2,no\n"
        "x,2,2020-01-03,five,-3,yes\n"
        "x,2,9999,4,inf,no\n"
        "y,1,2020-01-04,1,n/a,maybe\n" + "y,1,2020-01-05,1,3,no\n" * 20
    )
    events = {"price": "paid", "click": "click"}
    with pytest.raises(TaijiError, match="unusable: drop"):
        load(log, events=events)
    made = load(log, events=events, plan={"unusable": "drop"})
    assert len(made.events) == 22
    assert made.events["price"].to_list()[:3] == [1.5, None, 3.0]
    assert made.events["conversion"].to_list()[:3] == [1, None, 0]
    told = {(column.column, column.part): column for column in made.reading.files[1].columns}
    assert told["t", "timestamp"].first == (4,) and told["t", "timestamp"].examples == ("9999",)
    assert told["paid", "price"].first == (3, 4) and told["paid", "price"].values == 24
    assert told["stars", "conversion"].first == (3,) and told["click", "click"].examples == ("maybe",)


def report_of(tables):
    assert tables.reading is not None
    return {file.table: file for file in tables.reading.files}


def test_identical_rows_of_an_item_are_one_and_counted(load):
    tables = load(items=ITEMS + "1,One,a\n2,Two,b\n")
    assert tables.items["item_id"].to_list() == ["1", "2"]
    file = report_of(tables)["items"]
    assert (file.rows, file.used) == (4, 2)
    assert [left.text for left in file.left_out] == ["2 rows that repeat an earlier one (rows 3, 4)"]


def test_the_first_row_with_a_title_is_used_if_the_mapping_allows_it(load):
    items = {**PLAN["items"], "one_per_id": True}
    tables = load(items="id,name,l1\n1,,a\n1,One,b\n2,Two,b\n2,Zwei,b\n", plan={"items": items})
    assert tables.items.select("item_id", "title", "category_l1").rows() == [("1", "One", "b"), ("2", "Two", "b")]
    (left,) = report_of(tables)["items"].left_out
    assert (left.rows, left.first) == (2, (1, 4)) and "the first row is used" in left.reason


@pytest.mark.parametrize(
    ("items", "log"),
    [
        ("id,name,l1\n1 ,One,a\n2,Two,b\n", LOG.replace(",1,", ", 1,")),
        (ITEMS, LOG.replace(",1,", ",1.0,").replace(",2,", ",2.0,")),
        (ITEMS, LOG.replace(",1,", ",001,")),
        (ITEMS.replace("1,One", "001,One"), LOG),
    ],
    ids=["spaces", "fractions", "padded log", "padded items"],
)
def test_ids_written_otherwise_find_their_items(load, items, log):
    tables = load(items=items, log=log)
    titles = dict(tables.items.select("item_id", "title").iter_rows())
    assert [titles[item] for item in tables.events["item_id"].to_list()] == ["One", "Two", "Two"]


def test_ids_that_may_be_two_are_not_merged_and_named(load):
    log = LOG + "y,002,2020-01-04 00:00:00,4\n"
    with pytest.raises(TaijiError, match=r"(?s)log\.csv, column item_id, row 4.*'2'.*'002'.*unusable: drop"):
        load(log=log)
    tables = load(log=log, plan={"unusable": "drop"})
    assert len(tables.events) == 3
    (match, _) = tables.reading.ids
    assert (match.rows, match.rows_known, match.near, match.near_examples) == (4, 3, 1, (("002", "2"),))
    assert any("'002' and '2'" in finding.found for finding in tables.reading.findings)


def test_broken_lines_are_an_error_with_advice_or_dropped_and_counted(load):
    items = ITEMS + '3,"Three,c\n4,Four\n'
    with pytest.raises(TaijiError, match=r"(?s)items\.csv, lines 4, 5.*unclosed.*unusable: drop"):
        load(items=items)
    file = report_of(load(items=items, plan={"unusable": "drop"}))["items"]
    assert (file.rows, file.used) == (4, 2)
    (left,) = file.left_out
    assert (left.unit, left.first) == ("line", (4, 5))


def test_rows_left_out_are_named_by_their_place_in_the_file(load):
    log = "u,i,t,stars\n,1,2020-01-01 00:00:00,5\n" + LOG.partition("\n")[2] + "z,9,2020-01-05 00:00:00,5\n"
    file = report_of(load(log=log, plan={"unusable": "drop"}))["events"]
    assert [(left.reason, left.first) for left in file.left_out] == [
        ("rows without a user_id", (1,)),
        ("rows whose item_id is missing from the items", (5,)),
    ]
    assert (file.rows, file.used) == (5, 3)


def test_a_log_in_parts(load, tmp_path):
    for number, line in enumerate(LOG.splitlines()[1:]):
        folder = tmp_path / "parts" / f"scene={number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.csv").write_text("u,i,t,stars\n" + line + "\n")
    tables = load(events={"file": "parts", "context": ["scene"]})
    assert sorted(tables.events.select("user_id", "item_id", "scene").rows()) == [
        ("x", "1", 0),
        ("x", "2", 0),
        ("y", "2", 1),
    ]
    assert report_of(tables)["events"].rows == 3


def test_a_unit_that_leads_out_of_the_calendar_is_named_with_its_rows(load):
    log = "u,i,t,stars\nx,1,1600000000,5\ny,2,1600000000000,2\n"
    with pytest.raises(TaijiError, match="row 2"):
        load(log=log, events={"timestamp": {"column": "t", "unit": "s"}})


def test_non_clicks_beside_clicks_that_are_no_exposures_are_an_error(load):
    with pytest.raises(TaijiError, match="not exposures"):
        load(events={"exposed": False, "non_clicks": 1})


def test_non_clicks_of_a_log_without_conversions_are_no_failed_conversions(load):
    items = "id,name,l1\n" + "".join(f"{k},Item {k},a\n" for k in range(20))
    log = "u,i,t,stars\n" + "".join(f"u{k % 9},{k * 7 % 20},{k},5\n" for k in range(200))
    events = {"timestamp": {"column": "t", "unit": "s"}, "conversion": None, "non_clicks": 2}
    made = load(log, items, events=events)
    assert (made.events["click"] == 0).any() and made.events["conversion"].null_count() == len(made.events)
    assert [task.name for task in Dataset.from_tables(made).tasks] == ["click"]


def test_html_entities_in_texts_are_read_and_counted(load):
    tables = load(items="id,name,l1\n1,H&amp;M &#8211; One,a &gt; b\n2,R&D;Two,b\n")
    assert (
        tables.items["title"].to_list() == ["H&M \u2013 One", "R&D;Two"] and tables.items["category_l1"][0] == "a > b"
    )
    said = [finding.found for finding in tables.reading.findings]
    assert any("1 value of name contains HTML entities" in text for text in said)
    long = load(items=f"id,name,l1\n1,{'x ' * 200}H&amp;M{' y' * 200},b\n2,R&D;Two,b\n")
    (told,) = [finding.found for finding in long.reading.findings if "HTML entities" in finding.found]
    assert "H&M" in told and len(told) < 300


def test_a_log_that_is_gone_is_named_with_the_place_where_it_was(load, tmp_path):
    load()
    (tmp_path / "mapping.yaml").rename(tmp_path / "other.yaml")
    settings = DataSettings(source=str(tmp_path / "away"), mapping=tmp_path / "other.yaml")
    with pytest.raises(TaijiError, match=r"The folder of the log is missing(.|\n)*away"):
        find_source(settings).state(settings)
    settings = DataSettings(source=str(tmp_path), mapping=tmp_path / "other.yaml")
    (tmp_path / "log.csv").unlink()
    with pytest.raises(TaijiError, match=r"A file is missing(.|\n)*log\.csv"):
        find_source(settings).state(settings)


def test_descriptions_are_a_column_of_the_items(load):
    items = "id,name,l1,about\n1,One,a,Made of oak &amp; ash\n2,Two,b,\n"
    plan = {"items": {**PLAN["items"], "description": "about"}}
    assert load(items=items, plan=plan).items["description"].to_list() == ["Made of oak & ash", None]
    with pytest.raises(TaijiError, match="remove about or description from keep"):
        load(items=items, plan={"items": {**plan["items"], "keep": ["about"]}})
    with pytest.raises(TaijiError, match="column tale"):
        load(items=items, plan={"items": {**PLAN["items"], "description": "tale"}})


def test_values_in_the_names_of_folders_are_part_of_the_state(load, tmp_path):
    load()
    day = tmp_path / "log" / "t=2020-01-01"
    day.mkdir(parents=True)
    (day / "part.csv").write_text("u,i,stars\nx,1,5\n")
    plan = {**PLAN, "events": {**PLAN["events"], "file": "log"}}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(plan))
    settings = DataSettings(source=str(tmp_path))
    before = find_source(settings).state(settings)
    assert find_source(settings).state(settings) == before
    day.rename(day.with_name("t=2020-02-01"))
    assert find_source(settings).state(settings) != before


def test_a_blank_title_is_a_missing_one(load):
    blank = 'id,name,l1\n1,"  ",a\n2,Two,b\n'
    with pytest.raises(TaijiError, match="title"):
        load(items=blank)
    assert load(items=blank, plan={"unusable": "drop"}).items["title"].to_list() == ["Two"]
    twice = {"items": {**PLAN["items"], "one_per_id": True}}
    assert load(items='id,name,l1\n1,"",a\n1,One,a\n2,Two,b\n', plan=twice).items["title"].to_list() == ["One", "Two"]


def test_numbers_of_times_are_read_in_the_notation_of_the_file(load):
    log = "u;i;t;stars\nx;1;45292,75;5\ny;2;45293,5;2\n"
    events = {"separator": ";", "decimal": ",", "timestamp": {"column": "t", "unit": "excel"}}
    times = load(log, events=events).events["timestamp"]
    assert times.to_list() == [datetime(2024, 1, 1, 18), datetime(2024, 1, 2, 12)]

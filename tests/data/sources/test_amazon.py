from __future__ import annotations

import gzip
import json

import pytest

from taiji.core.errors import TaijiError
from taiji.data import PERIODS, Dataset, ExampleSettings, exposures, load_source, make_examples, time_split
from taiji.data.sources.amazon import levels, plain_text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Shine &ndash; Pack of 10", "Shine – Pack of 10"),
        ("<b>Big</b> &amp; small<br/>tape", "Big & small tape"),
        ("a <!-- .x {color:#000} --> b", "a b"),
        ("a <style type='x'>p{}</style><script>var a=1</script> b", "a b"),
        ("kept <!-- cut off", "kept"),
        ("kept <br", "kept"),
        ("5 < 6 and 7 > 3", "5 < 6 and 7 > 3"),
        ("&lt;p&gt;text&lt;/p&gt;", "text"),
        (["one", " <i>two</i> ", ""], "one two"),
        (None, ""),
    ],
)
def test_plain_text(text, wanted):
    assert plain_text(text) == wanted


@pytest.mark.parametrize(
    ("categories", "brand", "wanted"),
    [
        ("", "HP", ["HP", None, None]),
        (["Office", "Paper", "Cards"], "HP", ["Office", "Paper", "HP"]),
        (["Office", "Paper", "Cards", "Blank"], None, ["Office", "Paper", "Cards"]),
        ([["Office", "Pens &amp; Ink"], ["Other"]], None, ["Office", "Pens & Ink", None]),
        ([], None, [None, None, None]),
    ],
)
def test_levels(categories, brand, wanted):
    assert levels(categories, brand) == wanted


def lines(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


RAW = {
    "2018": (
        [
            {"reviewerID": "u", "asin": "A", "overall": 5.0, "unixReviewTime": 1500000000},
            {"reviewerID": "u", "asin": "A", "overall": 4.0, "unixReviewTime": 1500000000},
            {"reviewerID": "v", "asin": "B", "overall": 2.0, "unixReviewTime": 1500000100},
            {"reviewerID": "v", "asin": "Z", "overall": 2.0, "unixReviewTime": 1500000100},
        ],
        [
            {
                "asin": "A",
                "title": "Pen &amp; Ink",
                "brand": "by\n  Pilot",
                "category": ["Office", "Pens"],
                "price": "$1,200.50",
                "description": ["<p>Nice</p>"],
            },
            {"asin": "A", "title": "Pen again"},
            {"asin": "B", "title": "var aPageStart = (new Date()).getTime();", "price": "see price in cart"},
        ],
        "reviews.json.gz",
        "meta_Office.json.gz",
    ),
    "2023": (
        [
            {"user_id": "u", "asin": "A1", "parent_asin": "A", "rating": 5.0, "timestamp": 1500000000000},
            {"user_id": "v", "parent_asin": "B", "rating": 1, "timestamp": 1500000100000},
        ],
        [
            {
                "parent_asin": "A",
                "title": "Pen & Ink",
                "store": "Pilot",
                "categories": ["Office", "Pens"],
                "price": 1200.5,
                "description": ["Nice"],
            },
            {"parent_asin": "B", "title": None, "price": None},
        ],
        "Office.jsonl",
        "meta_Office.jsonl",
    ),
}


@pytest.mark.parametrize("release", RAW)
def test_raw_folders(tmp_path, release):
    reviews, metadata, review_file, metadata_file = RAW[release]
    lines(tmp_path / review_file, reviews)
    lines(tmp_path / metadata_file, metadata)
    tables = load_source(tmp_path, domain="books")
    columns = ("item_id", "title", "category_l1", "category_l2", "category_l3", "price", "description")
    assert tables.items.select(columns).rows() == [
        ("A", "Pen & Ink", "Office", "Pens", "Pilot", 1200.5, "Nice"),
        ("B", "(untitled)", None, None, None, None, None),
    ]
    clicks = tables.events.filter(click=1)
    assert clicks.select("user_id", "item_id", "conversion").rows() == [("u", "A", 1), ("v", "B", 0)]
    assert clicks["timestamp"].dt.epoch("s").to_list() == [1500000000, 1500000100] and tables.domain == "books"
    said = " ".join(tables.notes)
    for note in ("1 reviews repeat", "1 metadata lines repeat", "1 reviews of products without metadata"):
        assert (note in said) == (release == "2018")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[0].pop("overall"), ["reviews.jsonl, object 1", "overall or rating"]),
        (lambda rows: rows[1].update(overall="five"), ["reviews.jsonl, object 2", "five"]),
    ],
)
def test_faults_of_raw_files_are_named(tmp_path, change, words):
    rows = [dict(row) for row in RAW["2018"][0]]
    change(rows)
    lines(tmp_path / "reviews.jsonl", rows)
    lines(tmp_path / "meta.jsonl", RAW["2018"][1])
    with pytest.raises(TaijiError) as caught:
        load_source(tmp_path)
    for word in words:
        assert word in str(caught.value)


def prepared(folder, log):
    (folder / "interactions.csv").write_text("user_id,pos,item_id,rating,timestamp\n" + log)
    lines(folder / "items.jsonl", [{"item_id": 0, "title": "Zero"}, {"item_id": 1, "title": "One", "brand": "HP"}])
    return folder


def test_the_prepared_layout(tmp_path):
    tables = load_source(prepared(tmp_path, "u,0,0,5,100\nu,1,1,3,100\n"))
    assert tables.events.filter(click=1)["item_id"].to_list() == [0, 1] and tables.items["category_l1"].to_list() == [
        None,
        "HP",
    ]


def test_reviews_of_one_time_are_in_the_declared_order(tmp_path):
    tables = load_source(prepared(tmp_path, "u,1,1,5,100\nv,0,1,5,90\nu,0,0,3,100\n"))
    assert tables.events.filter(click=1, user_id="u")["item_id"].to_list() == [0, 1]


@pytest.mark.parametrize("wrong", ['"B0"', "1.7", "true"])
def test_an_id_that_is_no_whole_number_is_an_error(tmp_path, wrong):
    folder = prepared(tmp_path, "u,0,0,5,100\n")
    with (folder / "items.jsonl").open("a") as file:
        file.write('{"item_id": ' + wrong + ', "title": "x"}\n')
    with pytest.raises(TaijiError, match="not a whole number"):
        load_source(folder)


def test_declared_order_is_checked(tmp_path):
    with pytest.raises(TaijiError, match=r"(?s)not in ascending order.*interactions\.csv, column timestamp, row 2"):
        load_source(prepared(tmp_path, "u,0,0,5,100\nu,1,1,3,99\n"))


def test_an_unknown_product_is_an_error(tmp_path):
    with pytest.raises(TaijiError, match=r"(?s)unknown id.*interactions\.csv.*row 1.*7"):
        load_source(prepared(tmp_path, "u,0,7,5,100\n"))


def test_a_folder_of_no_layout_is_a_clear_error(tmp_path):
    with pytest.raises(TaijiError, match="No Amazon layout"):
        load_source(f"amazon:{tmp_path}")


def test_the_real_office_products(public_data):
    tables = load_source(public_data / "amazon-office")
    assert (len(tables.users), len(tables.items), (tables.events["click"] == 1).sum()) == (3231, 3459, 22_447 - 1157)
    assert "1,157 reviews repeat" in " ".join(tables.notes)
    assert (
        tables.items["description"].drop_nulls().len() > 3000
        and not tables.items["description"].str.contains("<!--|<br |<br>|</p>").any()
    )
    assert not tables.items["title"].str.contains("&ndash;|&rdquo;|&nbsp;").any()
    dataset = Dataset.from_tables(tables)
    split = time_split(dataset)
    for period in PERIODS:
        assert len(exposures(dataset, split, period)) > 15_000
        assert len(make_examples(dataset, split, period, ExampleSettings(min_history=2), 0)) > 500

from __future__ import annotations

from datetime import datetime

import pytest

from taiji.core.errors import TaijiError
from taiji.data import PERIODS, Dataset, ExampleSettings, exposures, load_source, make_examples, time_split
from taiji.data.sources.movielens import GENRES_100K, readable_title


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("Matrix, The (1999)", "The Matrix (1999)"),
        ("Toy Story (1995)", "Toy Story (1995)"),
        (
            "City of Lost Children, The (Cité des enfants perdus, La) (1995)",
            "The City of Lost Children (Cité des enfants perdus, La) (1995)",
        ),
        ("Avventura, L' (1960)", "L'Avventura (1960)"),
        ("Good, the Bad and the Ugly, The (1966)", "The Good, the Bad and the Ugly (1966)"),
    ],
)
def test_articles_come_first_and_the_year_stays(title, wanted):
    assert readable_title(title) == wanted


def written(folder, files, encoding="utf-8"):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode(encoding))
    return folder


def flags(*genres):
    return "|".join("1" if genre in genres else "0" for genre in GENRES_100K)


LAYOUTS = {
    "100k": {
        "u.data": "1\t10\t5\t100\n2\t20\t3\t200\n",
        "u.item": f"10|Matrix, The (1999)|01-Jan-1999||http://x|{flags('Action', 'Sci-Fi')}\n20|Amélie (2001)|||http://y|{flags('unknown')}\n",
        "u.user": "1|24|M|technician|85711\n2|53|F|other|94043\n",
    },
    "1m": {
        "ratings.dat": "1::10::5::100\n2::20::3::200\n",
        "movies.dat": "10::Matrix, The (1999)::Action|Sci-Fi\n20::Amélie (2001)::\n",
        "users.dat": "1::M::25::17::48067\n2::F::56::0::70072\n",
    },
    "latest": {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,10,5.0,100\n2,20,3.5,200\n",
        "movies.csv": 'movieId,title,genres\n10,"Matrix, The (1999)",Action|Sci-Fi\n20,Amélie (2001),(no genres listed)\n',
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_every_layout_gives_the_same_tables(tmp_path, layout, encoding):
    if layout == "latest" and encoding == "latin-1":
        pytest.skip("this layout is UTF-8")
    tables = load_source(written(tmp_path / layout, LAYOUTS[layout], encoding))
    assert tables.items.drop("price").rows() == [
        (10, "The Matrix (1999)", "Action", "Sci-Fi", None),
        (20, "Amélie (2001)", None, None, None),
    ]
    clicks = tables.events.filter(click=1).select("user_id", "item_id", "timestamp", "conversion", "matured_at").rows()
    first, second = datetime(1970, 1, 1, 0, 1, 40), datetime(1970, 1, 1, 0, 3, 20)
    assert clicks == [(1, 10, first, 1, first), (2, 20, second, 0, second)]
    assert (tables.name, tables.domain) == (layout, "films") and any(
        "sampled, not observed" in note for note in tables.notes
    )
    if layout != "latest":
        assert (
            tables.users["gender"].to_list() == ["male", "female"]
            and "age" in tables.users.columns
            and "occupation" in tables.users.columns
        )
    assert load_source(f"movielens:{tmp_path / layout}").events.equals(tables.events)


@pytest.mark.parametrize(
    ("layout", "file", "old", "new", "words"),
    [
        ("latest", "ratings.csv", "3.5", "good", ["ratings.csv, column rating, row 2", "'good'"]),
        ("latest", "ratings.csv", "2,20", "2,30", ["unknown id", "ratings.csv", "column item_id, row 2", "30"]),
        ("latest", "movies.csv", "genres", "kinds", ["movies.csv, column genres"]),
        ("1m", "movies.dat", "20::", "", ["movies.dat, line 2"]),
        ("1m", "movies.dat", "20::", "²::", ["movies.dat, line 2"]),
        ("1m", "users.dat", "56::0", "56::21", ["users.dat, line 2", "field 4", "below 21"]),
        ("1m", "users.dat", "25::17", "25::cook", ["users.dat, line 1", "field 4"]),
        ("100k", "u.data", "2\t20\t3\t200", "2\t20\tx\t200", ["u.data, column rating, row 2", "'x'"]),
    ],
)
def test_faults_are_named(tmp_path, layout, file, old, new, words):
    files = {**LAYOUTS[layout], file: LAYOUTS[layout][file].replace(old, new)}
    with pytest.raises(TaijiError) as caught:
        load_source(written(tmp_path / "x", files))
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_folder_of_no_layout_is_a_clear_error(tmp_path):
    with pytest.raises(TaijiError, match=r"u\.data and u\.item"):
        load_source(f"movielens:{tmp_path}")


def test_the_real_latest_small(public_data):
    folder = public_data / "ml-latest-small"
    tables = load_source(folder, seed=1)
    assert (len(tables.users), len(tables.items)) == (610, 9742)
    clicks = tables.events.filter(click=1)
    assert len(clicks) == 100_836 and clicks["conversion"].sum() == 48_580
    dataset = Dataset.from_tables(tables)
    split = time_split(dataset)
    for period in PERIODS:
        assert 0.19 < exposures(dataset, split, period)["click"].mean() < 0.22
        assert len(make_examples(dataset, split, period, ExampleSettings(), 0)) > 90
    few = load_source(folder, seed=1, users=60)
    whole = tables.events.filter(tables.events["user_id"].is_in(few.users["user_id"].implode()))
    assert len(few.users) == 60 and few.events.equals(whole)  # a sample of users changes nothing about those kept

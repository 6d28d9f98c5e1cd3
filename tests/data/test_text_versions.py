from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import ConfigError, InputError
from taiji.data.availability import EVER
from taiji.data.dataset import Dataset
from taiji.data.knowledge_rows import own_knowledge, with_knowledge
from taiji.data.text_versions import TextVersions, is_column, text_versions
from taiji.testing import checkerboard, exposures_of
from taiji.world import World

BOARD = checkerboard()
VERSIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 5), st.sampled_from(["", " ", "a", "b"])), max_size=12)


@settings(max_examples=150, deadline=None)
@given(VERSIONS, st.lists(st.tuples(st.integers(-1, 5), st.integers(-7, 7)), max_size=8))
def test_a_row_reads_the_last_text_that_was_written_by_its_time(given_versions, asked):
    unique = list({(item, since): (item, since, text) for item, since, text in given_versions}.values())
    items, since, texts = (list(column) for column in zip(*unique)) if unique else ([], [], [])
    versions = TextVersions.of(np.array(items, dtype=int), np.array(since, dtype=int), texts)
    assert all(text.strip() for text in versions.texts)
    who, when = np.array([a for a, _ in asked], dtype=int), np.array([t for _, t in asked], dtype=int)
    for item, time, number in zip(who, when, versions.at(who, when)):
        known = sorted((s, t) for i, s, t in unique if i == item and s <= time and t.strip())
        assert (versions.texts[number - 1] if number else None) == (known[-1][1] if known else None)
        if number:
            assert versions.items[number - 1] == item and versions.since[number - 1] <= time


def test_texts_come_from_the_catalogue_from_a_template_and_from_a_column():
    titles = text_versions(BOARD, "")
    assert titles.texts[1] == "black piece 1" and (titles.since == EVER.min).all()
    assert text_versions(BOARD, "A {category_l1} thing: {title}").texts[0] == "A white thing: white piece 0"
    told = pl.DataFrame({"item_id": ["i3", "i5"], "text": ["three", None], "available_at": [7, 8]})
    known = text_versions(with_knowledge(BOARD, told), "knowledge")
    assert known.texts == ("three",) and known.items.tolist() == [3] and known.since.tolist() == [7]
    assert known.at(np.array([3, 3, 5]), np.array([6, 7, 9])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("source", ["nowhere", "{nowhere}", "{title", "click", "{title:.2f}", "{title.size}"])
def test_missing_texts_and_outcomes_are_rejected(source):
    with pytest.raises(ConfigError, match=r"ranking\.texts"):
        text_versions(BOARD, source)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_of_texts_are_read_in_their_unit(unit):
    when = pl.Series("says_at", [5_000], dtype=pl.Int64).cast(pl.Datetime("us")).cast(pl.Datetime(unit))
    items = BOARD.items.with_columns(says=pl.lit("x"), says_at=when.first())
    assert set(text_versions(replace(BOARD, items=items), "says").since.tolist()) == {5_000}
    with pytest.raises(InputError, match="says_at"):
        text_versions(replace(BOARD, items=items.with_columns(says_at=pl.lit("soon"))), "says")


@pytest.fixture(scope="module")
def rooms():
    return Dataset.from_tables(World("live", 0, users=20, items=30, days=2).log())


def test_displayed_texts_count_from_their_first_display(rooms):
    versions = text_versions(rooms, "room_text")
    shown = exposures_of(rooms)
    numbers = versions.at(shown["item"].to_numpy(), shown["time"].to_numpy())
    assert [versions.texts[number - 1] for number in numbers] == shown["room_text"].to_list()
    first = int(shown["time"].min())
    assert not versions.at(np.arange(30), np.full(30, first - 1)).any()


def test_a_text_that_was_written_after_its_display_is_rejected(rooms):
    columns = rooms.event_columns.model_copy(update={"bias": (*rooms.event_columns.bias, "room_text_at")})
    for late, fails in ((0, False), (1, True)):
        written = pl.when(pl.int_range(pl.len()) == 5).then(pl.col("time") + late).otherwise(pl.col("time"))
        events = rooms.events.with_columns(room_text_at=written)
        log = replace(rooms, events=events, event_columns=columns)
        if fails:
            with pytest.raises(InputError, match="1 of"):
                text_versions(log, "room_text")
        else:
            assert len(text_versions(log, "room_text"))


def test_texts_that_were_all_written_after_the_window_are_rejected():
    rows, end = exposures_of(BOARD), 100
    early = TextVersions.of(np.arange(20), np.full(20, end - 1), ["x"] * 20)
    early.check(rows, end, "here")
    late = TextVersions.of(np.arange(20), np.where(np.arange(20) == 4, end, end - 1), ["x"] * 20)
    with pytest.raises(InputError, match="1 of 20 items"):
        late.check(rows, end, "here")
    late.check(rows.filter(pl.col("item") != 4), end, "here")  # an item that is not learnt from may come later
    TextVersions.of(np.array([4, 4]), np.array([end - 1, end + 1]), ["x", "y"]).check(rows, end, "here")


def test_versions_are_restored_for_the_items_of_the_dataset():
    versions = text_versions(BOARD, "")
    fewer = replace(BOARD, items=BOARD.items.filter(pl.col("item") != 2).with_columns(item=pl.int_range(pl.len())))
    restored = TextVersions.restore(versions.tensors(BOARD), fewer)
    assert restored.texts == (*versions.texts[:2], *versions.texts[3:]) and restored.items.tolist() == list(range(19))
    assert is_column(BOARD, "") and is_column(BOARD, "title") and not is_column(BOARD, "x")


def test_knowledge_of_a_catalogue_is_used_when_its_field_uses_it():
    """ISO 8601 texts are times, and knowledge without a time is used from the listing of its item on."""
    items = BOARD.items.with_columns(
        knowledge=pl.lit("x"),
        knowledge_at=pl.Series(["2024-01-02", *[None] * (BOARD.n_items - 1)]),
        available_from=pl.Series([0, 7_000, *[0] * (BOARD.n_items - 2)]),
    )
    dataset = replace(BOARD, items=items)
    expected = own_knowledge(dataset)["available_at"].to_list()
    assert text_versions(dataset, "knowledge").since.tolist() == expected and expected[1] == 7_000
    assert text_versions(dataset, "{title}: {knowledge}").since.tolist() == expected, (
        "no template is earlier than its columns"
    )


def test_a_template_needs_the_columns_that_it_names():
    assert is_column(BOARD, "{title}") and not is_column(BOARD, "{title} {knowledge}")

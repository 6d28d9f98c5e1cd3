"""Lines of items become clicks in their order; what is wrong is named by its line."""

import pytest

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.sources import load_source


def test_order_and_catalogue(tmp_path):
    (tmp_path / "sequences.txt").write_text("u1 b a c\n\nu2 a\n")
    tables = load_source(f"sequences:{tmp_path}")
    data = Dataset.from_tables(tables)
    names = data.items["item_id"].to_list()
    first = data.users["user_id"].to_list().index("u1")
    assert [names[i] for i in data.history.before(first, 2**62)[0]] == ["c", "a", "b"]
    assert sorted(names) == ["a", "b", "c"] and "no times" in tables.notes[0] and tables.name == tmp_path.name
    few = load_source(f"sequences:{tmp_path}/sequences.txt", users=1)
    assert len(few.users) == 1 and len(few.items) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("u1 a\nu2\n", "line 2"), ("u1 a\nu2 b\nu1 c\n", "first on line 1"), ("", "empty")],
)
def test_wrong_lines_are_named(tmp_path, text, message):
    (tmp_path / "s.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load_source(f"sequences:{tmp_path}/s.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="Could not read"):
        load_source(f"sequences:{tmp_path}/none.txt")


def test_published_sequences(public_data):
    data = Dataset.from_tables(load_source(f"sequences:{public_data}/s3rec-Beauty"))
    assert (data.n_users, data.n_items, len(data.events)) == (22363, 12101, 198502)

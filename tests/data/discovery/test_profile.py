"""Profile columns: what prompts may tell, and what stays out with its reason."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from taiji.data.discovery.profile import profile
from taiji.data.discovery.table_files import read_tables

PEOPLE = 40


def look(folder, **columns):
    base = {"user_id": [f"u{k}" for k in range(PEOPLE)], **columns}
    pl.DataFrame(base).write_csv(folder / "users.csv")
    ((table,), _) = read_tables(folder)
    items = [pl.Series([str(k) for k in range(100, 140)]), pl.Series([f"Thing {k}" for k in range(100, 140)])]
    return profile(table, [column for column in table.columns.values() if column.name != "user_id"], items)


def test_columns_that_describe_users_are_shown(tmp_path):
    found = look(
        tmp_path,
        region=["north" if k % 2 else "south" for k in range(PEOPLE)],
        age=[20 + k % 30 for k in range(PEOPLE)],
        member=[k % 2 for k in range(PEOPLE)],
    )
    assert found.told == ("region", "age", "member") and not found.left_out and not found.doubt


def test_ids_contact_data_and_answers_stay_out_with_the_reason(tmp_path):
    found = look(
        tmp_path,
        region=["north" if k % 2 else "south" for k in range(PEOPLE)],
        next_item=[f"{100 + k}" for k in range(PEOPLE)],
        favourite=[f"Thing {100 + k}" for k in range(PEOPLE)],
        last_purchase=[f"{100 + k % 9}" for k in range(PEOPLE)],
        total_spent=[k * 3.5 for k in range(PEOPLE)],
        churn=[k % 2 for k in range(PEOPLE)],
        email=[f"p{k}@mail.example" for k in range(PEOPLE)],
        contact=[f"q{k % 7}@mail.example" for k in range(PEOPLE)],
        phone=[f"+49 30 1234{k:03d}" for k in range(PEOPLE)],
        plz=[10000 + k for k in range(PEOPLE)],
    )
    assert found.told == ("region",)
    reasons = found.left_out
    assert set(reasons) == {
        "next_item", "favourite", "last_purchase", "total_spent", "churn", "email", "contact", "phone", "plz",
    }  # fmt: skip
    assert "item ids" in reasons["last_purchase"] and "refers to items" in reasons["next_item"]
    assert "by its values" in reasons["contact"] and "by its name" in reasons["phone"]
    assert "email (contact data" in found.doubt and "--set" in found.doubt


def test_personal_texts_and_keys_are_not_shown(tmp_path):
    found = look(
        tmp_path,
        about=[f"likes {k} and tea" for k in range(PEOPLE)],
        nickname=[f"cat{k % 30}" for k in range(PEOPLE)],
        number=list(range(PEOPLE)),
        joined=[date(2020, 1, 1) + timedelta(days=k % 5) for k in range(PEOPLE)],
    )
    assert found.told == ()


def test_counts_over_a_window_segments_of_behaviour_and_other_ids_stay_out(tmp_path):
    found = look(
        tmp_path,
        region=["north" if k % 2 else "south" for k in range(PEOPLE)],
        n_plays_30d=[k * 3 for k in range(PEOPLE)],
        actions_last_7_days=[k % 9 for k in range(PEOPLE)],
        rfm_segment=["new" if k % 3 else "lost" for k in range(PEOPLE)],
        account_id=[f"acc{k // 2}" for k in range(PEOPLE)],
        customer_type=["firm" if k % 4 else "person" for k in range(PEOPLE)],
    )
    assert found.told == ("region", "customer_type")
    assert found.left_out["account_id"] == "another id of the user"
    assert all(
        "derived from user behaviour" in found.left_out[name]
        for name in ("n_plays_30d", "actions_last_7_days", "rfm_segment")
    )

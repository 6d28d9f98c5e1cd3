"""A field that must pay is kept where it predicts later rows better, and is gone where it does not."""

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import ConfigError
from taiji.data.fields import NumbersField, Rows, make_field
from taiji.models.ranking.default_fields import must_pay, settled
from taiji.models.ranking.paying_fields import Worth, losses_by_group, worth
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.train import load_ranker, train_ranker
from taiji.testing import checkerboard, exposures_of

HERE = "tests.models.ranking.test_paying_fields"


def secret(time: np.ndarray) -> np.ndarray:
    """Return a bit of each time that nothing in the log knows."""
    return np.sin(time // 3_600_000_000 % 9_973 * 12.9898) > 0


class Secret(NumbersField):
    """The bit that decides about clicks."""

    def __init__(self, name: str = "secret") -> None:
        super().__init__(name, "pair")
        self.options = {"name": name}

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.name,)

    def matrix(self, rows: Rows) -> np.ndarray:
        return secret(rows.time).astype(np.float32)[:, None]


class Noise(NumbersField):
    """Sixty numbers that tell rows apart and nothing else."""

    def __init__(self, name: str = "noise") -> None:
        super().__init__(name, "pair")
        self.options = {"name": name}

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self.name}_{place}" for place in range(60))

    def matrix(self, rows: Rows) -> np.ndarray:
        keys = rows.time[:, None] % 99_991 * 61 + rows.user[:, None] * 7 + np.arange(60) * 131
        return np.sin(keys.astype(np.float64) * 12.9898).astype(np.float32)


def settings(*fields, **more):
    return RankerSettings(
        embeddings=False, pair_fields=(), fields=fields, min_steps=200, batch=64, tasks=("click",), **more
    )


@pytest.fixture(scope="module")
def board():
    return checkerboard(12, 10, 4)


@pytest.fixture(scope="module")
def rows(board):
    found = exposures_of(board)
    return found.with_columns(click=pl.Series(secret(found["time"].to_numpy()), dtype=pl.Int8))


def test_what_pays_is_kept_and_what_does_not_is_gone(board, rows, tmp_path):
    asked = [{"field": f"{HERE}:{kind}", "must_pay": True} for kind in ("Secret", "Noise")]
    ranker = train_ranker(board, rows, settings(*asked))
    names = [field.name for field in ranker.fieldset.numbers]
    assert "secret" in names and "noise" not in names
    assert [(found.field, found.pays) for found in ranker.worths] == [("noise", False), ("secret", True)]
    alone = train_ranker(board, rows, settings(f"{HERE}:Secret"))
    assert alone.predict(rows).equals(ranker.predict(rows))
    ranker.save(tmp_path / "ranker")
    again = load_ranker(tmp_path / "ranker", board)
    assert again.worths == ranker.worths and again.predict(rows).equals(ranker.predict(rows))


def test_a_field_that_need_not_pay_stays(board, rows):
    ranker = train_ranker(board, rows, settings(f"{HERE}:Noise"))
    assert ranker.worths == () and "noise" in [field.name for field in ranker.fieldset.numbers]


def test_nothing_is_left_out_where_nothing_is_known_of_later_rows(board, rows):
    asked = settings({"field": f"{HERE}:Noise", "must_pay": True})
    late = rows.tail(30).with_columns(click=pl.lit(None, pl.Int8), conversion=pl.lit(None, pl.Int8))
    ranker = train_ranker(board, rows.head(300), asked, valid=late)
    assert ranker.worths == () and "noise" in [field.name for field in ranker.fieldset.numbers]


def test_worth_is_the_difference_of_the_mean_losses():
    without, given, rows = np.array([0.5, 0.7, 9.0]), np.array([0.4, 0.7, 9.0]), np.array([30, 10, 0])
    found = worth("text", without, given, rows)
    np.testing.assert_allclose(found.gain, (0.1 * 30 + 0.0 * 10) / 40)
    np.testing.assert_allclose(found.error, np.std([0.15, 0.0], ddof=1) / np.sqrt(2))
    assert worth("text", without + 1, given, rows).pays and not worth("text", given, without, rows).pays
    alone = worth("text", without[:1], given[:1], rows[:1])
    assert alone.error == alone.gain > 0


def test_groups_of_users_hold_all_rows_and_their_losses_the_whole_loss(board, rows):
    ranker = train_ranker(board, rows, settings())
    later = ranker.inputs.arrays(rows)
    losses, counts = losses_by_group(ranker, later)
    labels, logits = later.labels["click"].astype(float), ranker.logits(later)[:, 0]
    expected = np.mean(np.logaddexp(0, logits) - labels * logits)
    assert counts.sum() == len(later)
    np.testing.assert_allclose((losses * counts).sum() / counts.sum(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "asked",
    [{"field": "category", "column": "age", "must_pay": True}, {"field": "number", "column": "price", "must_pay": 2}],
)
def test_only_numbers_can_be_asked_to_pay(asked):
    with pytest.raises(ConfigError, match=r"numbers|must_pay"):
        make_field(asked, "ranking.fields[0]")


def test_settled_settings_hold_what_paid_and_ask_no_more(board, rows):
    asked = settings(*[{"field": f"{HERE}:{kind}", "must_pay": True} for kind in ("Secret", "Noise")])
    ranker = train_ranker(board, rows, asked)
    found = settled(ranker.settings, ranker.worths)
    assert must_pay(asked) and not must_pay(found) and found.fields == ({"field": f"{HERE}:Secret"},)
    again = train_ranker(board, rows, found)
    assert again.worths == () and again.predict(rows).equals(ranker.predict(rows))
    usual = settled(RankerSettings(), [Worth("text_match", -0.1, 0.01)])
    assert usual.pair_fields == ({"field": "collaborative", "least_rows": 20_000},)

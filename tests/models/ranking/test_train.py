from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score
from tests.models.ranking.conftest import exposures_of, shop_tables, with_features

from taiji.core.errors import TaijiError
from taiji.data.dataset import Dataset
from taiji.data.splits import later_slice
from taiji.models.ranking import Ranker, train_ranker
from taiji.models.ranking.settings import RankerSettings

SMALL = RankerSettings(dimension=8, history=20, neighbour=10, hidden=(32,), batch=256, epochs=6, min_steps=1)


@pytest.fixture(scope="module")
def split(exposures):
    return later_slice(exposures, 0.25)


@pytest.fixture(scope="module")
def trained(shop, split):
    return train_ranker(shop, split[0], SMALL, seed=1)


def test_learns_what_there_is_to_learn(trained, split):
    test = split[1]
    predicted = trained.predict(test)
    assert predicted.columns == ["event", "click", "conversion", "ctcvr"] and predicted["event"].equals(test["event"])
    assert roc_auc_score(test["click"], predicted["click"]) > 0.72
    judged = (test["click"] == 1) & test["conversion"].is_not_null()
    assert roc_auc_score(test.filter(judged)["conversion"], predicted.filter(judged)["conversion"]) > 0.62
    assert np.allclose(predicted["ctcvr"], predicted["click"] * predicted["conversion"])
    assert abs(predicted["click"].mean() - test["click"].mean()) < 0.05


def test_without_embeddings_a_row_is_its_numbers(shop, split, tmp_path):
    ranker = train_ranker(shop, split[0], SMALL.model_copy(update={"embeddings": False}))
    arrays = ranker.inputs.arrays(split[1])
    assert not arrays.sequences
    other = ranker.inputs.arrays(split[1])
    other = replace(other, user=np.roll(other.user, 7), item=np.roll(other.item, 11))
    assert np.array_equal(ranker.logits(arrays), ranker.logits(other))
    predicted = ranker.predict(split[1])
    assert roc_auc_score(split[1]["click"], predicted["click"]) > 0.7
    ranker.save(tmp_path / "numbers")
    assert Ranker.load(tmp_path / "numbers", shop).predict(split[1]).equals(predicted)


def test_alignment_without_embeddings_is_refused():
    with pytest.raises(ValueError, match="embeddings must be true"):
        RankerSettings(text="select_align", embeddings=False)


def test_same_seed_same_weights_other_seed_others(shop, split, trained):
    assert train_ranker(shop, split[0], SMALL, seed=1).version == trained.version
    assert train_ranker(shop, split[0], SMALL, seed=2).version != trained.version


def test_save_and_load_predict_the_same(shop, split, trained, tmp_path):
    trained.save(tmp_path / "ranker")
    assert {f.name for f in (tmp_path / "ranker").iterdir()} == {"model.safetensors", "config.json"}
    loaded = Ranker.load(tmp_path / "ranker", shop)
    assert loaded.predict(split[1]).equals(trained.predict(split[1])) and loaded.version == trained.version
    (tmp_path / "ranker" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(TaijiError, match="Could not read the weights"):
        Ranker.load(tmp_path / "ranker", shop)


def test_a_grown_shop_keeps_its_scores(split, trained, tmp_path):
    """More users and items shift every dense id; rows are found by the ids as given."""
    tables = shop_tables()
    grown = tables.__class__(
        pl.concat(
            [
                tables.items.head(2).with_columns(
                    pl.lit("new").alias("title"), ("x" + pl.col("item_id")).alias("item_id")
                ),
                tables.items,
            ]
        ),
        pl.concat([tables.users.head(3).with_columns(("x" + pl.col("user_id")).alias("user_id")), tables.users]),
        tables.events,
    )
    dataset = Dataset.from_tables(grown)
    trained.save(tmp_path / "ranker")
    after = exposures_of(dataset).filter(pl.col("event").is_in(split[1]["event"].implode()))
    # not exactly: the two new items join the mean prices of their categories
    assert np.allclose(
        Ranker.load(tmp_path / "ranker", dataset).predict(after)["click"], trained.predict(split[1])["click"], atol=0.05
    )


def test_score_is_ctcvr(trained, split):
    rows = split[1].head(20)
    score = trained.score_pairs(rows["user"].to_numpy(), rows["item"].to_numpy(), rows["time"].to_numpy())
    assert np.array_equal(score, trained.predict(rows)["ctcvr"].to_numpy())
    assert trained.score_pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int)).shape == (0,)


def test_future_events_and_labels_change_no_prediction(trained, split, tmp_path):
    tables = shop_tables()
    now = split[1]["time"][200]
    events = tables.events.with_columns(
        pl.when(pl.col("timestamp").cast(pl.Int64) >= now)
        .then(0)
        .otherwise(pl.col("click"))
        .cast(pl.Int8)
        .alias("click"),
        pl.when(pl.col("timestamp").cast(pl.Int64) >= now)
        .then(0)
        .otherwise(pl.col("conversion"))
        .cast(pl.Int8)
        .alias("conversion"),
    )
    trained.save(tmp_path / "ranker")
    other = Ranker.load(tmp_path / "ranker", Dataset.from_tables(tables.__class__(tables.items, tables.users, events)))
    rows = split[1].filter(pl.col("time") <= now)
    assert other.predict(rows).equals(trained.predict(rows))


@pytest.mark.parametrize("text", ["none", "projection", "experts", "select_align"])
@pytest.mark.parametrize("tower", ["shared", "mmoe"])
def test_every_feature_module_and_tower_trains(shop, split, text, tower, tmp_path):
    settings = SMALL.model_copy(update={"text": text, "tower": tower, "chunks": 2, "epochs": 1})
    frame = with_features(split[0])
    ranker = train_ranker(shop, frame, settings, seed=0)
    assert np.isfinite(ranker.predict(frame)["ctcvr"].to_numpy()).all()
    ranker.save(tmp_path / "ranker")
    assert Ranker.load(tmp_path / "ranker", shop).predict(frame).equals(ranker.predict(frame))
    assert roc_auc_score(split[1]["click"], ranker.predict(split[1])["click"]) > 0.65


def test_extractor_alone_leaves_the_backbone_as_it_is(shop, split, trained):
    frame = with_features(split[0])
    settings = SMALL.model_copy(update={"text": "select_align", "chunks": 2, "epochs": 1})
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    extended = trained.extend(frame, settings, seed=0)
    after = extended.network.state_dict()
    assert all((after[name] == value).all() for name, value in before.items())
    assert any((after[name] != 0).any() for name in after if name == "knowledge.output.weight")
    bare = extended.logits(extended.inputs.arrays(split[1]))
    assert np.allclose(bare[:, 0], trained.logits(trained.inputs.arrays(split[1]))[:, 0], atol=1e-5)


def test_until_hides_later_rows(shop, split):
    cut = int(split[0]["time"].quantile(0.6))
    early = train_ranker(shop, split[0].filter(pl.col("time") < cut), SMALL, seed=3)
    assert train_ranker(shop, split[0], SMALL, seed=3, until=cut).version == early.version


def test_nothing_to_learn_is_explained(shop, exposures):
    with pytest.raises(TaijiError, match="nothing to learn"):
        train_ranker(shop, exposures.filter(pl.col("click") == 1), SMALL)
    some = exposures.with_columns(click=pl.when(pl.col("click") == 1).then(1))  # 1 or unknown
    with pytest.raises(TaijiError, match="nothing to learn"):
        train_ranker(shop, some, SMALL)
    with pytest.raises(TaijiError, match="Columns are missing"):
        train_ranker(shop, exposures.drop("click"), SMALL)


def test_small_vectors_are_read_as_well_as_large_ones(shop, split):
    settings = RankerSettings(text="projection", hidden=(16,), min_steps=60, dropout=0.0)
    users = np.random.default_rng(0).normal(size=(shop.n_users, 4))

    def scores(scale):
        vectors = (users * scale + 3 * scale)[split[0]["user"].to_numpy()].tolist()
        rows = split[0].with_columns(vector=pl.Series(vectors, dtype=pl.List(pl.Float32)))
        return train_ranker(shop, rows, settings, seed=0).predict(rows)["click"].to_numpy()

    np.testing.assert_allclose(scores(0.01), scores(1.0), atol=0.02)

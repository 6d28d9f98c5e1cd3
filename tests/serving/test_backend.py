"""The real writer and rankers on a run directory that the pipeline's own stages made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.tiny import configuration, write_shop

from taiji.config import Config
from taiji.core.artifacts import read_json, write_json
from taiji.core.errors import ArtifactError, TaijiError
from taiji.data.dataset import Dataset
from taiji.data.stored import StoredDataset
from taiji.language.tiny import tiny_tokenizer
from taiji.pipeline.engine import Context
from taiji.pipeline.recipes import ENHANCE
from taiji.reasoning.prompts import student_prompt
from taiji.reasoning.settings import PromptSettings
from taiji.serving import backend
from taiji.serving.live_dataset import World
from taiji.serving.scorers import Scorers
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store
from taiji.serving.stores import open_store
from taiji.serving.types import Event, FeatureRow, RankRequest, UserDirectory, UserHistory

LATER = 1_700_000_000_000_000


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages data, examples, evaluation_ranker, features and ranking; a tiny random model stands where alignment leaves
    its own."""
    from taiji.language.tiny import tiny_causal_lm

    folder = tmp_path_factory.mktemp("serving") / "small"
    model = folder / "alignment" / "model"
    lm, tokenizer = tiny_causal_lm()
    lm.save_pretrained(model)
    tokenizer.save_pretrained(model)
    values = configuration(write_shop(folder.parent / "shop", users=20, items=40, events=1500), model)
    values["generation"] = {
        "max_new_tokens": 12,
        "temperature": 2.0,
    }  # so that a random model says something different to each
    config = Config.model_validate(values)
    write_json(folder / "config.json", config.model_dump(mode="json"))
    wanted = ("data", "examples", "evaluation_ranker", "features", "ranking")
    for stage in (stage for stage in ENHANCE if stage.name in wanted):
        context = Context(config, folder / stage.name, folder / ".work" / stage.name, folder, stage.needs)
        context.folder.mkdir(exist_ok=True)
        stage.run(context)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(ServingSettings(store=f"sqlite:{tmp_path / 'store.sqlite3'}"))


def batch_rows(run: Path) -> list[FeatureRow]:
    return [row for portion in backend.rows(run) for row in portion]


def test_the_release_names_the_versions(run: Path) -> None:
    release = backend.release(run)
    assert release.name == f"small-{release.model_version[:8]}-{release.quantizer_version[:8]}"
    assert {(row.model_version, row.quantizer_version) for row in batch_rows(run)} == {
        (release.model_version, release.quantizer_version)
    }


def test_rows_are_the_newest_of_each_user_with_text_ids(run: Path) -> None:
    rows, table = batch_rows(run), pl.read_parquet(run / "features" / "taiji.parquet")
    assert len(rows) == table["user"].n_unique() and all(
        row.user.startswith("u") and row.events_seen == 0 for row in rows
    )
    assert [row.as_of for row in rows] == table.group_by("user").agg(pl.col("as_of").max()).sort("user")[
        "as_of"
    ].to_list()
    assert all(item.startswith("S") for row in rows for item in row.neighbour_items)


def test_without_news_the_writer_writes_what_the_batch_stage_wrote(run: Path, store: Store) -> None:
    writer = backend.writer(run, ServingSettings(), store)
    release = backend.release(run)
    assert (writer.model_version, writer.quantizer_version) == (release.model_version, release.quantizer_version)
    rows = batch_rows(run)
    again = writer.write([UserHistory(row.user, row.as_of) for row in rows])
    assert [replace(row, generated_at=0) for row in again] == [replace(row, generated_at=0) for row in rows]
    assert len({row.ids for row in rows}) > 1  # the model does say different things
    assert writer.usage.prompt_tokens > 100 * len(rows) and writer.usage.completion_tokens > 0
    one = writer.write([UserHistory(rows[1].user, rows[1].as_of)])[0]  # alone as in company
    assert one.ids == rows[1].ids


def test_events_reach_the_prompt_and_strangers_are_welcome(run: Path, store: Store) -> None:
    world = World(run)
    events = (
        Event("a", "u1", "S3", LATER - 5),
        Event("b", "u1", "S4", LATER - 4, click=0),
        Event("c", "u1", "unheard-of", LATER - 3),
        Event("d", "u1", "S7", LATER),
    )
    known, stranger, forgotten = (
        UserHistory("u1", LATER, events, 4),
        UserHistory("new", LATER, (Event("e", "new", "S9", LATER - 1),), 1),
        UserHistory("u1", LATER, events[:1], 1, forgotten=True),
    )
    dataset = world.of([known, stranger, forgotten])
    base = world.dataset.history.before(world.users["u1"], LATER)[0]
    items = [[world.item_names[i] for i in dataset.history.before(user, LATER)[0]] for user in range(3)]
    assert items[0] == [
        "S3",
        *(world.item_names[i] for i in base),
    ]  # not the non-click, not the unknown, not what lies at as_of
    assert items[1] == ["S9"] and items[2] == ["S3"]
    assert dataset.users["user_id"].to_list() == ["u1", "new", "u1"]
    rows = backend.writer(run, ServingSettings(), store).write([known, stranger, forgotten])
    assert [row.user for row in rows] == ["u1", "new", "u1"] and [row.events_seen for row in rows] == [4, 1, 1]


def test_prices_known_from_events_alone_reach_the_prompt(run: Path) -> None:
    """What an item cost is known from everybody's events; a live dataset holds a few users' only."""
    world = World(run)
    items, events = (
        frame.with_columns(price=pl.lit(price))
        for frame, price in ((world.dataset.items, None), (world.dataset.events, 2.5))
    )
    whole = Dataset.load(run / "data" / "dataset")
    world.dataset = replace(whole, items=items.cast({"price": pl.Float64}), events=events)
    settings, tokenizer = PromptSettings.model_validate(world.config["reasoning"]["prompts"]), tiny_tokenizer()
    offline = student_prompt(world.dataset, world.users["u1"], LATER, settings, tokenizer).messages
    online = student_prompt(world.of([UserHistory("u1", LATER)]), 0, LATER, settings, tokenizer).messages
    assert online == offline and "price 2.50" in str(online)


def test_an_event_that_the_log_has_as_well_counts_once(run: Path) -> None:
    world = World(run)
    items, times = world.dataset.history.before(0, LATER)
    name = str(world.dataset.users["user_id"][0])
    same = Event("a", name, world.item_names[items[0]], int(times[0]))
    assert len(world.interactions(UserHistory(name, LATER, (same,)))[0]) == len(items)


def test_an_erased_user_is_nobodys_look_alike(run: Path, store: Store) -> None:
    rows = batch_rows(run)
    writer = backend.writer(run, ServingSettings(), store)
    neighbour = rows[0].neighbour
    assert neighbour is not None
    store.erase(neighbour, LATER)
    assert writer.write([UserHistory(rows[0].user, rows[0].as_of)])[0].neighbour not in (None, neighbour)


def test_another_model_is_refused(run: Path, store: Store, tmp_path: Path) -> None:
    other = tmp_path / "small"
    shutil.copytree(run, other)
    table = pl.read_parquet(other / "features" / "taiji.parquet")
    table.with_columns(model_version=pl.lit("0" * 16)).write_parquet(other / "features" / "taiji.parquet")
    with pytest.raises(TaijiError, match="not the model"):
        backend.writer(other, ServingSettings(), store)
    (other / "features" / "taiji.parquet").unlink()
    with pytest.raises(TaijiError, match="no features"):
        backend.release(other)


def test_online_scores_equal_the_ranker_offline(run: Path) -> None:
    """With no events since the run, and at a later moment, the scorer answers what the ranker answers on the run's
    data."""
    from taiji.models.ranking import Ranker

    world, scorer = World(run), backend.scorer(run, ServingSettings())
    row = batch_rows(run)[2]
    items = tuple(world.item_names[:20])
    as_of = LATER
    (result,) = scorer.score([RankRequest(UserHistory(row.user, as_of), items, body(row))])
    user = np.full(20, world.users[row.user])
    offline = Ranker.load(run / "evaluation_ranker" / "ranker", world.dataset).score_pairs(
        user, np.arange(20), np.full(20, as_of)
    )
    np.testing.assert_allclose(result.without_features, offline, rtol=1e-5)
    frame = pl.DataFrame({"user": user, "item": np.arange(20), "time": np.full(20, as_of)}).with_columns(
        ids=pl.Series([list(row.ids)] * 20, dtype=pl.List(pl.UInt16)),
        neighbour_items=pl.Series([[world.items[item] for item in row.neighbour_items]] * 20, dtype=pl.List(pl.UInt32)),
    )
    featured = Ranker.load(run / "ranking" / "taiji", world.dataset).predict(frame)["ctcvr"].to_numpy()
    np.testing.assert_allclose(result.with_features, featured, rtol=1e-5)


def test_a_scorer_that_was_loaded_builds_nothing_more_at_its_first_question(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is ready when its models are loaded: what is built at the first question would have its asker wait for
    seconds."""
    scorer = backend.scorer(run, ServingSettings())
    for place in ("stored_counts.mapped", "event_counts.LogCounts.count", "event_counts.LogCounts.mean"):
        monkeypatch.setattr(f"taiji.data.{place}", lambda *rest: pytest.fail("it is built now"))
    assert scorer.score([RankRequest(UserHistory("u1", LATER), ("S1", "S2"), None)])[0].without_features


LEAN = """
import sys
from pathlib import Path
from taiji.serving import backend, supervisor
from taiji.serving.settings import ServingSettings
run = Path(sys.argv[1])
assert backend.release(run).name and sum(map(len, backend.rows(run)))
found = {name for name in ("torch", "transformers") if name in sys.modules}
assert not found, f"publishing a run's rows loads {found}"
backend.scorer(run, ServingSettings())
found = {name for name in ("transformers", "sympy", "faiss", "sklearn", "pandas") if name in sys.modules}
assert not found, f"scoring loads {found}"
"""


def test_a_process_loads_no_library_that_it_does_not_need(run: Path) -> None:
    """Each costs every process of the service tens of megabytes for as long as it lives."""
    found = subprocess.run([sys.executable, "-c", LEAN, str(run)], check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_neither_scoring_nor_writing_holds_the_log_in_memory(
    run: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = batch_rows(run)[0]
    monkeypatch.setattr(StoredDataset, "events", property(lambda self: pytest.fail("the whole log is read")))
    scorer, writer = backend.scorer(run, ServingSettings()), backend.writer(run, ServingSettings(), store)
    history = UserHistory(row.user, LATER, (Event("a", row.user, "S3", LATER - 5),), 1)
    assert scorer.score([RankRequest(history, ("S1", "S2"), body(row))])[0].with_features
    assert writer.write([history])


def test_online_scores_equal_the_ranker_on_a_log_that_holds_the_events(run: Path) -> None:
    """What only depends on the user's own clicks must come out as if the events had been in the log all along."""
    world, scorer = World(run), backend.scorer(run, ServingSettings())
    name, items = "u5", tuple(world.item_names[:8])
    events = tuple(Event(str(n), name, world.item_names[n], LATER - 100 + n) for n in range(4))
    live = world.of([UserHistory(name, LATER, events)])
    from taiji.data.statistics import OWN, statistics_of
    from taiji.serving.live_statistics import LiveStatistics

    extended = pl.concat(
        [
            world.dataset.events,
            live.events.filter(pl.col("time") >= LATER - 100).with_columns(user=pl.lit(world.users[name], pl.UInt32)),
        ],
        how="diagonal_relaxed",
    ).sort("time", "user")
    expected = statistics_of(replace(Dataset.load(run / "data" / "dataset"), events=extended)).at(
        np.full(8, world.users[name]), np.arange(8), np.full(8, LATER)
    )
    found = LiveStatistics(world, live, [UserHistory(name, LATER, events)]).at(
        np.zeros(8, np.int64), np.arange(8), np.full(8, LATER)
    )
    for statistic in OWN:
        np.testing.assert_allclose(found[statistic], expected[statistic], rtol=1e-6)
    assert {"user_clicks", "pair_clicks", "user_l3_share", "user_l1_clicks"} <= set(OWN)
    before = scorer.score([RankRequest(UserHistory(name, LATER), items, None)])[0]
    after = scorer.score([RankRequest(UserHistory(name, LATER, events, 4), items, None)])[0]
    assert before.with_features is None and before.without_features != after.without_features


def test_unknown_items_strangers_and_foreign_versions(run: Path) -> None:
    world, scorer = World(run), backend.scorer(run, ServingSettings())
    row = batch_rows(run)[0]
    foreign = {**body(row), "quantizer_version": "other"}
    results = scorer.score(
        [
            RankRequest(UserHistory("u1", LATER), ("S1", "nothing", "S2"), None),
            RankRequest(UserHistory("never seen", LATER), ("S1", "S2"), None),
            RankRequest(UserHistory(row.user, LATER), ("S1", "S2"), foreign),
            RankRequest(UserHistory(row.user, LATER), ("S1", "S2"), body(row)),
        ]
    )
    known = scorer.score([RankRequest(UserHistory("u1", LATER), ("S1", "S2"), None)])[0].without_features
    assert results[0].without_features == [pytest.approx(known[0]), None, pytest.approx(known[1])]
    assert all(0 < score < 1 for score in results[1].without_features)
    assert results[2].with_features is None and results[3].with_features is not None
    assert results[2].without_features == pytest.approx(results[3].without_features)
    (nothing,) = scorer.score([RankRequest(UserHistory("u1", LATER), ("nothing",), body(row))])
    assert nothing.without_features == [None] and nothing.with_features is None
    (partly,) = scorer.score([RankRequest(UserHistory(row.user, LATER), ("nothing", "S1"), body(row))])
    assert partly.with_features == [None, pytest.approx(results[3].with_features[0])]
    assert world.known(UserHistory("u1", LATER, forgotten=True)) is None
    assert isinstance(scorer, UserDirectory) and scorer.has_user(UserHistory("u1", LATER))
    assert not scorer.has_user(UserHistory("never seen", LATER))


def body(row: FeatureRow) -> dict[str, object]:
    return json.loads(b"{" + row.head() + b',"neighbour_items":' + row.tail() + b"}")


def test_the_pipelines_layout_is_the_one_read_here(run: Path) -> None:
    assert {"seed", "reasoning", "generation", "features", "embedder", "language"} <= set(
        read_json(run / "config.json")
    )


DAMAGE = {
    "cut table": lambda run: cut(run / "features" / "taiji.parquet", 1500),
    "empty file": lambda run: cut(run / "features" / "taiji.parquet", 0),
    "no table at all": lambda run: (run / "features" / "taiji.parquet").write_text("user,as_of\n1,2\n"),
    "no rows": lambda run: (
        pl.read_parquet(run / "features" / "taiji.parquet").clear().write_parquet(run / "features" / "taiji.parquet")
    ),
    "other columns": lambda run: pl.DataFrame({"a": [1]}).write_parquet(run / "features" / "taiji.parquet"),
}


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("kind", DAMAGE, ids=list(DAMAGE))
def test_a_damaged_feature_table_is_one_message(run: Path, tmp_path: Path, kind: str) -> None:
    other = shutil.copytree(run, tmp_path / "small")
    DAMAGE[kind](other)
    with pytest.raises(ArtifactError, match=r"feature table (cannot be read|contains no rows)") as found:
        backend.release(other)
    assert "taiji.parquet" in str(found.value) and "taiji run" in str(found.value)


GONE = {
    "evaluation ranker not made": lambda run: shutil.rmtree(run / "evaluation_ranker"),
    "ranker not made": lambda run: shutil.rmtree(run / "ranking"),
    "weights cut": lambda run: cut(run / "evaluation_ranker" / "ranker" / "model.safetensors", 100),
    "quantiser gone": lambda run: shutil.rmtree(run / "features" / "taiji-quantizer"),
    "data cut": lambda run: cut(next((run / "data" / "dataset").glob("items*.parquet")), 50),
}


@pytest.mark.parametrize("kind", GONE, ids=list(GONE))
def test_a_run_without_its_ranker_is_not_ready_and_says_why(run: Path, store: Store, tmp_path: Path, kind: str) -> None:
    other = shutil.copytree(run, tmp_path / "small")
    release = replace(backend.release(other), run=str(other))
    GONE[kind](other)
    store.add_release(release, 1)
    scorers = Scorers(store, lambda folder: backend.scorer(folder, ServingSettings()))
    scorers.refresh()
    assert scorers.state == "failed" and len(scorers.reason) > 10 and not scorers.ready(release.name)

"""The request's context on its way to the rankers: online scores equal offline ones."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient
from tests.models.ranking.conftest import shop_tables
from tests.serving.doubles import EchoWriter

from taiji.core.artifacts import write_json
from taiji.data import field_set
from taiji.data.dataset import Dataset
from taiji.data.event_columns import EventColumns
from taiji.data.field_rows import RowArrays, Rows
from taiji.data.history import History
from taiji.data.intent_rows import INTENTS
from taiji.data.item_text import item_texts
from taiji.features.feature_table import join_features
from taiji.features.intents import intent_columns
from taiji.features.student import IntentStudent, StudentSettings, filled
from taiji.language.embed import load_embedder
from taiji.models.ranking import Ranker, inputs, split_weights
from taiji.models.ranking.equal_fields import equal_fields
from taiji.models.ranking.pair_fields import CollaborativeMatch
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.split_inputs import SplitCache
from taiji.models.ranking.train import train_ranker
from taiji.serving.app import build_app
from taiji.serving.clock import SteadyClock
from taiji.serving.keys import Keyring
from taiji.serving.live_dataset import World
from taiji.serving.scorer import RunScorer
from taiji.serving.scorers import Scorers
from taiji.serving.settings import ServingSettings
from taiji.serving.sqlite_store import SQLiteStore
from taiji.serving.types import (
    Event,
    FeatureRow,
    IntentRequest,
    Intents,
    RankRequest,
    RankResult,
    Release,
    StoredRow,
    UserHistory,
)
from taiji.serving.worker import Worker

CONTEXT = ("screen", "load", "hour", "fresh")
AS_OF = 1_700_000_000_000_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Ranker, RunScorer]:
    """A log with context of every type, in which the screen decides the click, and a ranker that has learnt it."""
    tables, run, random = (
        shop_tables(users=30, items=25, rows=1500),
        tmp_path_factory.mktemp("run"),
        np.random.default_rng(0),
    )
    screen = random.choice(["phone", "desk"], len(tables.events))
    events = tables.events.with_columns(
        screen=pl.Series(screen),
        load=pl.Series(random.random(len(screen)), dtype=pl.Float32),
        hour=pl.Series(random.integers(0, 24, len(screen)), dtype=pl.Int16),
        fresh=pl.Series(random.random(len(screen)) < 0.5),
        click=pl.Series((screen == "phone") & (random.random(len(screen)) < 0.8), dtype=pl.Int8),
        conversion=pl.lit(0, pl.Int8),
    )
    made = Dataset.from_tables(replace(tables, events=events, event_columns=EventColumns(context=CONTEXT)))
    made.save(run / "data" / "dataset")
    write_json(run / "config.json", {})
    world = World(run)
    exposed = world.dataset.events.filter("exposed")
    ranker = train_ranker(world.dataset, exposed, RankerSettings(epochs=2), 0)
    assert isinstance(ranker, Ranker)
    return world, ranker, RunScorer(world, ranker, ranker, "q")


def test_online_scores_equal_offline_ones_with_the_context_of_the_request(trained: Any) -> None:
    world, ranker, scorer = trained
    contexts: list[dict[str, Any]] = [
        {"screen": "phone", "load": 0.25, "hour": 3, "fresh": True},
        {"screen": "desk", "load": 1, "hour": 22.0, "fresh": False},
        {"screen": "never seen", "load": 7.5},
        {"screen": None},
        {},
    ]
    items = tuple(world.item_names[:10])
    asked = [RankRequest(UserHistory(f"u{n}", AS_OF), items, None, context) for n, context in enumerate(contexts)]
    online = scorer.score(asked)
    for number, (context, found) in enumerate(zip(contexts, online)):
        frame = pl.DataFrame({"user": [world.users[f"u{number}"]] * 10, "item": np.arange(10), "time": [AS_OF] * 10})
        columns = [pl.lit(context.get(name)).cast(kind).alias(name) for name, kind in world.context.items()]
        offline = ranker.predict(frame.with_columns(columns))[ranker.goal].to_numpy()
        np.testing.assert_allclose(np.array(found.without_features, dtype=float), offline, rtol=1e-5)
        (alone,) = scorer.score([asked[number]])
        np.testing.assert_allclose(alone.without_features, found.without_features, rtol=1e-5)


def test_the_context_decides_where_it_decided_in_the_log(trained: Any) -> None:
    _, ranker, _ = trained
    frame = pl.DataFrame({"user": [0, 0], "item": [1, 1], "time": [AS_OF] * 2, "screen": ["phone", "desk"]})
    phone, desk = ranker.predict(frame)["click"]
    assert phone > desk + 0.03


def test_a_context_that_does_not_fit_the_log_is_told_by_column(trained: Any) -> None:
    world, _, scorer = trained
    wrong = {"sreen": "phone", "hour": 3.5, "load": "high", "fresh": 1, "screen": 5}
    good = RankRequest(UserHistory("u1", AS_OF), ("i1", "nothing"), None, {"screen": "phone"})
    bad = RankRequest(UserHistory("u1", AS_OF), ("i1",), None, wrong)
    found = scorer.score([bad, good])
    assert set(found[0].wrong_context) == set(wrong) and not found[0].without_features
    assert found[0].wrong_context["sreen"] == "sreen is not a context column of the log (screen, load, hour, fresh)"
    assert found[0].wrong_context["hour"] == "hour must be of type Int16"
    assert found[1].without_features[1] is None and found[1].without_features[0] is not None
    assert not world.wrong_context({"load": 3, "hour": -5, "fresh": None}) and world.wrong_context({"hour": 10**6})
    assert world.wrong_context({"hour": 1e300}) and world.wrong_context({"screen": True})


@pytest.fixture(scope="module")
def reading(trained):
    """Rows of intents of half of the users, a ranker that has read them, and a student of them."""
    world, *_ = trained
    dataset, embedder = world.dataset, load_embedder("wordllama")
    users = np.arange(0, dataset.n_users, 2)
    said = np.stack([users % dataset.n_items, (3 * users + 1) % dataset.n_items], axis=1).ravel()
    columns = intent_columns(
        embedder.encode(item_texts(dataset))[said],
        np.tile([0.75, 0.25], len(users)),
        [[dataset.items[name][int(item)] or "" for name in dataset.levels] for item in said],
        [2] * len(users),
        8,
        f"wordllama@{embedder.version}",
    )
    start = int(dataset.events["time"].quantile(0.3))
    times = {"user": users, "as_of": [start] * len(users), "available_at": [start] * len(users)}
    table = pl.concat([pl.DataFrame(times), columns], how="horizontal")
    rows = join_features(dataset.events.filter("exposed"), table, tuple(INTENTS))
    settings = RankerSettings(pair_fields=("intents",), min_steps=20, hidden=(8,), dimension=4)
    many = pl.concat([table, table]).with_columns(as_of=pl.lit(AS_OF))
    student = IntentStudent(StudentSettings(epochs=1, width=8, heads=2)).fit(dataset, many)
    return table, train_ranker(dataset, rows, settings, 0), student


def _stored(table: pl.DataFrame, user: int) -> dict[str, Any]:
    """Return a row as the store hands it out."""
    (row,) = table.filter(pl.col("user") == user).rows(named=True)
    made = FeatureRow(f"u{user}", row["as_of"], (), None, (), "m", "q", row["as_of"], 0, None, Intents.of(row))
    return json.loads(StoredRow("r", 1, made.head(), made.tail()).body())


def test_intents_of_the_rows_are_scored_as_offline(trained, reading):
    world, plain, _ = trained
    table, ranker, _ = reading
    rows = [_stored(table, user) for user in (0, 4)]
    rows.append({**rows[0], "quantizer_version": "another"})
    items = tuple(world.item_names[:10])
    asked = [RankRequest(UserHistory(f"u{user}", AS_OF), items, row) for user, row in zip((0, 4, 2), rows)]
    online = RunScorer(world, plain, ranker, "q").score(asked)
    for user, found in zip((0, 4), online):
        frame = pl.DataFrame({"user": [user] * 10, "item": np.arange(10), "time": [AS_OF] * 10})
        joined = join_features(frame, table, tuple(INTENTS))
        np.testing.assert_allclose(found.with_features, ranker.predict(joined)[ranker.goal].to_numpy(), rtol=1e-5)
        without = ranker.predict(frame)[ranker.goal].to_numpy()
        assert not np.allclose(found.with_features, without, rtol=1e-4), "the intents are read"
    assert online[2].with_features is None


def test_the_student_stands_in_where_a_row_is_missing_or_old(trained, reading):
    world, plain, _ = trained
    table, ranker, student = reading
    items = tuple(world.item_names[:10])
    rows = [_stored(table, 0), None, {**_stored(table, 0), "intent_weights": None}, None]
    names = ["u0", "u1", "u0", "nobody"]
    asked = [RankRequest(UserHistory(name, AS_OF), items, row) for name, row in zip(names, rows)]
    frame = pl.DataFrame({"user": [0] * 10 + [1] * 10, "item": [*range(10)] * 2, "time": [AS_OF] * 20})
    empty = join_features(frame, table.head(0), tuple(INTENTS))
    alone = ranker.predict(filled(empty, world.dataset, student))[ranker.goal].to_numpy()
    own = ranker.predict(join_features(frame, table, tuple(INTENTS)))[ranker.goal].to_numpy()
    found = RunScorer(world, plain, ranker, "q", student).score(asked)
    for result, wanted in zip(found, (own[:10], alone[10:], alone[:10])):
        np.testing.assert_allclose(result.with_features, wanted, rtol=1e-5)
    assert found[3].with_features is None, "nobody knows anything of this user"
    old = RunScorer(world, plain, ranker, "q", student, oldest_s=1.0).score(asked[:1])
    np.testing.assert_allclose(old[0].with_features, alone[:10], rtol=1e-5)


def test_the_student_says_the_intents_that_the_ranker_is_given(trained, reading):
    world, plain, _ = trained
    table, ranker, student = reading
    stored = _stored(table, 0)
    rows = [stored, None, {**stored, "intent_weights": None}, None]
    histories = [UserHistory(name, AS_OF, seen=3) for name in ("u0", "u1", "u0", "nobody")]
    asked = [IntentRequest(history, row) for history, row in zip(histories, rows)]
    scorer = RunScorer(world, plain, ranker, "q", student)
    own, alone, without, nobody = scorer.intents(asked)
    assert own is None and nobody is None, "its own are there; nothing is known of the other"
    offline = student.write(world.dataset, np.array([0, 1]), np.array([AS_OF, AS_OF])).rows(named=True)
    assert (without.intents, alone.intents) == tuple(Intents.of(row) for row in offline)
    assert (alone.user, alone.as_of, alone.events_seen, alone.version) == ("u1", AS_OF, 3, student.version)
    (old,) = RunScorer(world, plain, ranker, "q", student, oldest_s=1.0).intents(asked[:1])
    assert old.intents == without.intents
    assert RunScorer(world, plain, ranker, "q").intents(asked) == [None] * 4
    assert scorer.says_intents and not RunScorer(world, plain, None, "").says_intents
    filled_in, made = json.loads(without.body("r", stored, 9)), json.loads(alone.body("r", None, 9))
    changed = {name for name in filled_in if filled_in[name] != stored.get(name)}
    assert changed <= {*INTENTS, "intents_by", "intents_as_of"} and filled_in["intents_as_of"] == AS_OF
    assert made["feature_version"] == 0 and made["ids"] == [] and made["generated_at"] == 9


def test_the_service_answers_with_the_student_between_two_rows_of_the_language_model(trained, reading, tmp_path):
    """Events make a new history; until the worker has written a row from it, the features route says the student's
    intents of it."""
    world, plain, _ = trained
    _, ranker, student = reading
    settings = ServingSettings.model_validate({"trigger": {"window_s": 0.0}})
    store = SQLiteStore(tmp_path / "store.db", settings)
    release, clock = Release("r1", "/run", "echo-1", "q-echo-1"), SteadyClock()
    store.add_release(release, 1)
    scorers = Scorers(store, lambda run: RunScorer(world, plain, ranker, "q-echo-1", student, oldest_s=3600.0))
    scorers.refresh()
    writer = IntentWriter(world)
    worker = Worker(store, writer, release, settings, "w", clock, die=lambda code: None)
    with TestClient(build_app(store, scorers, settings, Keyring(), clock), base_url="http://127.0.0.1") as client:

        def read(user: str) -> dict[str, Any]:
            answer = client.get(f"/v1/features/{user}")
            assert answer.status_code == 200, answer.text
            (same,) = client.post("/v1/features:batch", json={"users": [user]}).json()["rows"]
            moving = ("intents_as_of", "as_of", "generated_at")
            assert {**answer.json(), **dict.fromkeys(moving)} == {**same, **dict.fromkeys(moving)}
            return dict(answer.json())

        def student_says(user: str) -> Intents:
            (history,) = store.histories([user], clock())
            (row,) = student.rows(world.of([history]), np.array([0]), np.array([history.as_of]))
            found = Intents.of(dict(zip(INTENTS, row)))
            assert found is not None
            return found

        assert client.get("/v1/features/nobody").status_code == 404, "nothing is known of this user"
        first = read("u1")
        assert first["feature_version"] == 0 and first["intents_by"] == student.version and not first["ids"]
        assert first["intents"] == list(student_says("u1").vectors)
        event = {"user_id": "fresh", "item_id": world.item_names[3], "timestamp": "2026-01-31T12:00:00Z"}
        sent = client.post("/v1/events", json={"events": [event]}, headers={"Idempotency-Key": "k"})
        assert sent.status_code == 202 and client.get("/v1/features/fresh").status_code == 404, "not yet taken in"
        assert worker.absorb()
        between = read("fresh")
        assert between["intents"] == list(student_says("fresh").vectors) and between["events_seen"] == 1
        assert worker.step()
        written = read("fresh")
        assert written["feature_version"] > 0 and "intents_by" not in written, "the language model's own row"
        assert written["intents"] == list(writer.said.vectors)
        writer.old = True
        again = {**event, "item_id": world.item_names[7]}
        client.post("/v1/events", json={"events": [again]}, headers={"Idempotency-Key": "k2"})
        assert worker.absorb() and worker.step()
        stale = read("fresh")
        assert stale["intents_by"] == student.version and stale["intents"] == list(student_says("fresh").vectors)
        assert stale["intents_as_of"] > stale["as_of"] and stale["ids"] == written["ids"], "the rest is the row's"
        client.delete("/v1/users/fresh")
        assert client.get("/v1/features/fresh").status_code == 404


class IntentWriter(EchoWriter):
    """Writes rows with one intent; those written after ``old`` was set say that they were made two hours ago."""

    def __init__(self, world: World) -> None:
        super().__init__()
        vector = (127, *[0] * (load_embedder("wordllama").dimension - 1))
        self.said, self.old = Intents(vector, (1.0,), ((),), "wordllama@0"), False

    def _row(self, user: UserHistory) -> FeatureRow:
        at = user.as_of - 2 * 3600 * 10**6 if self.old else user.as_of
        return replace(super()._row(user), ids=(1, 2), as_of=at, intents=self.said)


def test_rows_of_features_are_scored_as_offline_by_the_ranker_with_features_alone(trained: Any) -> None:
    world, plain, _ = trained
    random = np.random.default_rng(5)
    exposed = world.dataset.events.filter("exposed")
    ids = pl.Series(random.integers(0, 4, (len(exposed), 3)).tolist(), dtype=pl.List(pl.UInt16))
    items = pl.Series(random.integers(0, 25, (len(exposed), 2)).tolist(), dtype=pl.List(pl.UInt32))
    rows = exposed.with_columns(ids=ids, neighbour_items=items)
    ranker = train_ranker(world.dataset, rows, RankerSettings(epochs=2), 0)
    assert isinstance(ranker, Ranker)
    scorer = RunScorer(world, plain, ranker, "q")
    known = [
        {"ids": [1, 0, 3], "neighbour_items": ["i4", "i9"], "quantizer_version": "q"},
        {"ids": [2, 2, 2], "neighbour_items": ["i1", "never heard of", "i2"], "quantizer_version": "q"},
        {"ids": [], "neighbour_items": ["i3"], "quantizer_version": "q"},
    ]
    foreign, names = {**known[0], "quantizer_version": "another"}, tuple(world.item_names[:6])
    asked = [RankRequest(UserHistory(f"u{n}", AS_OF), names, row) for n, row in enumerate([*known, foreign, None])]
    found = scorer.score(asked)
    for number, row in enumerate(known):
        frame = pl.DataFrame({"user": [world.users[f"u{number}"]] * 6, "item": np.arange(6), "time": [AS_OF] * 6})
        near = [world.items[item] for item in row["neighbour_items"] if item in world.items]
        columns = {"ids": pl.Series([row["ids"] or None] * 6), "neighbour_items": pl.Series([near] * 6)}
        offline = ranker.predict(frame.with_columns(**columns))[ranker.goal].to_numpy()
        np.testing.assert_allclose(np.array(found[number].with_features, dtype=float), offline, rtol=1e-5)
        (alone,) = scorer.score([asked[number]])
        np.testing.assert_allclose(alone.with_features, found[number].with_features, rtol=1e-5)
        assert not np.allclose(found[number].with_features, found[number].without_features)
    assert [result.with_features for result in found[3:]] == [None, None], "a row of another quantiser was used"


@pytest.fixture(scope="module")
def served(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[World, RunScorer, list[str]]:
    """Rankers without and with features that were fitted alike, read back from disk, and the items of the log."""
    world, *_ = trained
    folder, random = tmp_path_factory.mktemp("rankers"), np.random.default_rng(5)
    exposed = world.dataset.events.filter("exposed")
    near = [random.integers(0, world.dataset.n_items, n % 7).tolist() or None for n in range(len(exposed))]
    featured = exposed.with_columns(
        ids=pl.Series([[n % 5, 3] if n % 3 else None for n in range(len(exposed))], dtype=pl.List(pl.UInt16)),
        neighbour_items=pl.Series(near, dtype=pl.List(pl.UInt32)),
    )
    settings = RankerSettings(min_steps=20, hidden=(16, 8), history=6, neighbour=5, pair_fields=("collaborative",))
    for name, rows in (("plain", exposed), ("featured", featured)):
        train_ranker(world.dataset, rows, settings, 0).save(folder / name)
    plain, other = (Ranker.load(folder / name, world.dataset) for name in ("plain", "featured"))
    other.fieldset.adopt(plain.fieldset, equal_fields(folder / "plain", folder / "featured"))
    return world, RunScorer(world, plain, other, "q"), world.item_names


def drawn(names: list[str], seed: int, count: int) -> list[RankRequest]:
    """Random requests: known users, strangers and erased ones, with and without new events, features and context,
    within the log and after it."""
    random = np.random.default_rng([seed, 3])
    made = []
    for _ in range(count):
        user = f"u{random.integers(0, 30)}" if random.random() < 0.8 else "a stranger"
        at = AS_OF if random.random() < 0.5 else int(1_580_000_000_000_000 + random.integers(0, 10**13))
        events = tuple(
            Event(
                f"e{n}",
                user,
                str(random.choice(names)),
                at - int(random.integers(1, 10**13)),
                int(random.random() < 0.9),
            )
            for n in range(random.integers(0, 6))
        )
        items = [str(name) for name in random.choice(names, random.integers(1, 24))]
        items[0] = "not in the catalogue" if random.random() < 0.2 else items[0]
        near = [str(name) for name in random.choice(names, random.integers(0, 8))]
        ids = [int(random.integers(0, 5)), 3] if random.random() < 0.8 else []
        row = {"quantizer_version": str(random.choice(["q", "p"])), "as_of": at, "ids": ids, "neighbour_items": near}
        context = {"screen": str(random.choice(["phone", "desk", "tv"])), "hour": int(random.integers(0, 24))}
        made.append(
            RankRequest(
                UserHistory(user, at, events, len(events), bool(random.random() < 0.1)),
                tuple(items),
                row if random.random() < 0.8 else None,
                context if random.random() < 0.7 else {},
            )
        )
    return made


def scores(results: list[RankResult]) -> list[Any]:
    return [(result.without_features, result.with_features) for result in results]


def plain_path(patch: pytest.MonkeyPatch, world: World, scorer: RunScorer) -> None:
    """Score as without any shortcut: tables of users, events and rows are made, and nothing is shared, settled or
    overwritten."""

    def of(self: World, histories: list[UserHistory]) -> Dataset:
        found = subset(self, histories)
        return replace(found, name=found.name)

    def rows(
        dataset: Any, user: Any, item: Any, time: Any, further: Any, given: Any, past: Any = None, known: Any = None
    ) -> Rows:
        return Rows(dataset, RowArrays(dataset, user, item, time, further, {}).frame, past, known)

    subset = World.of
    patch.setattr(World, "of", of)
    patch.setattr(inputs, "RowArrays", rows)
    patch.setattr(field_set, "_matrix", lambda field, rows: field.matrix(rows))
    patch.setattr(world.statistics, "settled", None)
    patch.setattr(split_weights, "_faster", lambda found, examples: found)
    for ranker in (scorer._plain, scorer._featured):
        assert ranker is not None
        patch.setattr(ranker, "_split", SplitCache(ranker.network, ranker.fieldset, "cpu"))


def test_random_requests_get_the_scores_of_the_plain_path(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world, scorer, names = served
    batches = [drawn(names, seed, 1 + seed % 5) for seed in range(30)]
    found = [scores(scorer.score(batch)) for batch in batches]
    assert any(better for batch in found for _, better in batch) and world.statistics.settled is not None
    plain_path(monkeypatch, world, scorer)
    for batch, expected in zip(batches, found):
        for (ours, better), (plain, other) in zip(expected, scores(scorer.score(batch))):
            for one, two in ((ours, plain), (better, other)):
                assert (one is None) == (two is None)
                np.testing.assert_allclose(
                    np.array(one or [], dtype=float), np.array(two or [], dtype=float), rtol=0, atol=1e-6
                )


def test_a_request_for_known_users_makes_no_table_and_computes_equal_fields_once(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: tables made, and matrices of the shared field."""
    _, scorer, names = served
    requests = [replace(request, context={}) for request in drawn(names, 1, 40)]
    requests = [
        r for r in requests if r.history.user != "a stranger" and not r.history.forgotten and r.history.as_of == AS_OF
    ]
    counts: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    counted(CollaborativeMatch, "agreement")
    counted(pl, "DataFrame")
    counted(History, "from_events")
    kept = [field for field in scorer._featured.fieldset.numbers if isinstance(field, CollaborativeMatch)]
    assert kept and kept[0] in scorer._plain.fieldset.numbers
    for request in requests:
        scorer.score(
            [
                replace(
                    request,
                    features={
                        **(request.features or {}),
                        "quantizer_version": "q",
                        "as_of": AS_OF,
                        "ids": [1, 3],
                        "neighbour_items": [],
                    },
                )
            ]
        )
    assert counts["agreement"] == len(requests) and counts["from_events"] == 0
    assert counts["DataFrame"] <= 3 * len(requests), "only those of the context"


def test_fields_are_equal_if_description_and_arrays_are(served: Any, tmp_path: Path) -> None:
    _, scorer, _ = served
    ranker = scorer._plain
    names = [field.name for field in ranker.fieldset.fields]
    ranker.save(tmp_path / "one")
    (field,) = [field for field in ranker.fieldset.fields if isinstance(field, CollaborativeMatch)]
    assert equal_fields(tmp_path / "one", tmp_path / "one") == names
    weights, options = field.neighbours[-1][1], field.options
    for change in (lambda: weights.__setitem__((3, 0), weights[3, 0] + 1), lambda: options.update(least_rows=1)):
        change()
        ranker.save(tmp_path / "other")
        assert equal_fields(tmp_path / "one", tmp_path / "other") == [name for name in names if name != field.name]
        weights[3, 0], options["least_rows"] = weights[3, 0], 0

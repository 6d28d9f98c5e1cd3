"""The stage of item knowledge: each item asked once, the same bytes after a kill, earlier texts kept, and who reads
it."""

from __future__ import annotations

import polars as pl
import pytest
from tests.reasoning.conftest import build

from taiji.config import load_config
from taiji.core.artifacts import read_json, write_json
from taiji.core.manifests import MANIFEST
from taiji.data.knowledge_rows import SCHEMA
from taiji.data.splits import PERIODS
from taiji.models.ranking.settings import RankerSettings
from taiji.pipeline import run_rankers, run_report
from taiji.pipeline.amounts import Log
from taiji.pipeline.engine import Context
from taiji.pipeline.recipes import ENHANCE, stages_of
from taiji.pipeline.stages import item_knowledge_stage
from taiji.pipeline.stages.candidate_ranker_stage import CandidateRanker
from taiji.pipeline.stages.item_knowledge_stage import ItemKnowledge
from taiji.reasoning.item_knowledge import Said

STAGE = "taiji.pipeline.stages.item_knowledge_stage:ItemKnowledge"
READS = "ranking.pair_fields=[item_knowledge]"


def config_of(*overrides):
    return load_config(overrides=[f"stages=['{STAGE}']", *overrides])


class Counting:
    """Writes about everything, counts how often it was asked, and is killed at a place."""

    version = "counting"

    def __init__(self, killed_at=None):
        self.prompts, self.killed_at = 0, killed_at

    def write(self, prompts, seed):
        if self.killed_at is not None and self.prompts >= self.killed_at:
            raise KeyboardInterrupt
        self.prompts += len(prompts)
        names = [prompt.messages[-1]["content"].split()[3] for prompt in prompts]
        more = ["" if place % 5 else " There are 987654." for place in range(len(prompts))]
        return [Said(f"It is for {name}.{rest}", "whole", 9, 4) for name, rest in zip(names, more)]


@pytest.fixture
def context(tmp_path, monkeypatch):
    build().save(tmp_path / "run" / "data" / "dataset")

    def made(writer, name="a", *overrides):
        monkeypatch.setattr(item_knowledge_stage, "_writer", lambda *given, **more: writer)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        config = config_of("item_knowledge.chunk=8", *overrides)
        return Context(config, folder, tmp_path / f"{name}-scratch", tmp_path / "run", ("data",))

    return made


def test_all_items_are_written_about_once(context):
    writer = Counting()
    made = context(writer)
    facts = ItemKnowledge().run(made)
    table = pl.read_parquet(made.folder / "knowledge.parquet")
    assert writer.prompts == 30 == len(table) and dict(table.schema) == SCHEMA
    # Parts of eight items: the first and the sixth of each names a number.
    assert facts == {
        "items written about": 30,
        "different prompts": 30,
        "reused texts": 0,
        "flagged texts": 8,
        "tokens per item": 13,
    }
    assert read_json(made.folder / "knowledge.json")["coverage"] == pytest.approx(22 / 30)


def test_a_killed_stage_goes_on_and_ends_in_the_same_bytes(context):
    whole = context(Counting(), "whole")
    ItemKnowledge().run(whole)
    with pytest.raises(KeyboardInterrupt):
        ItemKnowledge().run(context(Counting(killed_at=16), "killed"))
    writer = Counting()
    again = context(writer, "killed")
    ItemKnowledge().run(again)
    assert writer.prompts == 14
    assert (again.folder / "knowledge.parquet").read_bytes() == (whole.folder / "knowledge.parquet").read_bytes()


def test_only_new_items_are_asked_about_where_there_is_an_earlier_table(context, tmp_path):
    first, whole = context(Counting(), "first", "item_knowledge.items=20"), context(Counting(), "whole")
    ItemKnowledge().run(first)
    writer = Counting()
    second = context(writer, "second", f"item_knowledge.earlier={first.folder / 'knowledge.parquet'}")
    assert ItemKnowledge().run(second)["reused texts"] == 20 and writer.prompts == 10
    ItemKnowledge().run(whole)
    tables = [pl.read_parquet(made.folder / "knowledge.parquet") for made in (whole, second)]
    assert tables[0]["item_id"].equals(tables[1]["item_id"]) and tables[0]["as_of"].equals(tables[1]["as_of"])
    own = pl.DataFrame({"item_id": ["0"], "text": ["for all"], "available_at": [0]})
    own.write_parquet(tmp_path / "own.parquet")
    third = context(Counting(), "third", f"item_knowledge.earlier={tmp_path / 'own.parquet'}")
    assert ItemKnowledge().run(third)["reused texts"] == 0, "a table that does not say what was asked"


def test_stages_that_train_rankers_read_it_where_a_ranker_does():
    plain, read = stages_of(config_of()), stages_of(config_of(READS))
    assert [stage.key for stage in read][:2] == ["data", "item_knowledge"]
    needing = {stage.key for stage in read if "item_knowledge" in stage.needs}
    assert needing == {"reward", "evaluation_ranker", "ranking", "report"}
    assert [stage.key for stage in plain if "item_knowledge" in stage.needs] == ["report"]
    assert not any("item_knowledge" in stage.needs for stage in ENHANCE)
    for texts in ("knowledge", "'{title}: {knowledge}'"):
        anchors = stages_of(config_of("ranking.model=semantic_anchors", f"ranking.texts={texts}"))
        assert {stage.key for stage in anchors if "item_knowledge" in stage.needs} == needing
    named = stages_of(config_of("ranking.pair_fields=[{field: item_knowledge, table: other.parquet}]"))
    assert [stage.key for stage in named if "item_knowledge" in stage.needs] == ["report"]


def test_a_ranker_of_the_run_reads_its_texts(context, monkeypatch):
    made = context(Counting(), "a", READS)
    (made.run / "item_knowledge").mkdir()
    ItemKnowledge().run(Context(made.config, made.run / "item_knowledge", made.scratch, made.run, ("data",)))
    seen = []

    class Kept:
        def save(self, folder):
            seen.append(folder)

    def train_ranker(dataset, frame, settings, seed):
        seen.append(dataset)
        return Kept()

    monkeypatch.setattr(run_rankers, "train_ranker", train_ranker)
    run_rankers.train(made, build(), pl.DataFrame(), "ranker")
    assert "knowledge" not in seen[0].items.columns
    fed = Context(made.config, made.folder, made.scratch, made.run, ("data", "item_knowledge"))
    run_rankers.train(fed, build(), pl.DataFrame(), "ranker")
    told = run_rankers.with_texts(build(), made.run / "item_knowledge")
    assert told.items.equals(seen[2].items), "a study reads them too"
    assert run_rankers.with_texts(build(), made.run / "none").items.equals(build().items)
    assert seen[2].items["knowledge"].null_count() == 8 and isinstance(made.config.ranking, RankerSettings)


def test_the_report_counts_what_was_written_and_what_it_cost(context):
    made = context(Counting())
    facts, dates = ItemKnowledge().run(made), {name: ["a", "b"] for name in PERIODS}
    rows = {"exposures": dict.fromkeys(PERIODS, 5), "prompts": {"test": 3}}
    for name in ("examples", "item_knowledge"):
        (made.run / name).mkdir()
    write_json(made.run / "examples" / "split.json", {"dates": dates, "rows": rows})
    write_json(made.run / "item_knowledge" / MANIFEST, {"facts": facts})
    told = run_report._split(Context(made.config, made.folder, made.scratch, made.run, ("examples", "item_knowledge")))
    assert told["rows"] == {**{f"{name} exposures": 5 for name in PERIODS}, "test prompts": 3, **facts}
    plain = run_report._split(Context(made.config, made.folder, made.scratch, made.run, ("examples",)))
    assert "tokens per item" not in plain["rows"]


def test_the_cost_grows_with_items_and_not_with_users():
    log = Log(1000, 10, (1, 1, 1, 1), 500, 2, 300, 350, 60, 80, 20, 0.5)
    stage = ItemKnowledge()
    amount = stage.cost(config_of("item_knowledge.max_new_tokens=50"), log)
    assert (amount.rows, amount.written) == (500, 25_000)
    assert stage.cost(config_of("item_knowledge.items=20"), log).rows == 20


def test_a_table_of_another_content_makes_other_rankers(tmp_path):
    file = tmp_path / "own.parquet"
    file.write_bytes(b"one")
    config = config_of(f"ranking.pair_fields=[{{field: item_knowledge, table: {file}}}]")
    stages = [*ENHANCE, CandidateRanker()]
    before = {stage.key: stage.outside(config) for stage in stages}
    file.write_bytes(b"another")
    changed = {stage.key for stage in stages if stage.outside(config) != before[stage.key]}
    assert changed == {"reward", "evaluation_ranker", "ranking", "candidate_ranker"}
    assert CandidateRanker().outside(config_of()) is None

import json
import logging
import math

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from tests.models.ranking.conftest import exposures_of, shop_tables, with_features

from taiji.core.errors import ConfigError
from taiji.data.dataset import Dataset
from taiji.models.ranking.knowledge import KnowledgeNetwork, KnowledgeRanker, KnowledgeSettings, SelectAlign
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.target_attention import TargetAttentionRanker
from taiji.testing import check_scorer

SHAPE = {
    "dimension": 4, "history": 4, "neighbour": 3, "hidden": (8,), "min_steps": 1, "device": "cpu", "pair_fields": (),
    "dropout": 0.0, "bins": 2,
}  # fmt: skip
KINDS = {"kinds": {"rationale": 2, "answer": 1}, "item_kinds": {"facts": 2}}


@pytest.fixture(scope="module")
def library():
    """The shop, whose items have a vector of facts each but for every ninth."""
    tables = shop_tables(rows=600)
    random = np.random.default_rng(1)
    facts = [None if i % 9 == 0 else random.normal(size=6).tolist() for i in range(len(tables.items))]
    items = tables.items.with_columns(facts=pl.Series(facts, dtype=pl.List(pl.Float64)))
    return Dataset.from_tables(tables.__class__(items, tables.users, tables.events))


@pytest.fixture(scope="module")
def rows(library):
    frame = with_features(exposures_of(library)).drop("vector")
    random = np.random.default_rng(2)

    def column(width, missing):
        values = [None if i % missing == 0 else random.normal(size=width).tolist() for i in range(len(frame))]
        return pl.Series(values, dtype=pl.List(pl.Float32))

    return frame.with_columns(rationale=column(8, 3), answer=column(3, 4))


@pytest.fixture(scope="module")
def trained(library, rows):
    return KnowledgeRanker(KnowledgeSettings(**SHAPE, **KINDS)).fit(library, rows, seed=0)


def module(null_chunk=True, dimension=4):
    torch.manual_seed(0)
    made = SelectAlign({"rationale": (8, 2), "answer": (3, 1)}, dimension, null_chunk=null_chunk).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def given(rows=6):
    torch.manual_seed(1)
    vectors = {"rationale": torch.randn(rows, 8).double(), "answer": torch.randn(rows, 3).double()}
    return (
        vectors,
        {"rationale": torch.ones(rows).double(), "answer": torch.ones(rows).double()},
        torch.randn(rows, 3, 4).double(),
    )


def test_at_the_start_it_predicts_exactly_as_the_network_without_knowledge(library, rows, trained):
    bare = TargetAttentionRanker(RankerSettings(**SHAPE)).fit(library, rows.drop("rationale", "answer"), seed=0)
    made = KnowledgeRanker(trained.settings)
    made.build(library, trained.fieldset, trained.tasks)
    made.network.load_state_dict(bare.network.state_dict(), strict=False)
    made.network.eval()
    frame = rows.head(60)
    with torch.no_grad():
        found = made.network(made.inputs.batch(made.inputs.arrays(frame), slice(None)))
        expected = bare.network(bare.inputs.batch(bare.inputs.arrays(frame), slice(None)))
    assert torch.equal(found, expected)


def test_alone_it_leaves_the_backbone_as_it_is(library, rows):
    bare = TargetAttentionRanker(RankerSettings(**SHAPE)).fit(library, rows.drop("rationale", "answer"), seed=0)
    before = {name: value.clone() for name, value in bare.network.state_dict().items()}
    extended = bare.extend(rows, KnowledgeSettings(**SHAPE, **KINDS))
    after = extended.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert type(extended) is KnowledgeRanker and torch.count_nonzero(after["knowledge.output.weight"]) > 0
    with pytest.raises(ConfigError):
        bare.extend(rows, RankerSettings(**SHAPE))


def test_rows_without_knowledge_get_nothing():
    vectors, there, fields = given()
    for null_chunk in (True, False):
        made = module(null_chunk)
        there["rationale"], there["answer"] = torch.tensor([1.0, 0, 1, 0, 1, 0]), torch.tensor([1.0, 0, 0, 1, 1, 0])
        out = made(vectors, {name: values.double() for name, values in there.items()}, fields).flatten(1)
        assert torch.all(out[[1, 5]] == 0) and torch.all(out[[0, 2, 3, 4]].abs().sum(dim=1) > 0)


def test_a_kind_that_a_row_lacks_does_not_matter():
    vectors, there, fields = given()
    made = module()
    there["answer"] = torch.zeros(6).double()
    other = {**vectors, "answer": torch.randn(6, 3).double()}
    torch.testing.assert_close(made(vectors, there, fields), made(other, there, fields), rtol=0, atol=1e-15)


def test_the_null_chunk_takes_the_weight_that_none_deserves():
    made, (vectors, there, fields) = module(), given()
    there["answer"] = torch.tensor([1.0, 0, 1, 0, 1, 0]).double()
    projected, known = made.projected(vectors), made.present(there)
    around = fields[:, :2].flatten(1).unsqueeze(1).expand(-1, 3, -1)
    exponential = made.select(torch.cat([projected, around], dim=2)).squeeze(2).exp() * known
    expected = exponential / (made.null.exp() + exponential.sum(dim=1, keepdim=True))
    torch.testing.assert_close(made.chunk_weights(projected, known, fields), expected, rtol=1e-12, atol=1e-15)
    assert made(vectors, there, fields).abs().max() > 0
    made.null.data.fill_(1e4)
    assert made(vectors, there, fields).abs().max() == 0


def test_a_chunk_that_is_there_twice_counts_twice():
    """Attention does not see duplicates: the second one adds log 2 to the first one's logit, and Z moves."""
    made, (_, _, fields) = module(), given()
    chosen, there = torch.randn(6, 2, 4).double(), torch.ones(6, 2).double()
    once = made.found(chosen, there, fields)
    twice = made.found(chosen[:, [0, 0, 1]], torch.ones(6, 3).double(), fields)
    logits = torch.bmm(made.query(fields), made.key(chosen).transpose(1, 2)) / math.sqrt(4)
    logits[:, :, 0] += math.log(2)
    torch.testing.assert_close(twice, torch.softmax(logits, dim=2) @ made.value(chosen), rtol=1e-12, atol=1e-14)
    assert float(((twice - once).norm() / once.norm()).detach()) > 0.01


@pytest.mark.parametrize("null_chunk", [True, False])
def test_planted_noise_chunks_get_lower_weights(null_chunk):
    """Chunks that carry the label against chunks of noise: the weight tells them apart."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    rows, chunks, width = 2000, 4, 8
    label = random.integers(0, 2, rows)
    useful = random.random((rows, chunks)) < 0.5
    direction, noise = random.normal(size=(2, width))
    signal = np.where(label[:, None, None] == 1, direction, -direction) + 0.3 * random.normal(
        size=(rows, chunks, width)
    )
    junk = 2 * noise + 2 * random.normal(size=(rows, chunks, width))
    vector = torch.tensor(np.where(useful[:, :, None], signal, junk), dtype=torch.float32).flatten(1)
    made = SelectAlign({"vector": (chunks * width, chunks)}, 8, null_chunk=null_chunk)
    head, fields = torch.nn.Linear(16, 1), torch.ones(rows, 2, 8)
    optimiser = torch.optim.Adam([*made.parameters(), *head.parameters()], lr=0.02)
    target = torch.tensor(label, dtype=torch.float32)
    for _ in range(150):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            head(made({"vector": vector}, {"vector": torch.ones(rows)}, fields).flatten(1)).squeeze(1), target
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    weights = made.chunk_weights(made.projected({"vector": vector}), torch.ones(rows, chunks), fields).detach().numpy()
    assert roc_auc_score(useful.ravel(), weights.ravel()) > 0.8
    assert weights.std() > 0.05  # a filter whose weights are all alike selects nothing


def test_it_keeps_the_contract_with_several_kinds(library, rows, trained, tmp_path):
    check_scorer(trained, library)
    assert trained.network.knowledge.count == 5
    weights = trained.chunk_weights(rows.head(20))
    assert weights.shape == (20, 5) and (weights >= 0).all() and (weights.sum(axis=1) < 1).all()
    trained.save(tmp_path / "ranker")
    again = Ranker.load(tmp_path / "ranker", library)
    assert type(again) is KnowledgeRanker and again.version == trained.version
    assert again.predict(rows).equals(trained.predict(rows))
    gone = Dataset.from_tables(shop_tables(rows=600))
    assert np.isfinite(Ranker.load(tmp_path / "ranker", gone).predict(rows.head(20))["click"].to_numpy()).all()


def test_the_old_setting_is_read_with_a_hint(library, rows, caplog):
    old = RankerSettings(**SHAPE, text="select_align", chunks=2)
    frame = rows.rename({"rationale": "vector"})
    with caplog.at_level(logging.WARNING):
        ranker = TargetAttentionRanker(old).fit(library, frame, seed=0)
    assert "model: knowledge" in caplog.text and isinstance(ranker.network, KnowledgeNetwork)
    new = KnowledgeRanker(KnowledgeSettings(**SHAPE, kinds={"vector": 2}, null_chunk=False)).fit(library, frame, seed=0)
    assert new.predict(frame).equals(ranker.predict(frame))


def test_rankers_saved_under_the_old_names_are_read(library, rows, tmp_path):
    frame = rows.rename({"rationale": "vector"})
    settings = RankerSettings(**SHAPE, text="select_align", chunks=2)
    ranker = TargetAttentionRanker(settings).fit(library, frame, seed=0)
    ranker.save(tmp_path / "ranker")
    file = tmp_path / "ranker" / "model.safetensors"
    tensors = load_file(file)
    old = {
        name.replace("network.knowledge.project.vector.", "network.text.vector.project.").replace(
            "network.knowledge.", "network.text.vector."
        ): value
        for name, value in tensors.items()
    }
    assert set(old) != set(tensors) and len(old) == len(tensors)
    save_file(old, file)
    assert json.loads((tmp_path / "ranker" / "config.json").read_text())["settings"]["text"] == "select_align"
    assert Ranker.load(tmp_path / "ranker", library).predict(frame).equals(ranker.predict(frame))


@pytest.mark.parametrize(
    "wrong",
    [{"kinds": {"rationale": 3}}, {"kinds": {}, "item_kinds": {"facts": 5}}, {"item_kinds": {"title": 1}}],
    ids=["chunks of the user", "chunks of the item", "no vectors"],
)
def test_what_does_not_fit_is_said(library, rows, wrong):
    with pytest.raises(ConfigError):
        KnowledgeRanker(KnowledgeSettings(**{**SHAPE, **wrong})).fit(library, rows.head(100))


@pytest.mark.parametrize("wrong", [{"embeddings": False}, {"text": "select_align"}, {"text": "projection"}], ids=str)
def test_settings_that_contradict_each_other_are_rejected(wrong):
    with pytest.raises(ValueError, match=r"knowledge|because the alignment reads the vector"):
        KnowledgeSettings(**SHAPE, **wrong)

import copy
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from taiji.core.component import Slate
from taiji.core.errors import ConfigError, InputError
from taiji.models.ranking.onnx_export import export_onnx, onnx_inputs
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.semantic_anchors import AnchorHistory, AnchorText, SemanticAnchorsRanker
from taiji.models.ranking.training_loop import Step
from taiji.nn.semantic_encoder import SemanticEncoder, StartedEncoder
from taiji.testing import (
    check_component,
    check_field,
    check_learns_checkerboard,
    check_scorer,
    checkerboard,
    exposures_of,
)
from taiji.testing.datasets import requests_of

BOARD = checkerboard()
SETTINGS = SemanticAnchorsRanker.Settings(
    hidden=(16,), history=5, text_width=8, text_layers=1, experts=2, tokens=6, device="cpu", min_steps=60
)


class Calls:
    """Counts what an encoder is asked for."""

    def __init__(self, ranker):
        self.texts = 0
        self.handle = ranker.network.encoder.register_forward_hook(self)

    def __call__(self, module, inputs, output):
        self.texts += len(output)


@pytest.fixture(scope="module")
def fitted():
    return SemanticAnchorsRanker(SETTINGS).fit(BOARD, exposures_of(BOARD), seed=0)


def test_it_keeps_the_contract_and_learns(fitted):
    check_scorer(fitted, BOARD)
    check_learns_checkerboard(fitted, BOARD)
    rows = exposures_of(BOARD).head(20)
    check_component(fitted, BOARD, lambda r: r.predict(rows)["click"].to_numpy())


def test_its_fields_keep_the_contract():
    told = BOARD.items.with_columns(knowledge=pl.col("title"), knowledge_at=pl.lit(int(BOARD.events["time"].median())))
    for source, board in (("", BOARD), ("knowledge", replace(BOARD, items=told))):
        for field in (AnchorText(source), AnchorHistory(source, 4)):
            check_field(field, board, exposures_of(board))


def test_the_request_side_is_computed_once_and_it_is_exported_with_its_bank(fitted, tmp_path):
    assert fitted.encode(requests_of(BOARD)).split is not None
    pytest.importorskip("onnx")
    export_onnx(fitted, exposures_of(BOARD).head(4), tmp_path / "ranker.onnx")


def test_an_export_has_the_bank_of_the_weights(fitted, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    rows, ranker = exposures_of(BOARD).head(30), copy.deepcopy(fitted)
    ranker.network.train()
    with torch.no_grad():
        ranker.network.bank.rows.add_(1.0)
    ranker.network.bank.outdated()  # as a step of training leaves it
    export_onnx(ranker, rows, tmp_path / "ranker.onnx")
    session = runtime.InferenceSession(str(tmp_path / "ranker.onnx"), providers=["CPUExecutionProvider"])
    wanted = {entry.name for entry in session.get_inputs()}
    (found,) = session.run(["click"], {k: v for k, v in onnx_inputs(ranker, rows).items() if k in wanted})
    np.testing.assert_allclose(found, fitted.predict(rows)["click"].to_numpy(), atol=1e-5)


def test_serving_never_calls_the_encoder_and_a_look_up_is_a_fresh_encoding_bit_for_bit(fitted):
    requests = requests_of(BOARD)
    calls = Calls(fitted)
    fitted.predict(exposures_of(BOARD).head(30))
    fitted.score(fitted.encode(requests), Slate(np.tile(np.arange(20), (len(requests), 1))))
    assert calls.texts == 0
    network = fitted.network
    fresh = torch.cat([network.bank.encoded(numbers, network.encoded) for numbers in network.bank.blocks()])
    assert calls.texts > 0
    calls.handle.remove()
    assert torch.equal(network.bank.rows, fresh) and network.bank.rows[1:].abs().sum(dim=1).min() > 0
    assert not fitted.staleness().any()


def test_training_writes_the_bank_moves_the_token_embeddings_and_makes_the_bank_stale():
    ranker = SemanticAnchorsRanker(SETTINGS.model_copy(update={"min_steps": 1})).fit(BOARD, exposures_of(BOARD), seed=0)
    network, rows = ranker.network, exposures_of(BOARD).filter(pl.col("item") < 3).head(40)
    before, tokens = network.bank.rows.clone(), network.encoder.general.weight.clone()
    Step(ranker)(ranker.inputs.arrays(rows), np.arange(len(rows)))
    assert not torch.equal(tokens, network.encoder.general.weight)
    stale = ranker.staleness()
    assert stale.shape == (20,) and stale.max() > 0
    Step(ranker)(ranker.inputs.arrays(rows), np.arange(len(rows)))
    moved = (network.bank.rows != before).any(dim=1)
    assert moved[1:4].all() and not moved[4:].any()  # each step writes the texts of its candidates
    predicted = ranker.predict(rows)["click"]  # brings the bank up to date
    assert not ranker.staleness().any()
    assert ranker.predict(rows)["click"].equals(predicted)


def test_a_row_reads_no_text_that_was_written_after_it():
    """What is planted into the texts' future changes nothing before it."""
    rows = exposures_of(BOARD).sort("time")
    cut = int(rows["time"][len(rows) // 2])
    late = rows.filter(pl.col("time") > cut)["event"]

    def log(said):
        columns = BOARD.event_columns.model_copy(update={"bias": ("says",)})
        text = pl.when(pl.col("event").is_in(late.implode())).then(pl.lit(said)).otherwise(pl.lit("a plain piece"))
        return replace(BOARD, events=BOARD.events.with_columns(says=text), event_columns=columns)

    settings = SETTINGS.model_copy(update={"texts": "says", "min_steps": 1})
    early = rows.filter(pl.col("time") <= cut)
    found = [SemanticAnchorsRanker(settings).fit(log(said), early, seed=0) for said in ("one thing", "another")]
    first, second = (ranker.predict(early)["click"] for ranker in found)
    assert first.equals(second)
    later = rows.filter(pl.col("time") > cut)
    assert not found[0].predict(later)["click"].equals(found[1].predict(later)["click"])


def test_texts_written_after_the_labels_window_are_rejected():
    rows = exposures_of(BOARD).sort("time")
    after = int(rows["time"].max()) + 1
    told = BOARD.items.with_columns(knowledge=pl.col("title"), knowledge_at=pl.lit(after))
    settings = SETTINGS.model_copy(update={"texts": "knowledge"})
    with pytest.raises(InputError, match="written after the period of the labels"):
        SemanticAnchorsRanker(settings).fit(replace(BOARD, items=told), rows, seed=0)
    blank = BOARD.items.with_columns(knowledge=pl.lit(" "))
    with pytest.raises(ConfigError, match="no texts"):
        SemanticAnchorsRanker(settings).fit(replace(BOARD, items=blank), rows, seed=0)


def test_a_loaded_ranker_encodes_only_texts_that_are_not_in_its_bank_and_each_once(fitted, tmp_path):
    fitted.save(tmp_path / "ranker")
    rows = exposures_of(BOARD).head(10)
    same = Ranker.load(tmp_path / "ranker", BOARD)
    calls = Calls(same)
    assert same.predict(rows)["click"].equals(fitted.predict(rows)["click"]) and calls.texts == 0
    assert same.version == fitted.version
    newcomer = BOARD.items.tail(1).with_columns(
        item=pl.col("item") + 1, item_id=pl.lit("new"), title=pl.lit("white piece, new"), category_l1=pl.lit("white")
    )
    later = replace(BOARD, items=pl.concat([BOARD.items, newcomer]))
    ranker = Ranker.load(tmp_path / "ranker", later)
    calls = Calls(ranker)
    assert ranker.predict(rows)["click"].equals(fitted.predict(rows)["click"])
    asked = calls.texts
    scores = ranker.score_pairs(np.array([0, 1]), np.array([20, 20]), np.full(2, int(rows["time"].max())))
    assert np.isfinite(scores).all() and asked > 0 and calls.texts == asked
    assert ranker.network.bank.rows[21].any() and ranker.version == fitted.version


def test_the_texts_alone_are_trained_by_the_auxiliary_loss(fitted):
    rows = exposures_of(BOARD).head(64)
    chunk, index = fitted.inputs.arrays(rows), np.arange(len(rows))
    outputs = fitted.network.eval()(fitted.inputs.batch(chunk, index)).detach().requires_grad_()
    half = outputs.shape[1] // 2
    labels = fitted.step_labels(chunk, index)
    alone = fitted.loss(outputs[:, half:], labels) * SETTINGS.auxiliary_weight
    torch.testing.assert_close(fitted.step_loss(chunk, index, outputs, None), fitted.loss(outputs, labels) + alone)
    fitted.network.zero_grad(set_to_none=True)
    fitted.network.train()
    fitted.network(fitted.inputs.batch(chunk, index))[:, half:].sum().backward()
    assert fitted.network.encoder.general.weight.grad.any() and not fitted.network.user.out.weight.grad.any()
    fitted.network.eval()


def test_a_width_that_does_not_divide_is_rejected():
    with pytest.raises(ValueError, match="even"):
        SemanticAnchorsRanker.Settings(text_width=7)
    with pytest.raises(ValueError, match="must divide"):
        SemanticAnchorsRanker.Settings(text_width=10, match_heads=4)


def test_a_history_starts_as_the_mean_over_its_texts_and_neutral_ones_and_matches_part_by_part():
    ranker = SemanticAnchorsRanker(SETTINGS.model_copy(update={"match_heads": 2, "min_steps": 1}))
    ranker.fit(BOARD, exposures_of(BOARD), seed=0)
    network = ranker.make_network().eval()
    network.prepare(ranker.inputs.arrays(exposures_of(BOARD)))
    rows = network.bank.rows[:, :8] - network.centre
    past = torch.tensor([[3, 5, 0, 0, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    user = network.pooled(past)
    prior = SETTINGS.history_prior
    expected = torch.stack([(rows[3] + rows[5]) / (2 + prior), torch.zeros(8), rows[1:6].sum(dim=0) / (5 + prior)])
    torch.testing.assert_close(user, expected)
    found = network.match(network.bank.rows[[7, 8, 9]], user)
    for head, columns in enumerate((slice(0, 4), slice(4, 8))):
        product = (rows[[7, 8, 9], columns] * expected[:, columns]).sum(dim=1)
        torch.testing.assert_close(found[:, head], product * network.match_scale[head])
    assert not found[1].any()


def test_texts_that_a_later_dataset_lacks_are_those_that_were_saved(tmp_path):
    rows = exposures_of(BOARD)
    told = BOARD.items.with_columns(knowledge="told of " + pl.col("title"))
    settings = SETTINGS.model_copy(update={"texts": "knowledge", "min_steps": 1})
    ranker = SemanticAnchorsRanker(settings).fit(replace(BOARD, items=told), rows, seed=0)
    ranker.save(tmp_path / "ranker")
    bare = Ranker.load(tmp_path / "ranker", BOARD)
    calls = Calls(bare)
    assert bare.predict(rows)["click"].equals(ranker.predict(rows)["click"]) and calls.texts == 0
    assert bare.version == ranker.version
    with pytest.raises(ConfigError, match="source of texts is unknown"):
        SemanticAnchorsRanker(settings).fit(BOARD, rows, seed=0)


def test_an_embedder_s_start_is_saved_with_the_ranker_and_not_asked_for_again(tmp_path, monkeypatch):
    pytest.importorskip("wordllama")
    rows = exposures_of(BOARD)
    ranker = SemanticAnchorsRanker(SETTINGS.model_copy(update={"min_steps": 1})).fit(BOARD, rows, seed=0)
    assert ranker.fieldset.numbers[-1].start_used == "wordllama" and isinstance(ranker.network.encoder, StartedEncoder)
    ranker.save(tmp_path / "ranker")
    monkeypatch.setattr("taiji.language.token_vectors.WordLlamaEmbedder", None)
    same = Ranker.load(tmp_path / "ranker", BOARD)
    assert same.predict(rows)["click"].equals(ranker.predict(rows)["click"]) and not same.staleness().any()
    same.network.bank.outdated()
    assert same.predict(rows)["click"].equals(
        ranker.predict(rows)["click"]
    )  # encoded anew, by the vectors that were saved


def test_without_an_embedder_s_package_tokens_begin_at_random(monkeypatch):
    monkeypatch.setattr("taiji.models.ranking.semantic_anchors.wordllama_is_there", lambda: False)
    settings = SETTINGS.model_copy(update={"min_steps": 1})
    ranker = SemanticAnchorsRanker(settings).fit(BOARD, exposures_of(BOARD), seed=0)
    assert ranker.fieldset.numbers[-1].start_used == "random" and type(ranker.network.encoder) is SemanticEncoder
    assert ranker.network.encoder.general.weight.any()

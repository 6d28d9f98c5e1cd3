import logging

import numpy as np
import pytest
import torch
from tests.models.ranking.conftest import with_features

from taiji.core.component import Requests, Slate
from taiji.models.ranking.dcn import DCNRanker
from taiji.models.ranking.din import DINRanker
from taiji.models.ranking.knowledge import KnowledgeRanker
from taiji.models.ranking.multitask import ESMMRanker, MMoERanker, PLERanker
from taiji.models.ranking.onnx_export import export_onnx
from taiji.models.ranking.split_inputs import example_batch, sides_of, split_network
from taiji.models.ranking.split_weights import split_weights
from taiji.models.ranking.target_attention import TargetAttentionRanker

CASES = [
    (TargetAttentionRanker, {}),
    (TargetAttentionRanker, {"text": "experts", "tower": "mmoe"}),
    (TargetAttentionRanker, {"text": "select_align", "chunks": 2}),
    (KnowledgeRanker, {"kinds": {"vector": 2}}),
    (DCNRanker, {}),
    (DINRanker, {}),
    (MMoERanker, {}),
    (PLERanker, {}),
    (ESMMRanker, {}),
]
IDS = ["attention", "experts", "select_align", "knowledge", "dcn", "din", "mmoe", "ple", "esmm"]


def untrained(kind, settings, shop, exposures):
    """A ranker whose weights are all drawn, none zero."""
    from taiji.data.field_set import FieldSet

    frame = with_features(exposures.head(400))
    torch.manual_seed(0)
    ranker = kind(kind.Settings(history=6, neighbour=4, hidden=(8,), device="cpu", **settings))
    fields = FieldSet(ranker.fields(shop, frame.columns)).fit(shop, frame, int(frame["time"].max()) + 1)
    ranker.build(shop, fields, ranker.learnt_tasks(shop))
    ranker.network.prepare(ranker.inputs.arrays(frame))
    with torch.no_grad():
        for parameter in ranker.network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return ranker, frame


def asked(frame, shop, count=5, places=4):
    rows = frame.slice(100, count)
    columns = {n: np.array([*rows[n].to_list(), None], dtype=object)[:-1] for n in ("ids", "neighbour_items", "vector")}
    requests = Requests(rows["user"].to_numpy(), rows["time"].to_numpy(), columns)
    return requests, Slate(np.random.default_rng(0).integers(0, shop.n_items, (count, places)))


@pytest.mark.parametrize(("kind", "settings"), CASES, ids=IDS)
def test_every_ranker_is_split_and_predicts_the_same(kind, settings, shop, exposures):
    ranker, frame = untrained(kind, settings, shop, exposures)
    requests, slate = asked(frame, shop)
    state = ranker.encode(requests)
    assert state.split is not None and state.split.split
    found = ranker.score(state, slate)
    whole = type(ranker)(ranker.settings.model_copy(update={"split_weights": False}))
    whole.__dict__.update({**ranker.__dict__, "settings": whole.settings})
    plain = whole.encode(requests)
    assert plain.split is None
    for head, values in whole.score(plain, slate).items():
        np.testing.assert_allclose(found[head], values, rtol=2e-4, atol=1e-6)

    ranker.network.double().eval()
    batch = example_batch(ranker.fieldset, "cpu")
    batch = {name: values.double() if values.is_floating_point() else values for name, values in batch.items()}
    split = split_weights(ranker.network, batch, sides_of(ranker.fieldset))
    with torch.no_grad():
        expected = ranker.network(sides_of(ranker.fieldset).whole(batch))
        difference = (split.score(split.encode(batch), batch) - expected).abs().max()
    assert difference <= 1e-12 * expected.abs().max().clamp_min(1)


def test_columns_are_told_apart_behind_a_field_of_several_numbers(shop, exposures):
    ranker, frame = untrained(
        DCNRanker,
        {"pair_fields": ("collaborative",), "fields": ({"field": "number", "column": "spend", "side": "user"},)},
        shop,
        exposures,
    )
    requests, slate = asked(frame, shop)
    found = ranker.score(ranker.encode(requests), slate)["click"]
    ranker.settings = ranker.settings.model_copy(update={"split_weights": False})
    expected = ranker.score(ranker.encode(requests), slate)["click"]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


def test_other_weights_are_split_anew(shop, exposures):
    ranker, frame = untrained(DINRanker, {}, shop, exposures)
    requests, slate = asked(frame, shop)
    before = ranker.encode(requests)
    assert ranker.encode(requests).split is before.split
    with torch.no_grad():
        ranker.network.tower[0].weight.mul_(2.0)  # the layer that is split
    after = ranker.encode(requests)
    assert after.split is not before.split
    ranker.settings = ranker.settings.model_copy(update={"split_weights": False})
    expected = ranker.score(ranker.encode(requests), slate)["click"]
    np.testing.assert_allclose(ranker.score(after, slate)["click"], expected, rtol=2e-4)


def test_a_network_that_cannot_be_split_is_scored_whole_and_says_why(shop, exposures, caplog):
    ranker, frame = untrained(DCNRanker, {}, shop, exposures)
    ranker.network.crosses[0] = torch.nn.Sequential(torch.nn.LayerNorm(ranker.network.inputs.out_width))
    ranker.network.crosses[0].forward = lambda first, current: ranker.network.crosses[0][0](current)
    requests, slate = asked(frame, shop)
    with caplog.at_level(logging.WARNING):
        state = ranker.encode(requests)
        ranker.encode(requests)
    assert state.split is None and len(caplog.records) == 1 and "LayerNorm" in caplog.text
    assert np.isfinite(ranker.score(state, slate)["click"]).all()


def test_splitting_leaves_the_random_state_alone(shop, exposures):
    ranker, _ = untrained(DCNRanker, {}, shop, exposures)
    torch.manual_seed(5)
    split_network(ranker.network, ranker.fieldset, "cpu")
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize("kind", [TargetAttentionRanker, DINRanker])
def test_a_split_onnx_graph_takes_each_request_once(kind, shop, exposures, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    ranker, frame = untrained(kind, {}, shop, exposures)
    export_onnx(ranker, frame.head(5), tmp_path / "ranker.onnx", split=True)
    session = runtime.InferenceSession(str(tmp_path / "ranker.onnx"), providers=["CPUExecutionProvider"])
    requests, slate = asked(frame, shop)
    state = ranker.encode(requests)
    feed = ranker.inputs.request_side(state.arrays) | ranker.inputs.candidate_side(state, slate, slice(None))
    wanted = {entry.name for entry in session.get_inputs()}
    assert len(feed["user"]) == 5 and len(feed["item"]) == 20
    found = session.run(list(ranker.heads), {n: v.numpy() for n, v in feed.items() if n in wanted})
    for head, values in zip(ranker.heads, found):
        np.testing.assert_allclose(values, ranker.score(state, slate)[head].ravel(), rtol=1e-4, atol=1e-5)

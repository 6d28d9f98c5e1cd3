import numpy as np
import pytest
from tests.models.ranking.conftest import with_features

from taiji.core.component import Requests, Slate
from taiji.models.ranking import train_ranker
from taiji.models.ranking.onnx_export import export_onnx, onnx_inputs
from taiji.models.ranking.ranker import ranker_class
from taiji.models.ranking.settings import RankerSettings


@pytest.mark.parametrize("model", ["target_attention", "dcn", "din"])
def test_every_model_exports_and_takes_several_candidates_of_one_request(model, shop, exposures, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    frame = with_features(exposures)
    kind = ranker_class(model)
    settings = kind.Settings(history=6, neighbour=4, hidden=(8,), min_steps=10, device="cpu")
    ranker = kind(settings).fit(shop, frame)
    export_onnx(ranker, frame.head(5), tmp_path / "ranker.onnx")
    session = runtime.InferenceSession(str(tmp_path / "ranker.onnx"), providers=["CPUExecutionProvider"])
    wanted = {entry.name for entry in session.get_inputs()}
    asked = frame.slice(100, 7)
    columns = {
        n: np.array([*asked[n].to_list(), None], dtype=object)[:-1] for n in ("ids", "neighbour_items", "vector")
    }
    requests = Requests(asked["user"].to_numpy(), asked["time"].to_numpy(), columns)
    slate = Slate(np.random.default_rng(0).integers(0, shop.n_items, (7, 5)))
    expected = ranker.score(ranker.encode(requests), slate)
    batch = ranker.inputs.candidates(ranker.encode(requests), slate, slice(None))
    assert len(batch["history"]) == 7 and len(batch["item"]) == 35
    for feed in (batch, ranker.inputs.batch(ranker.inputs.arrays(frame.head(33)), slice(None))):
        found = session.run(list(ranker.heads), {name: v.numpy() for name, v in feed.items() if name in wanted})
        assert all(len(values) == len(feed["item"]) for values in found)
    found = session.run(list(ranker.heads), {name: v.numpy() for name, v in batch.items() if name in wanted})
    for head, values in zip(ranker.heads, found):
        assert np.abs(values - expected[head].ravel()).max() < 1e-5


@pytest.mark.parametrize(
    ("tower", "text", "features", "embeddings"),
    [
        ("shared", "none", False, True),
        ("mmoe", "projection", True, True),
        ("shared", "select_align", True, True),
        ("shared", "experts", True, True),
        ("shared", "none", False, False),
        ("shared", "projection", True, False),
    ],
)
def test_exported_outputs_are_equal(shop, exposures, tower, text, features, embeddings, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    frame = with_features(exposures) if features else exposures
    settings = RankerSettings(
        dimension=8,
        history=10,
        neighbour=5,
        hidden=(16,),
        batch=512,
        min_steps=20,
        chunks=2,
        tower=tower,
        text=text,
        embeddings=embeddings,
    )
    ranker = train_ranker(shop, frame, settings)
    export_onnx(ranker, frame.head(5), tmp_path / "ranker.onnx")
    session = runtime.InferenceSession(str(tmp_path / "ranker.onnx"), providers=["CPUExecutionProvider"])
    wanted = {entry.name for entry in session.get_inputs()}
    for rows in (frame.slice(100, 700), frame.slice(3, 1)):
        feed = {name: value for name, value in onnx_inputs(ranker, rows).items() if name in wanted}
        outputs = session.run(["click", "conversion", "ctcvr"], feed)
        for name, got in zip(("click", "conversion", "ctcvr"), outputs):
            assert np.abs(got - ranker.predict(rows)[name].to_numpy()).max() < 1e-5

import numpy as np
import pytest
from tests.models.ranking.conftest import with_features

from taiji.models.ranking import train_ranker
from taiji.models.ranking.onnx_export import export_onnx, onnx_inputs
from taiji.models.ranking.settings import RankerSettings


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

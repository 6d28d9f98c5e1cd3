"""The device's graph decides as the Python path does, in at most a mebibyte."""

import numpy as np
import pytest

from taiji.core.component import Requests, Slate
from taiji.core.errors import ConfigError
from taiji.models.rerank import device_graph
from taiji.models.rerank.device import DeviceGate, DeviceGateSettings, PlayedVideos, decay, replacements
from taiji.models.rerank.device_graph import LARGEST, _down, export_device_gate

pytest.importorskip("lightgbm")
onnxruntime = pytest.importorskip("onnxruntime")


def fitted(**settings):
    random = np.random.default_rng(0)
    slate = Slate(np.tile(np.arange(8), (120, 1)), random.normal(size=(120, 8)))
    speed = random.random(120)
    requests = Requests(np.arange(120), np.arange(120), {"speed": speed, "network": random.choice(["a", "b"], 120)})
    stalled = (random.random(slate.items.shape) < 1 - speed[:, None]) * 1.0
    values = np.exp(slate.scores)
    made = DeviceGateSettings.model_validate({"numbers": ["speed"], "least_rows": 5, "stall_cost": 2.0, **settings})
    return DeviceGate(made).fit(PlayedVideos(requests, slate, stalled, values)), requests, slate


def test_graph_is_the_python_path(tmp_path):
    gate, requests, slate = fitted(explore=0.1)
    size = export_device_gate(gate, tmp_path / "gate.onnx")
    assert size == (tmp_path / "gate.onnx").stat().st_size <= LARGEST
    session = onnxruntime.InferenceSession(str(tmp_path / "gate.onnx"), providers=["CPUExecutionProvider"])
    features = gate.features(requests, slate)
    random = np.random.default_rng(1)
    close = 0
    for row in features[:60]:
        count = int(random.integers(0, 8))
        hours, draw = random.random(count) * 48, random.random()
        feed = {
            "video": row[:1], "pool": row[1 : 1 + count], "hours": hours.astype(np.float32),
            "draw": np.array([draw], np.float32),
        }  # fmt: skip
        stall, worth, choice, propensity = session.run(None, feed)
        p, v = gate.predict(row[: 1 + count])
        pool = v[1:] * decay(hours, gate.settings.half_life_hours)
        np.testing.assert_allclose(stall, p[:1], rtol=0, atol=2e-6)
        np.testing.assert_allclose(worth, [v[0], *pool], rtol=1e-5, atol=1e-6)
        need = gate.settings.stall_cost * p[:1] - v[:1]
        gains = np.sort(np.concatenate([[0.0], need + pool]))
        if count and gains[-1] - gains[-2] < 1e-4:
            close += 1  # float32 may take the other of two that are as good
            continue
        greedy = replacements(need[None], pool[None])[0]
        expected = np.where((greedy >= 0) & (draw < 0.1), -1, greedy)
        np.testing.assert_array_equal(choice, expected)
        chance = 1.0 if greedy[0] < 0 else 0.1 if draw < 0.1 else 0.9
        np.testing.assert_allclose(propensity, [chance], rtol=0, atol=1e-6)
    assert close < 6


def test_a_graph_of_constants_and_one_that_is_too_large(tmp_path, monkeypatch):
    gate, requests, slate = fitted(least_rows=10_000)  # no split: every tree is a leaf
    export_device_gate(gate, tmp_path / "gate.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "gate.onnx"), providers=["CPUExecutionProvider"])
    row = gate.features(requests, slate)[0]
    empty = {"video": row[:1], "pool": row[:0], "hours": np.zeros(0, np.float32), "draw": np.zeros(1, np.float32)}
    stall, _, choice, propensity = session.run(None, empty)
    np.testing.assert_allclose(stall, gate.predict(row[:1])[0], rtol=0, atol=1e-6)
    assert choice.tolist() == [-1] and propensity.tolist() == [1.0]
    monkeypatch.setattr(device_graph, "LARGEST", 1000)
    with pytest.raises(ConfigError, match="too large"):
        export_device_gate(gate, tmp_path / "large.onnx")
    assert not (tmp_path / "large.onnx").exists()


def test_thresholds_are_rounded_down():
    for value in (0.1, 1 / 3, -0.1, 1e10 + 0.3, 0.5):
        low = _down(value)
        above = float(np.nextafter(np.float32(low), np.float32(np.inf)))
        assert low <= value < above and float(np.float32(low)) == low

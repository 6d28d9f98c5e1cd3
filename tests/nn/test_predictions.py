import numpy as np

from taiji.data.tasks import Task
from taiji.nn.predictions import calibrate, platt, predictions


def test_calibration_of_counts_and_durations_gets_the_mean_right():
    random = np.random.default_rng(3)
    tasks = (Task(name="n", kind="count"), Task(name="s", kind="duration"))
    outputs = random.normal(size=(500, 2)) + 1
    labels = {"n": random.poisson(4.0, 500).astype(np.float32), "s": random.exponential(20.0, 500).astype(np.float32)}
    found = predictions(outputs, tasks, calibrate(outputs, labels, tasks))
    for name, label in labels.items():
        assert abs(found[name].mean() / label.mean() - 1) < 1e-5


def test_calibration_finds_the_scale_and_shift():
    random = np.random.default_rng(0)
    truth = random.normal(size=40_000)
    labels = (random.random(40_000) < 1 / (1 + np.exp(-truth))).astype(float)
    labels[::10] = np.nan
    scale, shift = platt((truth - 0.5) * 2, labels)
    assert abs(scale - 0.5) < 0.03 and abs(shift - 0.5) < 0.05
    assert platt(truth, np.zeros(40_000)) == (1.0, 0.0)
    assert platt(-truth, labels) == (1.0, 0.0)

"""The front that trackers see: exact volumes, points that are dominated, penalties, and going on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.alignment.jobs import length, spaces, vowels
from transformers.integrations.integration_utils import rewrite_logs

from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer
from taiji.alignment.front import Front, hypervolume
from taiji.core.errors import ConfigError


def test_hypervolume_of_two_rewards():
    points = np.array([[1.0, 0.2], [0.5, 0.8], [0.4, 0.4], [-1.0, 5.0]])
    assert hypervolume(points, (0.0, 0.0)) == pytest.approx(1.0 * 0.2 + 0.5 * 0.6)
    assert hypervolume(points, (0.4, 0.1)) == pytest.approx(0.6 * 0.1 + 0.1 * 0.6)
    assert hypervolume(points, (2.0, 2.0)) == 0.0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_hypervolume_by_inclusion_and_exclusion(seed, count):
    """Boxes a, b, c: their volumes, minus those of what two have in common, plus that of what all three have."""
    a, b, c = points = np.random.default_rng(seed).integers(0, 5, size=(3, count)).astype(float)
    reference = np.full(count, -1.0)

    def box(*corners):
        return float(np.prod(np.min(corners, 0) - reference))

    wanted = box(a) + box(b) + box(c) - box(a, b) - box(a, c) - box(b, c) + box(a, b, c)
    for order in ([0, 1, 2], [2, 0, 1]):
        assert hypervolume(points[order], reference) == pytest.approx(wanted)


def test_the_first_batch_is_the_reference_and_dominated_points_go():
    front = Front([1.0, 1.0])
    for means, points, volume in (
        ([0.2, 0.4], 1, 0.0),
        ([0.4, 0.2], 2, 0.0),
        ([0.3, 0.6], 2, 0.1 * 0.2),
        ([0.1, 0.1], 2, 0.1 * 0.2),
        ([0.3, 0.6], 2, 0.1 * 0.2),
        ([0.5, 0.7], 1, 0.3 * 0.3),
    ):
        found = front.add(np.array(means))
        assert found == {"points": points, "hypervolume": pytest.approx(volume)}, means
    assert front.points.tolist() == [[0.5, 0.7]]


def test_penalties_count_downwards_and_rewards_that_are_only_watched_do_not_count():
    front = Front([1.0, 0.0, -0.5], reference=[0.0, 9.0, 3.0])
    assert front.add(np.array([2.0, 5.0, 1.0])) == {"points": 1, "hypervolume": pytest.approx(2.0 * 2.0)}
    assert front.add(np.array([2.0, np.nan, 1.0]))["points"] == 1
    assert front.add(np.array([np.nan, 0.0, 0.0])) == {"points": 1, "hypervolume": pytest.approx(4.0)}
    assert Front([1.0, 0.0]).add(np.array([1.0, 1.0])) == {}, "one reward has no front"
    many = Front([1.0] * 4, reference=[0.0] * 4)
    assert many.add(np.ones(4)) == {"points": 1}, "the volume of many points takes too long"


def test_it_goes_on_from_its_state():
    one, rng = Front([1.0, 1.0, 1.0]), np.random.default_rng(0)
    for _ in range(20):
        one.add(rng.random(3))
    other, fixed = Front([1.0, 1.0, 1.0]), Front([1.0, 1.0, 1.0], reference=[0.0, 0.0, 0.0])
    other.load(one.state())
    fixed.load(one.state())
    for means in rng.random((20, 3)):
        assert one.add(means) == other.add(means)
        assert fixed.add(means)["hypervolume"] == pytest.approx(hypervolume(one.points, (0, 0, 0)))
    assert one.state() == other.state()


def test_a_reference_that_does_not_fit_is_named(job):
    for reference in ([0.0], [0.0, float("nan")]):
        with pytest.raises(ConfigError, match="front_reference"):
            job(ParetoGRPOTrainer, ParetoGRPOConfig, front_reference=reference)


def logged(trainer, key):
    return [line[key] for line in trainer.state.log_history if key in line]


@pytest.mark.parametrize("weighting", ["popo", "popo-light", "fixed"])
def test_a_run_logs_its_front(job, weighting):
    options = {"weighting": weighting, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, front_reference=[-0.1, -0.1], folder="straight", **options)
    trainer.train()
    points = np.array([logged(trainer, f"front/mean/{name}") for name in ("vowels", "spaces")]).T
    np.testing.assert_allclose(points.T, [logged(trainer, f"rewards/{name}/mean") for name in ("vowels", "spaces")])
    for step, volume in enumerate(logged(trainer, "front/hypervolume")):
        assert volume == pytest.approx(hypervolume(points[: step + 1], (-0.1, -0.1)))
    again = job(ParetoGRPOTrainer, ParetoGRPOConfig, front_reference=[-0.1, -0.1], folder="again", **options)
    again.train(resume_from_checkpoint=str(Path(trainer.args.output_dir) / "checkpoint-2"))
    assert logged(trainer, "front/hypervolume") == logged(again, "front/hypervolume")
    assert logged(trainer, "front/points") == logged(again, "front/points")


NAMES = {
    *(f"{what}/{name}" for what in ("weight", "indicator", "front/mean") for name in ("vowels", "spaces", "length")),
    "front/hypervolume",
    "front/points",
    "max_delta_log_weight",
    "dynamic_sampling/redrawn",
    "dynamic_sampling/left",
    "dynamic_sampling/extra_rollouts",
}
"""Names of the scalars that a tracker gets beside TRL's."""
THREE = {"rewards": [vowels, spaces, length], "dynamic_sampling": 1}


def test_trackers_get_flat_numbers(job):
    """Every tracker of transformers gets the lines of the log through this one function."""
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, **THREE)
    trainer.train()
    for line in trainer.state.log_history[:-1]:
        found = rewrite_logs(line)
        assert {f"train/{name}" for name in NAMES} <= found.keys()
        assert all(isinstance(value, int | float) for value in found.values())


def test_tensorboard_reads_back_what_was_logged(job, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, report_to="tensorboard", **THREE)
    trainer.train()
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert {f"train/{name}" for name in NAMES} <= set(events.Tags()["scalars"])
    for name in NAMES:
        seen = events.Scalars(f"train/{name}")
        assert [event.step for event in seen] == [1, 2, 3]
        assert [event.value for event in seen] == pytest.approx(logged(trainer, name), rel=1e-6)

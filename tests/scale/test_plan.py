"""The cost model: on GPUs by hand, on machines by measured lines. `test_benchmarks.py` foretells a run of a size that
was held back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.scale.test_workload import CONFIG, LOG

from taiji.pipeline.recipes import STAGE_NAMES
from taiji.scale.plan import Cluster, plan
from taiji.scale.rates import Measured

RUN = Measured(Path("run"), CONFIG, LOG, dict.fromkeys(STAGE_NAMES, 10.0), dict.fromkeys(STAGE_NAMES, 0.5))


def costs(found):
    return {cost.stage: cost for cost in found.stages}


def test_the_measured_size_costs_what_it_cost():
    found = plan(CONFIG, LOG.users, [RUN])
    assert all(cost.seconds == pytest.approx(10.0) for cost in found.stages)
    assert found.gpu_hours == 0 and costs(found)["answers"].gigabytes == pytest.approx(0.5)


def test_more_machines_share_what_can_be_shared():
    found = costs(plan(CONFIG, LOG.users, [RUN], Cluster(workers=5, efficiency=0.75)))
    assert found["answers"].seconds == pytest.approx(10 / 4)
    assert [found[name].seconds for name in ("sft", "evaluation_ranker")] == pytest.approx([10.0, 10.0])


def test_gpu_hours_by_hand():
    cluster = Cluster.model_validate(
        {
            "gpus": 3,
            "efficiency": 0.5,
            "parameters": 1e9,
            "model": {"prefill_per_s": 1000, "decode_per_s": 100, "utilisation": 0.5, "gpu_hour": 3.0},
        }
    )
    found = costs(plan(CONFIG, LOG.users, [RUN], cluster))
    busy = (90 * 400 / 1000 + 90 * 60 / 100) / 0.5
    assert found["answers"].gpu_hours == pytest.approx(busy / 3600)
    assert found["answers"].gpu_cost == pytest.approx(3 * busy / 3600)
    assert found["answers"].seconds == pytest.approx(busy / 2)
    assert found["sft"].gpu_hours == pytest.approx(3 * 135_000 / 1000 / 0.5 / 3600)
    assert found["evaluation_ranker"].gpu_hours == 0
    assert found["sft"].gigabytes == pytest.approx(4.0)


def test_a_teacher_of_its_own_has_its_own_rates():
    slow = {"prefill_per_s": 100, "decode_per_s": 10}
    one, two = (
        plan(CONFIG, LOG.users, [RUN], Cluster.model_validate({"gpus": 1, **more})) for more in ({}, {"teacher": slow})
    )
    assert costs(two)["rationales"].gpu_hours > 10 * costs(one)["rationales"].gpu_hours
    assert costs(two)["answers"] == costs(one)["answers"]
    assert any("teacher" in line for line in two.assumptions)


def test_everything_assumed_is_said():
    lines = plan(CONFIG, 5e6, [RUN], Cluster(gpus=8)).assumptions
    assert any("overstates" in line for line in lines) and any("8 GPUs" in line for line in lines)
    other = replace(RUN, config=CONFIG.model_copy(update={"size": CONFIG.size.model_copy(update={"test_prompts": 9})}))
    assert any("are separated" in line for line in plan(CONFIG, 5e6, [other, RUN]).assumptions)


def test_longer_prompts_than_were_measured_cost_more():
    longer = replace(LOG, student_tokens=10 * LOG.student_tokens)
    one, ten = (costs(plan(CONFIG, LOG.users, [RUN], log=log)) for log in (LOG, longer))
    assert ten["answers"].seconds > 5 * one["answers"].seconds and ten["evaluation_ranker"] == one["evaluation_ranker"]

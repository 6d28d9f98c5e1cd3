"""Amounts of work: what grows with what, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taiji.config import Config
from taiji.pipeline.amounts import TRAINED, WRITTEN, Log
from taiji.pipeline.recipes import STAGE_NAMES
from taiji.scale.workload import workload

LOG = Log(
    users=1000,
    events_per_user=50,
    exposures_per_user=(10, 9, 8, 7),
    items=100,
    feature_rows_per_user=2,
    student_tokens=400,
    teacher_tokens=450,
    rationale_tokens=30,
    answer_tokens=60,
    target_tokens=20,
    kept_share=0.5,
)
CONFIG = Config.model_validate(
    {
        "size": {
            "rationale_prompts": 100,
            "calibration_prompts": 20,
            "alignment_prompts": 40,
            "test_prompts": 30,
            "feature_users": 200,
        },
        "reasoning": {"teacher": {"rationales": 3, "kind": "local"}, "sft": {"epochs": 2}},
        "alignment": {"generations": 4},
    }
)


def test_every_stage_has_an_amount():
    assert set(workload(CONFIG, LOG)) == set(STAGE_NAMES)


def test_tokens_counted_by_hand():
    amounts = workload(CONFIG, LOG)
    assert (amounts["rationales"].read, amounts["rationales"].written) == (120 * 450, 120 * 3 * 30)
    assert amounts["selection"].read == 120 * (400 + 2 * 3 * 50 + 20)
    assert amounts["sft"].trained == 100 * 3 * 0.5 * 2 * 450
    assert (amounts["alignment"].written, amounts["alignment"].trained) == (160 * 60, 40 * (400 + 4 * 60))
    assert (amounts["answers"].read, amounts["answers"].written) == (90 * 400, 90 * 60)
    assert (amounts["features"].rows, amounts["features"].pairs) == (400, 400 * 200)
    assert amounts["answers"].units == 90 * (400 + WRITTEN * 60)
    assert amounts["sft"].units == TRAINED * amounts["sft"].trained
    assert amounts["data"].units == 50_000


def test_prompts_that_training_repeats_get_one_row_of_rewards():
    longer = CONFIG.model_copy(
        update={"alignment": CONFIG.alignment.model_copy(update={"steps": 100, "prompts_per_step": 8})}
    )
    amounts = workload(longer, LOG)
    assert (amounts["reward_table"].rows, amounts["alignment"].written) == (40, 800 * 4 * 60)


def test_a_writer_needs_no_model_and_an_endpoint_no_partitions():
    def kind(name):
        teacher = CONFIG.reasoning.teacher.model_copy(update={"kind": name})
        return CONFIG.model_copy(update={"reasoning": CONFIG.reasoning.model_copy(update={"teacher": teacher})})

    written = workload(kind("writer"), LOG)["rationales"]
    assert (written.read, written.language, written.units) == (0, False, 120)
    assert not workload(kind("endpoint"), LOG)["rationales"].spread


@pytest.mark.parametrize("stage", ["rationales", "selection", "sft", "alignment", "answers", "features"])
def test_prompts_that_there_are_no_users_for_cost_nothing(stage):
    few = replace(LOG, users=20)
    assert workload(CONFIG, few)[stage].units < workload(CONFIG, LOG)[stage].units
    assert workload(CONFIG, replace(LOG, users=1e6))[stage].units == pytest.approx(
        workload(CONFIG, LOG)[stage].units
    ), "sizes are the configuration's"


def test_features_for_everyone_grow_with_the_users():
    everyone = CONFIG.model_copy(update={"size": CONFIG.size.model_copy(update={"feature_users": None})})
    small, large = (workload(everyone, replace(LOG, users=n))["features"] for n in (1e3, 1e6))
    assert large.units == pytest.approx(1000 * small.units)
    assert large.pairs == pytest.approx(1e6 * small.pairs)

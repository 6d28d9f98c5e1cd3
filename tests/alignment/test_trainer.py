"""The trainer: equal to TRL where it should be, and right where it differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from tests.alignment.jobs import build_job, length, parameters, spaces, vowels
from tests.processes import launched
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer
from taiji.alignment.accumulation import AccumulationStep
from taiji.alignment.hooks import check_hooks
from taiji.core.errors import TaijiError

LORA = {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)}


class Trajectory(TrainerCallback):
    """Parameters after every step."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_step_end(self, args, state, control, model=None, **keywords):
        self.seen.append(torch.cat([p.detach().reshape(-1).clone() for p in model.parameters() if p.requires_grad]))


def history(trainer, key):
    return [line[key] for line in trainer.state.log_history if key in line]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
        {"beta": 0.1, **LORA},
        {"multi_objective_aggregation": "normalize_then_sum"},
    ],
    ids=["plain", "accumulated", "lora-kl", "gdpo"],
)
def test_frozen_weights_are_stock_trl_exactly(job, options):
    runs = []
    for cls, config, extra in (
        (GRPOTrainer, GRPOConfig, {}),
        (ParetoGRPOTrainer, ParetoGRPOConfig, {"weighting": "fixed", "share_prefixes": False}),
    ):
        path = Trajectory()
        trainer = job(cls, config, reward_weights=[0.7, 0.3], max_steps=6, callbacks=[path], **extra, **options)
        trainer.train()
        runs.append((path.seen, history(trainer, "loss"), history(trainer, "reward")))
    (stock, losses, rewards), (ours, our_losses, our_rewards) = runs
    assert len(stock) == 6 and all(torch.equal(a, b) for a, b in zip(stock, ours))
    assert losses == our_losses and rewards == our_rewards
    assert not torch.equal(stock[0], stock[-1])


@pytest.mark.parametrize("estimator", ["same-batch", "cross-batch", "directional"])
@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_gradient_machinery_with_frozen_weights_takes_trls_steps(job, estimator, aggregation):
    common = {
        "optim": "sgd",
        "learning_rate": 0.5,
        "max_steps": 5,
        "multi_objective_aggregation": aggregation,
        "beta": 0.05,
        **LORA,
    }
    stock = job(GRPOTrainer, GRPOConfig, reward_weights=[0.5, 0.5], **common)
    stock.train()
    ours = job(
        ParetoGRPOTrainer,
        ParetoGRPOConfig,
        aggregation="trl",
        reward_weights=[0.5, 0.5],
        weight_step=0.0,
        weight_floor=0.0,
        gram_estimator=estimator,
        **common,
    )
    ours.train()
    moved = (parameters(stock) - parameters(job(GRPOTrainer, GRPOConfig, **common))).abs().max()
    assert (parameters(stock) - parameters(ours)).abs().max() < 1e-4 * moved
    assert np.allclose(history(stock, "loss"), history(ours, "loss"), atol=1e-6)


@pytest.mark.parametrize("aggregation", ["trl", "linear"])
def test_directional_indicators_match_explicit_ones(job, aggregation, monkeypatch):
    """<g_k of the second half, sum_i g_i of the first>, by finite differences and from the gradients themselves."""
    explicit = []
    close = AccumulationStep.close

    def watched(step, *arguments):
        first, second = step.columns() @ step.sums.flat.double()
        share = step.rows / step.rows.sum()
        explicit.append((second @ first.sum(0) / share.prod()).numpy())
        return close(step, *arguments)

    options = {
        "aggregation": aggregation,
        "rewards": [vowels, spaces, length],
        "max_steps": 1,
        "per_device_train_batch_size": 16,
    }
    with monkeypatch.context() as patch:
        patch.setattr(AccumulationStep, "close", watched)
        job(ParetoGRPOTrainer, ParetoGRPOConfig, gram_estimator="cross-batch", **options).train()
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, gram_estimator="directional", **options)
    trainer.train()
    found = np.array([history(trainer, f"indicator/{name}")[0] for name in ("vowels", "spaces", "length")])
    assert np.abs(found - explicit[0]).max() < 1e-3 * np.abs(explicit[0]).max()


@pytest.mark.parametrize("estimator", ["same-batch", "cross-batch", "directional"])
def test_accumulation_changes_nothing(job, estimator):
    runs = []
    for size, accumulation in ((16, 1), (4, 4)):
        trainer = job(
            ParetoGRPOTrainer,
            ParetoGRPOConfig,
            gram_estimator=estimator,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=2,
            optim="sgd",
            learning_rate=0.5,
        )
        trainer.train()
        runs.append((parameters(trainer), history(trainer, "indicator/vowels"), history(trainer, "weight/vowels")))
    (a, indicator, weight), (b, other_indicator, other_weight) = runs
    assert torch.allclose(a, b, atol=2e-6)
    assert np.allclose(indicator, other_indicator, rtol=5e-3) and np.allclose(weight, other_weight, atol=1e-5)


@pytest.mark.parametrize("weighting", ["popo", "popo-light", "popo-covariance", "mgda"])
def test_equal_rewards_move_neither_weights_nor_parameters(job, weighting):
    def constant(completions, **_):
        return [0.3] * len(completions)

    def other(completions, **_):
        return [2.0] * len(completions)

    trainer = job(
        ParetoGRPOTrainer,
        ParetoGRPOConfig,
        rewards=[constant, other],
        weighting=weighting,
        reward_weights=[0.7, 0.3],
        gram_estimator="cross-batch",
    )
    before = parameters(trainer).clone()
    trainer.train()
    assert torch.equal(before, parameters(trainer))
    assert history(trainer, "max_delta_log_weight") == [0.0] * 3
    assert np.allclose(trainer.rule.weights, [0.7, 0.3], atol=1e-12)


@pytest.mark.parametrize("weighting", ["popo", "popo-light", "popo-covariance", "dwa", "uncertainty", "upgrad"])
def test_nan_rewards_and_any_number_of_rewards(job, weighting):
    def sometimes(completions, **_):
        return [None if number % 3 == 0 else float(len(text)) for number, text in enumerate(completions)]

    def never(completions, **_):
        return [None] * len(completions)

    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, rewards=[vowels, sometimes, never], weighting=weighting)
    trainer.train()
    assert torch.isfinite(parameters(trainer)).all()
    assert trainer.rule.weights.sum() == pytest.approx(1)
    line = trainer.state.log_history[0]
    assert {
        "rewards/vowels/mean",
        "rewards/vowels/std",
        "weight/vowels",
        "weight/never",
        "max_delta_log_weight",
    } <= line.keys()
    assert weighting in ("dwa", "uncertainty", "upgrad") or "indicator/sometimes" in line


@pytest.mark.parametrize(
    "options",
    [
        {"weighting": "popo"},
        {"weighting": "popo", "per_device_train_batch_size": 4, "steps_per_generation": 4, **LORA},
        {"weighting": "popo-light", "num_iterations": 2},
        {"weighting": "dwa", "gradient_accumulation_steps": 2},
    ],
    ids=["full", "lora-mid-generation", "iterations", "accumulated"],
)
def test_resume_is_bit_equal(job, options):
    common = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "save_total_limit": 3, **options}
    straight = job(ParetoGRPOTrainer, ParetoGRPOConfig, folder="straight", **common)
    straight.train()
    again = job(ParetoGRPOTrainer, ParetoGRPOConfig, folder="again", **common)
    again.train(resume_from_checkpoint=str(Path(straight.args.output_dir) / "checkpoint-3"))
    assert torch.equal(parameters(straight), parameters(again))
    assert straight.rule.state() == again.rule.state()
    assert history(straight, "weight/vowels") == history(again, "weight/vowels")
    assert history(straight, "loss") == history(again, "loss")


def test_resume_from_stock_checkpoint_warns_and_from_another_rule_raises(job, caplog):
    saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    stock = job(GRPOTrainer, GRPOConfig, folder="stock", **saved)
    stock.train()
    job(ParetoGRPOTrainer, ParetoGRPOConfig, max_steps=3).train(
        resume_from_checkpoint=f"{stock.args.output_dir}/checkpoint-2"
    )
    assert caplog.text.count("start afresh") == 1
    light = job(ParetoGRPOTrainer, ParetoGRPOConfig, folder="light", weighting="popo-light", **saved)
    light.train()
    with pytest.raises(TaijiError, match="another weighting"):
        job(ParetoGRPOTrainer, ParetoGRPOConfig, max_steps=3).train(
            resume_from_checkpoint=f"{light.args.output_dir}/checkpoint-2"
        )


def test_kl_outside_the_indicator_changes_indicators_not_the_update(job):
    runs = {}
    for inside in (True, False):
        trainer = job(
            ParetoGRPOTrainer,
            ParetoGRPOConfig,
            kl_in_indicator=inside,
            beta=1.0,
            weight_step=0.0,
            weight_floor=0.0,
            optim="sgd",
            learning_rate=0.5,
            max_steps=3,
            **LORA,
        )
        trainer.train()
        runs[inside] = (parameters(trainer), history(trainer, "indicator/vowels"))
    assert torch.allclose(runs[True][0], runs[False][0], atol=1e-6)
    assert not np.allclose(runs[True][1][1:], runs[False][1][1:], rtol=1e-3)


def test_gradient_checkpointing_gives_the_same_run(job):
    runs = []
    for on in (False, True):
        trainer = job(
            ParetoGRPOTrainer,
            ParetoGRPOConfig,
            gradient_checkpointing=on,
            max_steps=2,
            **({"gradient_checkpointing_kwargs": {"use_reentrant": False}} if on else {}),
        )
        trainer.train()
        runs.append(parameters(trainer))
    assert torch.allclose(*runs, atol=1e-6)
    with pytest.raises(TaijiError, match="one backward"):
        job(
            ParetoGRPOTrainer,
            ParetoGRPOConfig,
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": True},
        )


def test_preference_is_where_the_weights_are_pulled(job):
    trainer = job(
        ParetoGRPOTrainer, ParetoGRPOConfig, preference=[3.0, 1.0], weight_step=0.0, weight_floor=0.5, max_steps=6
    )
    trainer.train()
    assert trainer.rule.weights == pytest.approx([0.75, 0.25], abs=0.01)


def test_warmup_holds_the_weights(job):
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, weight_warmup=2, reward_weights=[0.9, 0.1], max_steps=4)
    trainer.train()
    assert (
        history(trainer, "max_delta_log_weight")[:2] == [0.0, 0.0] and history(trainer, "max_delta_log_weight")[2] > 0
    )


def test_evaluation_leaves_the_weights_alone(job):
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, max_steps=1, per_device_eval_batch_size=8)
    trainer.train()
    before = trainer.rule.state()
    assert "eval_reward" in trainer.evaluate(trainer.train_dataset.select(range(2)))
    assert trainer.rule.state() == before


def test_configuration_errors_say_what_to_do(job):
    cases = [
        ({"weighting": "pareto"}, "unknown value"),
        ({"gram_estimator": "both"}, "unknown value"),
        ({"per_device_train_batch_size": 4}, "two prompts"),
        ({"preference": [0.5, 0.3, 0.2]}, "do not fit"),
        ({"token_weighting": "pepo", "pepo_as_released": True}, "per-reward gradients"),
    ]
    for options, message in cases:
        with pytest.raises(TaijiError, match=message):
            job(ParetoGRPOTrainer, ParetoGRPOConfig, **options)
    with pytest.raises(TaijiError, match="TRL's own"):
        job(ParetoGRPOTrainer, GRPOConfig)


def test_moved_hooks_are_named(job):
    class Moved(GRPOTrainer):
        def _compute_loss(self, model, batch):
            return None

    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig)
    check_hooks(GRPOTrainer, trainer)
    del trainer._buffered_inputs
    with pytest.raises(TaijiError, match=r"_compute_loss\(inputs\)[\s\S]*_buffered_inputs"):
        check_hooks(Moved, trainer)


def fixed_rollouts(prompts, trainer):
    """Completions that depend on the prompt and the rollout's number only, whatever process asks."""
    tokenizer, seen, ids = trainer.processing_class, {}, []
    for prompt in prompts:
        number = seen[prompt] = seen.get(prompt, -1) + 1
        rng = np.random.default_rng([number, *prompt.encode()])
        ids.append(rng.integers(3, len(tokenizer), size=rng.integers(3, 7)).tolist())
    return {"prompt_ids": [tokenizer(p)["input_ids"] for p in prompts], "completion_ids": ids, "logprobs": None}


def distributed_run(rank, world, folder, estimator):
    trainer = build_job(
        folder,
        ParetoGRPOTrainer,
        ParetoGRPOConfig,
        gram_estimator=estimator,
        per_device_train_batch_size=16 // world,
        max_steps=3,
        optim="sgd",
        learning_rate=0.5,
        folder=f"world{world}",
    )
    trainer.rollout_func = fixed_rollouts
    trainer.train()
    indicators, weights = history(trainer, "indicator/vowels"), trainer.rule.weights
    np.savez(folder / f"{world}-{rank}.npz", parameters(trainer).numpy(), indicators, weights)


@pytest.mark.parametrize("estimator", ["cross-batch", "directional"])
def test_two_processes_take_the_steps_of_one(tmp_path, estimator):
    for world in (1, 2):
        launched(distributed_run, world, tmp_path, estimator)
    one, first, second = (list(np.load(tmp_path / f"{name}.npz").values()) for name in ("1-0", "2-0", "2-1"))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[2], second[2]), "processes agree to the bit"
    assert np.allclose(one[0], first[0], atol=2e-6) and np.allclose(one[2], first[2], atol=1e-5)
    assert np.allclose(one[1], first[1], rtol=5e-3)


def test_linear_aggregation_applies_each_rewards_own_advantage(job):
    runs = {}
    for scale in (1.0, 100.0):

        def scaled(completions, *, scale=scale, **_):
            return [scale * value for value in spaces(completions)]

        trainer = job(
            ParetoGRPOTrainer,
            ParetoGRPOConfig,
            rewards=[vowels, scaled],
            aggregation="linear",
            optim="sgd",
            learning_rate=0.5,
        )
        trainer.train()
        runs[scale] = parameters(trainer)
    moved = (runs[1.0] - parameters(job(ParetoGRPOTrainer, ParetoGRPOConfig))).abs().max()
    assert (runs[1.0] - runs[100.0]).abs().max() < 0.05 * moved, (
        "a reward's unit does not matter, up to the 1e-4 under the fraction"
    )


def test_fixed_takes_any_weights_as_trl_does(job):
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, weighting="fixed", reward_weights=[1.0, -0.5], max_steps=1)
    trainer.train()
    assert trainer.reward_weights.tolist() == [1.0, -0.5]

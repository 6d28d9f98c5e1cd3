"""The trainer: equal to TRL where it should be, and right where it differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig
from tests.alignment.jobs import length, parameters, spaces, vowels
from tests.alignment.rollouts import fixed_rollouts
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_chat_template

from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer
from taiji.alignment.accumulation import AccumulationStep
from taiji.alignment.hooks import check_hooks
from taiji.core.errors import TaijiError
from taiji.language.tiny import tiny_causal_lm

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
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 3},
    ],
    ids=["plain", "accumulated", "lora-kl", "gdpo", "steps-span-generations"],
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


def directional_error(job, monkeypatch, step=1e-3, dtype=torch.float32, **options):
    """Largest relative error of <g_k of the second half, sum_i g_i of the first> by finite differences, against the
    gradients themselves."""
    explicit = []
    close = AccumulationStep.close

    def watched(step, *arguments):
        first, second = step.columns() @ step.sums.flat.double()
        share = step.rows / step.rows.sum()
        explicit.append((second @ first.sum(0) / share.prod()).numpy())
        return close(step, *arguments)

    options |= {"rewards": [vowels, spaces, length], "max_steps": 1, "per_device_train_batch_size": 16}

    def built(estimator):
        model = tiny_causal_lm(hidden=32, layers=2, heads=4)[0].to(dtype)
        found = {"gram_estimator": estimator, "directional_step": step, "model": model}
        trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, **found, **options)
        trainer.train()
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(AccumulationStep, "close", watched)
        built("cross-batch")
    trainer = built("directional")
    found = np.array([history(trainer, f"indicator/{name}")[0] for name in ("vowels", "spaces", "length")])
    return np.abs(found - explicit[0]).max() / np.abs(explicit[0]).max()


@pytest.mark.parametrize("aggregation", ["trl", "linear"])
def test_directional_indicators_match_explicit_ones(job, aggregation, monkeypatch):
    assert directional_error(job, monkeypatch, aggregation=aggregation) < 1e-3


def test_directional_indicators_with_bfloat16_weights(job, monkeypatch):
    """Here .004 to .09 over four seeds; steps of 1e-4 are lost in the weights' rounding, those of 1e-1 are bent."""
    assert directional_error(job, monkeypatch, step=1e-2, dtype=torch.bfloat16) < 0.5


@pytest.mark.parametrize(
    "options", [{"loss_type": "vespo"}, {"loss_type": "grpo", "epsilon": 1e-3}], ids=["vespo", "clipped"]
)
def test_trls_own_update_also_where_the_loss_is_not_linear_in_the_advantage(job, options):
    common = {
        "optim": "sgd",
        "learning_rate": 0.5,
        "max_steps": 4,
        "num_iterations": 2,
        "share_prefixes": False,
        **options,
    }
    fixed = job(ParetoGRPOTrainer, ParetoGRPOConfig, weighting="fixed", **common)
    fixed.train()
    frozen = {"weight_step": 0.0, "weight_floor": 0.0}
    ours = {}
    for aggregation in ("trl", "common"):
        ours[aggregation] = job(ParetoGRPOTrainer, ParetoGRPOConfig, aggregation=aggregation, **frozen, **common)
        ours[aggregation].train()
    moved = (parameters(fixed) - parameters(job(ParetoGRPOTrainer, ParetoGRPOConfig, **common))).abs().max()
    assert (parameters(fixed) - parameters(ours["trl"])).abs().max() < 1e-4 * moved
    assert (parameters(fixed) - parameters(ours["common"])).abs().max() > 1e-2 * moved


def first_norm(job, cls, config, **options):
    trainer = job(cls, config, max_steps=1, beta=0.1, **options)
    trainer.train()
    return history(trainer, "grad_norm")[0]


def mirrored(completions, **_):
    return [-value for value in spaces(completions)]


def test_changing_two_names_does_not_change_the_first_step(job):
    """In the rewards' own units, where the size of the weights counts against beta * KL."""
    common = {"scale_rewards": "none", "reward_weights": [3.0, 1.0], **LORA}
    stock = first_norm(job, GRPOTrainer, GRPOConfig, **common)
    for weighting in ("popo", "popo-covariance", "dwa"):
        frozen = {"weight_step": 0.0, "weight_floor": 0.0}
        assert first_norm(job, ParetoGRPOTrainer, ParetoGRPOConfig, weighting=weighting, **frozen, **common) == (
            pytest.approx(stock, rel=1e-4)
        )


def test_a_weight_of_zero_is_logged_and_a_negative_one_a_penalty(job):
    found = []
    for rewards, weights in (
        ([vowels, spaces], None),
        ([vowels, length, spaces], [1.0, 0.0, 1.0]),
        ([vowels, mirrored], [1.0, -1.0]),
    ):
        trainer = job(
            ParetoGRPOTrainer,
            ParetoGRPOConfig,
            rewards=rewards,
            reward_weights=weights,
            optim="sgd",
            learning_rate=0.5,
        )
        trainer.train()
        found.append(trainer)
    alone, watched, penalty = found
    assert torch.equal(parameters(alone), parameters(watched)) and torch.equal(parameters(alone), parameters(penalty))
    assert history(watched, "weight/length") == [0.0] * 3 and len(history(watched, "rewards/length/mean")) == 3
    assert history(penalty, "weight/mirrored") == [-w for w in history(alone, "weight/spaces")]


def test_gradients_that_are_not_finite_move_nothing(job, monkeypatch, caplog):
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, max_steps=1)
    before, weights = parameters(trainer).clone(), trainer.rule.weights
    start = ParetoGRPOTrainer._start_accumulation

    def poisoned(self, model):
        step = start(self, model)
        step.sums.flat[0, 0, 0] = float("nan")
        return step

    monkeypatch.setattr(ParetoGRPOTrainer, "_start_accumulation", poisoned)
    trainer.train()
    assert torch.equal(before, parameters(trainer)) and np.array_equal(weights, trainer.rule.weights)
    assert history(trainer, "weight_observations_skipped") == [1.0] and "not finite" in caplog.text


def one_token(kind):
    def reward(completion_ids, **_):
        return [float(any(token % 5 == kind for token in ids)) for ids in completion_ids]

    return reward


def bf16_errors(job, group: int, steps: int) -> dict[str, list[float]]:
    """Relative error of each step's bfloat16 update against float32 on the same rollouts, binary rewards, equal
    weights."""
    found_errors = {}
    for name, options in {"stock": {"weighting": "fixed"}, "popo": {"weight_step": 0.0, "weight_floor": 0.0}}.items():
        common = {"rewards": [one_token(0), one_token(1)], "num_generations": group, "share_prefixes": False, **options}
        twin = job(ParetoGRPOTrainer, ParetoGRPOConfig, per_device_train_batch_size=16, folder="twin", **common)
        twin.model.train()
        twin.current_gradient_accumulation_steps = 1
        errors = []

        class Watched(ParetoGRPOTrainer):
            def _compute_loss(self, model, inputs, twin=twin):
                twin.model.load_state_dict({k: v.float() for k, v in self.model.state_dict().items()})
                twin.model.zero_grad()
                twin._compute_loss(twin.model, dict(inputs)).backward()
                return super()._compute_loss(model, inputs)

            def training_step(self, *arguments, twin=twin, errors=errors):
                loss = super().training_step(*arguments)
                found, exact = (
                    torch.cat([p.grad.float().flatten() for p in m.parameters()]) for m in (self.model, twin.model)
                )
                errors.append(float((found - exact).norm() / exact.norm()))
                return loss

        model = tiny_causal_lm(hidden=32, layers=2, heads=4)[0].to(torch.bfloat16)
        half = {"model": model, "per_device_train_batch_size": 16, "max_steps": steps, "learning_rate": 1e-3}
        job(Watched, ParetoGRPOConfig, **half, **common).train()
        found_errors[name] = errors
    return found_errors


def test_bf16_updates_at_equal_weights_are_as_exact_as_stock_ones(job):
    """Groups of two: the weighted sum is often constant where the rewards are not."""
    errors = bf16_errors(job, 2, 6)
    assert max(errors["popo"]) <= 2 * max(errors["stock"])


@pytest.mark.parametrize("count", [2, 6])
def test_processes_wait_for_each_other_as_often_as_in_stock_trl(job, count, monkeypatch):
    calls = {}

    def watched(name):
        stock = getattr(Accelerator, name)

        def counted(self, *arguments, **keywords):
            calls[name] = calls.get(name, 0) + 1
            return stock(self, *arguments, **keywords)

        monkeypatch.setattr(Accelerator, name, counted)

    for name in ("gather", "reduce", "gather_for_metrics"):
        watched(name)
    seen = []
    for options in ({"weighting": "fixed"}, {"weighting": "popo"}):
        calls.clear()
        job(ParetoGRPOTrainer, ParetoGRPOConfig, rewards=[vowels] * count, max_steps=1, **options).train()
        seen.append(dict(calls))
    assert seen[0] == seen[1], "the gradients' own reduction, one with several processes, comes on top"


def test_further_rewards_read_nothing_more_from_the_device(job, monkeypatch):
    reads = []
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__"):
        stock = getattr(torch.Tensor, name)

        def counted(self, *arguments, stock=stock, **keywords):
            reads.append(1)
            return stock(self, *arguments, **keywords)

        monkeypatch.setattr(torch.Tensor, name, counted)
    seen = []
    add = ParetoGRPOTrainer._loss_per_reward

    def watched(self, model, inputs):
        reads.clear()
        loss = add(self, model, inputs)
        seen.append(len(reads))
        return loss

    monkeypatch.setattr(ParetoGRPOTrainer, "_loss_per_reward", watched)
    for count in (2, 6):
        job(ParetoGRPOTrainer, ParetoGRPOConfig, rewards=[vowels] * count, max_steps=1).train()
    assert seen[0] == seen[1] > 0


def test_only_uncertain_tokens_are_trained_on_for_every_reward(job):
    common = {"aggregation": "common", "top_entropy_quantile": 0.5, "optim": "sgd", "learning_rate": 0.5, **LORA}
    fixed = job(ParetoGRPOTrainer, ParetoGRPOConfig, weighting="fixed", **common)
    start = parameters(fixed)
    fixed.train()
    ours = job(ParetoGRPOTrainer, ParetoGRPOConfig, weight_step=0.0, weight_floor=0.0, **common)
    ours.train()
    whole = job(ParetoGRPOTrainer, ParetoGRPOConfig, weighting="fixed", **{**common, "top_entropy_quantile": 1.0})
    whole.train()
    moved = (parameters(fixed) - start).norm()
    assert (parameters(fixed) - parameters(ours)).norm() < 1e-4 * moved
    assert (parameters(fixed) - parameters(whole)).norm() > 0.01 * moved


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


@pytest.mark.parametrize(
    "weighting", ["popo", "popo-light", "popo-covariance", "dwa", "uncertainty", "upgrad", "feedback"]
)
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
    assert weighting in ("dwa", "uncertainty", "upgrad", "feedback") or "indicator/sometimes" in line


@pytest.mark.parametrize(
    "options",
    [
        {"weighting": "popo"},
        {"weighting": "popo", "per_device_train_batch_size": 4, "steps_per_generation": 4, **LORA},
        {"weighting": "popo-light", "num_iterations": 2},
        {"weighting": "dwa", "gradient_accumulation_steps": 2},
        {"weighting": "popo", "weight_every": 2},
    ],
    ids=["full", "lora-mid-generation", "iterations", "accumulated", "every-second"],
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
    assert caplog.text.count("start from their initial values") == 1
    light = job(ParetoGRPOTrainer, ParetoGRPOConfig, folder="light", weighting="popo-light", **saved)
    light.train()
    with pytest.raises(TaijiError, match="a different weighting"):
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


@pytest.mark.parametrize("estimator", ["cross-batch", "directional"])
@pytest.mark.parametrize("options", [{}, {"beta": 0.1, "kl_in_indicator": False, **LORA}], ids=["full", "lora-kl"])
def test_unobserved_steps_hold_the_weights_and_take_the_same_update(job, estimator, options):
    common = {"gram_estimator": estimator, "max_steps": 4, "reward_weights": [0.7, 0.3], **options}
    some = job(ParetoGRPOTrainer, ParetoGRPOConfig, folder="some", weight_every=2, **common)
    some.train()
    moves = history(some, "max_delta_log_weight")
    assert [move > 0 for move in moves] == [True, False, True, False]
    assert len(history(some, "indicator/vowels")) == 2
    paths = []
    for every in (1, 2):
        path = Trajectory()
        held = {**common, "weight_step": 0.0, "weight_floor": 0.0, "weight_every": every, "callbacks": [path]}
        job(ParetoGRPOTrainer, ParetoGRPOConfig, folder=f"held-{every}", **held).train()
        paths.append(torch.stack(path.seen))
    assert torch.allclose(*paths, atol=2e-5)


def test_an_observation_stands_for_the_steps_without_one(job):
    options = job(ParetoGRPOTrainer, ParetoGRPOConfig, weight_every=3, weight_warmup=4).rule.options
    assert (options.rate, options.clip, options.eta) == pytest.approx((0.3, 0.6, 3.0))
    assert options.floor == pytest.approx(1 - 0.95**3) and options.warmup == 2


def test_an_unobserved_step_takes_one_backward_pass(job, monkeypatch):
    passes = []
    whole = torch.autograd.grad

    class Fresh(TrainerCallback):
        def on_step_begin(self, *_, **__):
            passes.append(0)

    def counted(outputs, inputs, *rest, **options):
        if len(inputs) > 2:  # the trained parameters, not the outputs of the forward pass
            passes[-1] += 1
        return whole(outputs, inputs, *rest, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    job(ParetoGRPOTrainer, ParetoGRPOConfig, weight_every=2, max_steps=4, callbacks=[Fresh()]).train()
    assert passes[1] == passes[3] == 1 and min(passes[0], passes[2]) > 2  # two halves of the prompts, two rewards


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
        ({"preference": [0.5, 0.3, 0.2]}, "do not match"),
        ({"token_weighting": "pepo", "pepo_as_released": True}, "per-reward gradients"),
        ({"weight_average": 1.0}, "weight_average"),
        ({"directional_step": 0.0}, "step is not positive"),
        ({"weighting": "popo-light", "preference": [2.0, 1.0]}, "does not support a preference"),
        ({"weighting": "mgda", "aggregation": "trl"}, "needs them before"),
        ({"reward_weights": [0.0, 0.0]}, "reward_weights"),
        ({"weight_every": 0}, "is not positive"),
        ({"weight_every": 2, "weight_floor": 1.5}, "out of range"),
        ({"weight_every": 2, "weight_warmup": -1}, "out of range"),
        ({"weighting": "mgda", "weight_every": 2}, "some steps only"),
        ({"weighting": "popo-light", "weight_every": 2}, "some steps only"),
    ]
    for options, message in cases:
        with pytest.raises(TaijiError, match=message):
            job(ParetoGRPOTrainer, ParetoGRPOConfig, **options)
    with pytest.raises(TaijiError, match="plain GRPOConfig"):
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


def test_a_loss_that_does_not_read_the_advantages_is_named(job, monkeypatch):
    stock = GRPOTrainer._compute_loss
    monkeypatch.setattr(GRPOTrainer, "_compute_loss", lambda self, model, inputs: stock(self, model, {**inputs}))
    with pytest.raises(TaijiError, match=r"hooks that have changed[\s\S]*advantages"):
        job(ParetoGRPOTrainer, ParetoGRPOConfig, max_steps=1).train()


def test_weights_that_are_read_before_they_move_are_named(job, monkeypatch):
    stock = GRPOTrainer._generate_and_score_completions

    def early(self, inputs):
        weights, apply = self.reward_weights, self._apply_weights
        self._apply_weights = lambda: None  # the batch gets the weights of before
        batch = stock(self, inputs)
        self._apply_weights = apply
        assert self.reward_weights is weights
        apply()
        return batch

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", early)
    with pytest.raises(TaijiError, match=r"hooks that have changed[\s\S]*mean reward"):
        job(ParetoGRPOTrainer, ParetoGRPOConfig, weighting="popo-light", max_steps=2).train()


def test_trackers_see_weights_and_indicators_step_by_step(job):
    """Trackers are callbacks: what they log is what ``on_log`` gets, numbers only, before the next step."""

    class Tracker(TrainerCallback):
        def __init__(self):
            self.seen = {}

        def on_log(self, args, state, control, logs=None, **keywords):
            if "loss" in logs:  # the last line is a summary of the run
                self.seen[state.global_step] = {k: value for k, value in logs.items() if isinstance(value, int | float)}

    tracker = Tracker()
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, callbacks=[tracker])
    trainer.train()
    for step in (1, 2, 3):
        line = tracker.seen[step]
        assert {
            "weight/vowels",
            "weight/spaces",
            "indicator/vowels",
            "indicator/spaces",
            "max_delta_log_weight",
        } <= line.keys()
        assert line["weight/vowels"] + line["weight/spaces"] == pytest.approx(1)
    assert history(trainer, "weight/vowels") == [tracker.seen[step]["weight/vowels"] for step in (1, 2, 3)]


def two_turns(prompts, trainer):
    """Completions of which every third token is an environment's."""
    found = fixed_rollouts(prompts, trainer)
    found["env_mask"] = [[int(place % 3 != 1) for place in range(len(ids))] for ids in found["completion_ids"]]
    return found


def test_turns_of_an_environment_are_weighed_and_not_trained_on(job):
    """The environment's tokens, masked in ``rollout_func``, take no part in any reward's gradient: frozen weights make
    TRL's steps."""
    common = {"optim": "sgd", "learning_rate": 0.5, "max_steps": 2, "share_prefixes": False}
    runs = []
    for rollouts, weighting in ((two_turns, "fixed"), (two_turns, "popo"), (fixed_rollouts, "popo")):
        frozen = {} if weighting == "fixed" else {"aggregation": "trl", "weight_step": 0.0, "weight_floor": 0.0}
        trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, weighting=weighting, **frozen, **common)
        trainer.rollout_func = rollouts
        trainer.train()
        runs.append(parameters(trainer))
    stock, masked, whole = runs
    assert torch.allclose(stock, masked, atol=1e-6) and (masked - whole).abs().max() > 1e-4


@pytest.mark.parametrize("share", [True, False], ids=["shared", "padded"])
@pytest.mark.parametrize("estimator", ["cross-batch", "directional"])
def test_no_rewards_derivative_reaches_an_environments_tokens(job, estimator, share, monkeypatch):
    """Neither through the advantage nor through the KL term; what the weights are made from is masked as the loss
    is."""
    seen, add, loss = [], AccumulationStep.add, ParetoGRPOTrainer._loss_per_reward

    def kept(step, recording, rewards, *rest):
        seen.append([reward[0] for reward in rewards])
        return add(step, recording, rewards, *rest)

    def masks(trainer, model, inputs):
        seen.append((inputs["completion_mask"] * inputs["tool_mask"]).bool())
        return loss(trainer, model, inputs)

    monkeypatch.setattr(AccumulationStep, "add", kept)
    monkeypatch.setattr(ParetoGRPOTrainer, "_loss_per_reward", masks)
    options = {"gram_estimator": estimator, "share_prefixes": share, "beta": 0.1, "max_steps": 2, **LORA}
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, **options)
    trainer.rollout_func = two_turns
    trainer.train()
    assert len(seen) == 4 and trainer.shares(trainer.model) == share
    for mask, derivatives in zip(seen[::2], seen[1::2]):
        assert not mask.all() and len(derivatives) == 2
        assert all((value[~mask] == 0).all() and (value[mask] != 0).any() for value in derivatives)


def test_turns_share_their_prompts(job):
    """The same run with and without shared prefixes, weights that adapt included."""
    runs = []
    for share in (True, False):
        options = {"share_prefixes": share, "weight_step": 10.0, "optim": "sgd", "learning_rate": 0.5}
        trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, **options)
        trainer.rollout_func = two_turns
        trainer.train()
        runs.append((parameters(trainer), trainer.rule.weights))
    (shared, weights), (padded, others) = runs
    assert torch.allclose(shared, padded, atol=1e-5) and np.allclose(weights, others, atol=1e-4)
    assert np.ptp(weights) > 1e-2


class Shop:
    """An environment that is asked for a stock once, and rewards having been asked."""

    def reset(self, **_: str) -> None:
        self.asked: list[str] = []

    def stock(self, item: str) -> str:
        """
        Tell how many of an item there are.

        Args:
            item: Name of the item.
        """
        self.asked.append(item)
        return "7 left"

    def get_reward(self) -> float:
        return float(len(self.asked))


def answer_vowels(completions, **_):
    return vowels([messages[-1]["content"] for messages in completions])


class Asking(ParetoGRPOTrainer):
    """The first turn of every second rollout calls the tool; what follows is the model's own."""

    turns: list[int]

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        self.turns.append(len(prompt_ids))
        found = super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations, has_tool_images)
        if len(self.turns) % 2 == 0:
            return found
        call = '<tool_call>\n{"name": "stock", "arguments": {"item": "milk"}}\n</tool_call><|im_end|>'
        ids = self.processing_class(call)["input_ids"]
        return [list(ids) if row % 2 else own for row, own in enumerate(found[0])], found[1]


def test_environments_add_their_reward_and_their_turns_are_not_trained_on(job, monkeypatch):
    """TRL's environments: a tool call, its result and a further turn of the model, weighed with the environment's own
    reward."""
    tokenizer, masks, loss = tiny_causal_lm()[1], [], ParetoGRPOTrainer._loss_per_reward
    tokenizer.chat_template = qwen3_chat_template
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")

    def kept(trainer, model, inputs):
        masks.append((inputs["completion_ids"], inputs["completion_mask"], inputs["tool_mask"]))
        return loss(trainer, model, inputs)

    monkeypatch.setattr(ParetoGRPOTrainer, "_loss_per_reward", kept)
    trainer = job(
        Asking,
        ParetoGRPOConfig,
        rewards=[answer_vowels],
        prompts=[[{"role": "user", "content": text}] for text in ("milk", "rice", "beans", "tea")],
        environment_factory=Shop,
        processing_class=tokenizer,
        max_completion_length=200,
        generation_kwargs={"max_new_tokens": 6},
        max_steps=2,
    )
    trainer.turns = []
    trainer.train()
    assert trainer.turns == [8, 4, 8, 4] and trainer.reward_func_names == ["answer_vowels", "Shop"]
    assert history(trainer, "rewards/Shop/mean") == [0.5] * 2 and history(trainer, "tools/call_frequency") == [0.5] * 2
    assert {"weight/Shop", "indicator/Shop", "front/mean/Shop"} <= trainer.state.log_history[0].keys()
    assert torch.isfinite(parameters(trainer)).all() and trainer.rule.count == 2
    for ids, mask, own in masks:
        hidden = [tokenizer.decode(row[(kept * (1 - mine)).bool()]) for row, kept, mine in zip(ids, mask, own)]
        assert sorted("7 left" in text for text in hidden) == [False] * 4 + [True] * 4
        assert sorted(text != "" for text in hidden) == [False] * 4 + [True] * 4


@pytest.mark.slow
@pytest.mark.parametrize("group", [2, 4, 8])
def test_bf16_updates_are_as_exact_as_stock_ones_over_fifty_steps(job, group):
    errors = bf16_errors(job, group, 50)
    print({name: (np.mean(found).round(4), max(found)) for name, found in errors.items()})
    assert max(errors["popo"]) <= 2 * max(errors["stock"])


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

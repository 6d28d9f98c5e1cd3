"""Dynamic sampling: who is replaced and by what, exactly; the same on any number of processes; bounded, counted, and
safe to resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.alignment.jobs import PROMPTS, parameters, spaces, vowels
from tests.alignment.rollouts import fixed_rollouts
from trl import GRPOTrainer

from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer
from taiji.alignment.advantages import common, groups_with_signal
from taiji.alignment.dynamic_sampling import Rollout, evenly, fill, generation_of, rollouts_of
from taiji.core.errors import ConfigError, ResourceError

DEAD = {prompt for prompt in PROMPTS if " " not in prompt}
"""Prompts for which :func:`half` is constant."""


def half(prompts, completions, **_):
    return [0.5 if prompt in DEAD else value for prompt, value in zip(prompts, vowels(completions))]


def constant(completions, **_):
    return [0.3] * len(completions)


def row(name: str) -> Rollout:
    return Rollout({"prompt": name}, [1], [2], None, name, None, {})


def signal(rewards: torch.Tensor) -> torch.Tensor:
    return rewards.view(-1, 2).std(1) > 0


def filled(rank: int, processes: int, rounds: int):
    """Groups a, b, c, d of two; a, c and d without signal; the first draw brings one with signal, the second two."""
    names, rewards = list("aabbccdd"), torch.tensor([[0.0], [0], [1], [2], [5], [5], [7], [7]])
    draws = [("eeffgg", [3, 3, 3, 4, 8, 8]), ("hhii", [0, 1, 0, 2])]
    asked: list[int] = []

    def draw(groups):
        asked.append(groups)
        names, values = draws[len(asked) - 1]
        return [row(f"{name}{n % 2}") for n, name in enumerate(names)], torch.tensor(values).float()[:, None]

    size = 8 // processes
    rows = [row(f"{name}{n % 2}") for n, name in enumerate(names)][rank * size : (rank + 1) * size]
    found = fill(rows, rewards, group=2, rank=rank, rounds=rounds, signal=signal, draw=draw)
    assert rewards[0] == 0 and rewards[7] == 7, "what was given stays as it was"
    return found, asked


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_groups_without_signal_give_way_in_order(processes):
    for rounds, names, rewards, left, extra, questions in (
        (0, "a0 a1 b0 b1 c0 c1 d0 d1", [0, 0, 1, 2, 5, 5, 7, 7], 0.75, 0, []),
        (1, "f0 f1 b0 b1 c0 c1 d0 d1", [3, 4, 1, 2, 5, 5, 7, 7], 0.5, 6, [3]),
        (9, "f0 f1 b0 b1 h0 h1 i0 i1", [3, 4, 1, 2, 0, 1, 0, 2], 0.0, 10, [3, 2]),
    ):
        found = [filled(rank, processes, rounds) for rank in range(processes)]
        kept = [rollout.completion for drawn, _ in found for rollout in drawn.rows]
        assert kept == names.split()
        for drawn, asked in found:
            assert drawn.rewards[:, 0].tolist() == rewards and asked == questions
            assert (drawn.dead, drawn.left, drawn.extra) == (0.75, left, extra)


def test_groups_divide_among_processes():
    for size in (1, 2, 3, 4, 6):
        for processes in (1, 2, 3, 4):
            for groups in (1, 2, 5):
                found = evenly(groups, size, processes)
                assert found >= groups and found * size % processes == 0
                assert all(n * size % processes for n in range(groups, found)), "no more than needed"


def test_a_generation_taken_apart_is_the_same_put_together():
    examples = [{"prompt": "a"}, {"prompt": "b"}]
    generation = ([[1], [2, 3]], [[4], [5]], [[1], [0]], ["x", "y"], [[0.1], [0.2]], {"turns": [1, 2]}, None, [])
    rows = rollouts_of(examples, generation)
    assert generation_of(rows) == generation
    assert rows[1].example == {"prompt": "b", "turns": 2}, "as reward functions get it"
    plain = ([[1], [2, 3]], [[4], [5]], None, ["x", "y"], None, {}, None, [])
    assert generation_of(rollouts_of(examples, plain)) == plain
    with pytest.raises(ResourceError, match=r"hooks that have changed[\s\S]*7 values"):
        rollouts_of(examples, plain[:7])


def seen(trainer, key):
    return [line[key] for line in trainer.state.log_history if key in line]


def watched(job, **options):
    """A trainer that keeps every generation batch with its prompts' groups, and counts what was drawn."""
    batches, drawn = [], []

    class Watched(ParetoGRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            rewards = torch.tensor([list(values) for values in self._logs["rewards"].values()]).T
            batches.append((list(self._logs["prompt"]), rewards, batch))
            return batch

        def _generate_single_turn(self, prompt_ids, *rest, **keywords):
            drawn.append(len(prompt_ids))
            return super()._generate_single_turn(prompt_ids, *rest, **keywords)

    trainer = job(Watched, ParetoGRPOConfig, **{"per_device_train_batch_size": 16, **options})
    return trainer, batches, drawn


@pytest.mark.parametrize("weighting", ["fixed", "popo", "popo-covariance"])
def test_every_group_has_signal_where_some_prompts_have_none(job, weighting):
    trainer, batches, drawn = watched(job, rewards=[half], weighting=weighting, dynamic_sampling=8)
    trainer.train()
    redrawn, extra = seen(trainer, "dynamic_sampling/redrawn"), seen(trainer, "dynamic_sampling/extra_rollouts")
    assert len(batches) == 3 and seen(trainer, "dynamic_sampling/left") == [0.0] * 3
    assert max(redrawn) > 0 and sum(drawn) == 3 * 16 + sum(extra)
    for prompts, rewards, batch in batches:
        assert len(prompts) == len(batch["advantages"]) == 16 and not DEAD & set(prompts)
        assert (rewards.view(4, 4).std(1) > 0).all() and (batch["advantages"].view(4, 4).abs().sum(1) > 0).all()
        assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    assert seen(trainer, "frac_reward_zero_std") == [0.0] * 3


def test_what_the_tensors_hold_is_what_was_scored(job):
    """Prompts, completions, rewards and advantages of a replaced row belong together."""
    trainer, batches, _ = watched(
        job, rewards=[half, spaces], scale_rewards="none", weighting="fixed", dynamic_sampling=4
    )
    trainer.train()
    tokenizer = trainer.processing_class
    for prompts, rewards, batch in batches:
        ids = [ids[mask.bool()].tolist() for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"])]
        assert ids == [tokenizer(prompt)["input_ids"] for prompt in prompts]
        texts = tokenizer.batch_decode(
            [ids[mask.bool()] for ids, mask in zip(batch["completion_ids"], batch["completion_mask"])],
            skip_special_tokens=True,
        )
        wanted = torch.tensor([half(prompts, texts), spaces(texts)]).T
        assert torch.allclose(rewards, wanted)
        total = wanted.sum(1).view(-1, 4)
        assert torch.allclose(batch["advantages"], (total - total.mean(1, keepdim=True)).flatten(), atol=1e-6)


def test_rounds_are_bounded_and_what_stays_is_counted(job):
    trainer, _, drawn = watched(job, rewards=[constant, constant], dynamic_sampling=2, max_steps=2)
    before = parameters(trainer).clone()
    trainer.train()
    assert torch.equal(before, parameters(trainer)) and drawn == [16] * 6
    assert seen(trainer, "dynamic_sampling/redrawn") == seen(trainer, "dynamic_sampling/left") == [1.0] * 2
    assert seen(trainer, "dynamic_sampling/extra_rollouts") == [32.0] * 2


def against(completions, **_):
    return [-value for value in vowels(completions)]


def test_a_constant_weighted_sum_is_no_signal_only_where_nothing_else_is_looked_at(job):
    """Rewards that cancel at equal weights still tell a rule which of them to weigh."""
    for weighting, alive in (("fixed", False), ("gdpo", False), ("popo", True), ("popo-covariance", True)):
        trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, rewards=[vowels, against], weighting=weighting)
        values = torch.tensor([[0.25, -0.25], [0.75, -0.75], [0.5, -0.5], [0.25, -0.25]] + [[0.3, -0.3]] * 4)
        assert trainer._groups_with_signal(values).tolist() == [alive, False], weighting
    watching = job(ParetoGRPOTrainer, ParetoGRPOConfig, rewards=[vowels, spaces], reward_weights=[1.0, 0.0])
    one = torch.tensor([[0.3, 0.1], [0.3, 0.2], [0.3, 0.1], [0.3, 0.5]])
    assert watching._groups_with_signal(one).tolist() == [False], "a reward that is only logged moves nothing"
    nothing = torch.full((4, 2), torch.nan)
    assert trainer._groups_with_signal(nothing).tolist() == [False]


def test_reward_rules_and_the_front_see_the_prompts_as_they_came(job):
    options = {"rewards": [half, constant], "weighting": "popo-light", "max_steps": 1}
    plain = job(ParetoGRPOTrainer, ParetoGRPOConfig, **options)
    plain.train()
    again = job(ParetoGRPOTrainer, ParetoGRPOConfig, dynamic_sampling=3, **options)
    again.train()
    assert seen(again, "dynamic_sampling/extra_rollouts")[0] > 0
    assert plain.rule.state() == again.rule.state()
    for name in ("half", "constant"):
        assert seen(plain, f"front/mean/{name}") == seen(again, f"front/mean/{name}")
        assert seen(again, f"front/mean/{name}") == pytest.approx(seen(plain, f"rewards/{name}/mean"))
    assert seen(again, "rewards/half/mean") != seen(plain, "rewards/half/mean"), (
        "TRL's are of the batch that is trained on"
    )


@pytest.mark.parametrize(
    "options",
    [{"per_device_train_batch_size": 16}, {"per_device_train_batch_size": 4, "steps_per_generation": 4}],
    ids=["whole", "mid-generation"],
)
def test_the_same_seed_gives_the_same_run_and_a_resumed_one_too(job, options):
    common = {"rewards": [half], "dynamic_sampling": 3, "gram_estimator": "same-batch", "max_steps": 4, **options}
    runs = []
    for name in ("straight", "twin"):
        runs.append(
            job(ParetoGRPOTrainer, ParetoGRPOConfig, save_strategy="steps", save_steps=2, folder=name, **common)
        )
        runs[-1].train()
    runs.append(job(ParetoGRPOTrainer, ParetoGRPOConfig, folder="again", **common))
    runs[-1].train(resume_from_checkpoint=str(Path(runs[0].args.output_dir) / "checkpoint-2"))
    straight = runs[0]
    assert max(seen(straight, "dynamic_sampling/extra_rollouts")) > 0
    for other in runs[1:]:
        assert torch.equal(parameters(straight), parameters(other))
        for key in ("loss", "dynamic_sampling/extra_rollouts", "num_tokens"):
            assert seen(straight, key) == seen(other, key)


def test_what_reward_functions_log_keeps_to_its_row(job):
    def logging(prompts, completions, log_extra, log_metric, **_):
        log_extra("copy", list(completions))
        log_metric("scored", float(len(completions)))
        return half(prompts, completions)

    trainer, _, _ = watched(job, rewards=[logging], weighting="fixed", dynamic_sampling=3, max_steps=1)
    trainer.train()
    assert seen(trainer, "dynamic_sampling/extra_rollouts")[0] > 0
    assert list(trainer._logs["extra"]["copy"]) == list(trainer._logs["completion"])
    assert len(trainer._logs["prompt"]) == 16 and "scored" in trainer.state.log_history[0]


def test_turns_of_a_rollout_func_go_with_their_row(job):
    def two_turns(prompts, trainer):
        found = fixed_rollouts(prompts, trainer)
        found["env_mask"] = [[int(place % 3 != 1) for place in range(len(ids))] for ids in found["completion_ids"]]
        found["asked"] = [f"{prompt}?" for prompt in prompts]
        return found

    def follows(prompts, completions, asked, **_):
        assert asked == [f"{prompt}?" for prompt in prompts]
        return half(prompts, completions)

    trainer, batches, _ = watched(job, rewards=[follows], dynamic_sampling=6, gram_estimator="same-batch")
    trainer.rollout_func = two_turns
    trainer.train()
    assert max(seen(trainer, "dynamic_sampling/extra_rollouts")) > 0
    for prompts, _, batch in batches:
        assert not DEAD & set(prompts)
        for prompt, ids, mask, kept in zip(
            prompts, batch["completion_ids"], batch["completion_mask"], batch["tool_mask"]
        ):
            wanted = [two_turns([prompt] * 4, trainer)["completion_ids"][n] for n in range(4)]
            assert ids[mask.bool()].tolist() in wanted
            assert [n for n in range(int(mask.sum())) if not kept[n]] == list(range(1, int(mask.sum()), 3))


def test_without_it_trl_draws_once(job, monkeypatch):
    calls = []
    stock = GRPOTrainer._generate
    monkeypatch.setattr(
        GRPOTrainer, "_generate", lambda self, prompts: calls.append(len(prompts)) or stock(self, prompts)
    )
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, rewards=[half], gram_estimator="same-batch", max_steps=2)
    trainer.train()
    assert calls == [8, 8] and not [key for key in trainer.state.log_history[0] if key.startswith("dynamic")]
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, dynamic_sampling=2, max_steps=1, per_device_eval_batch_size=8)
    trainer.train()
    calls.clear()
    trainer.evaluate(trainer.train_dataset.select(range(2)))
    assert calls and trainer.step_state.contents == []


def test_what_cannot_be_drawn_again_is_named(job):
    with pytest.raises(ConfigError, match="number of rounds is negative"):
        job(ParetoGRPOTrainer, ParetoGRPOConfig, dynamic_sampling=-1)
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, dynamic_sampling=1)
    trainer.tools = [len]
    with pytest.raises(ConfigError, match="tools or an environment_factory"):
        trainer._check_dynamic_sampling()
    trainer.tools, trainer.train_dataset = [], trainer.train_dataset.to_iterable_dataset()
    with pytest.raises(ConfigError, match="IterableDataset"):
        trainer._check_dynamic_sampling()
    trainer.model.train()
    with pytest.raises(ConfigError, match="images"):
        trainer._generate_and_score_completions([{"prompt": "milk", "image": None}])


def test_other_prompts_multiply_every_rewards_expected_gradient_by_one_number():
    """All outcomes of a draw and of its redraw, for two prompts that differ in their chance of signal: factor 1 + (1 -
    P)."""
    laws = [np.array([0.1, 0.2, 0.7]), np.array([0.9, 0.06, 0.04])]
    values = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)  # two rewards of three answers
    outcomes = []  # chance, rewards of two rollouts, their gradient by (reward, prompt, answer) if they are kept
    for prompt, law in enumerate(laws):
        for first, second in np.ndindex(3, 3):
            rewards = values[[first, second]]
            gradient = np.zeros((2, 2, 3))
            gradient[:, prompt] = common(rewards, 2, scale="none").T.numpy() @ (np.eye(3)[[first, second]] - law)
            outcomes.append((law[first] * law[second] / 2, rewards, gradient))
    alive = sum(chance for chance, rewards, _ in outcomes if groups_with_signal(common(rewards, 2), 2))
    plain = sum(chance * gradient for chance, _, gradient in outcomes)
    resampled = np.zeros_like(plain)
    for chance, rewards, gradient in outcomes:
        for again, others, other in outcomes:
            drawn = fill(
                [row("first")] * 2,
                rewards,
                group=2,
                rank=0,
                rounds=1,
                signal=lambda rewards: groups_with_signal(common(rewards, 2), 2),
                draw=lambda _, others=others: ([row("other")] * 2, others),
            )
            resampled += chance * again * (gradient if drawn.rows[0].completion == "first" else other)
    np.testing.assert_allclose(resampled, plain * (2 - alive), atol=1e-15)
    assert 0.3 < alive < 0.7 and np.abs(plain).min(axis=(0, 2)).max() > 0

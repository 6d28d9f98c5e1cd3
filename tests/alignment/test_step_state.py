"""Carried state: made at the generation, used up at the update, empty between steps, and a clear error when a piece is
missing."""

from __future__ import annotations

import pytest
import torch
from tests.alignment.jobs import build_job, length, parameters, spaces, vowels
from transformers import TrainerCallback
from trl import GRPOTrainer
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer
from taiji.alignment.accumulation import AccumulationStep
from taiji.alignment.recording import Forward, Recording, numerical_rank
from taiji.alignment.step_state import RewardColumns, StepState
from taiji.core.errors import ArtifactError, InputError, ResourceError

ACCUMULATED = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


class Watch(TrainerCallback):
    """Contents of the state at each of TRL's events."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[str]]] = []
        self.stop_at: str | None = None
        self.trainer: ParetoGRPOTrainer | None = None

    def note(self, event: str) -> None:
        assert self.trainer is not None
        self.seen.append((event, self.trainer.step_state.contents))
        if event == self.stop_at:
            raise KeyboardInterrupt

    def on_train_begin(self, args, state, control, **_):
        self.note("begin")

    def on_substep_end(self, args, state, control, **_):
        self.note("micro-batch")

    def on_step_end(self, args, state, control, **_):
        self.note("step")


def watched(job, **options):
    watch = Watch()
    watch.trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, callbacks=[watch], **options)
    return watch.trainer, watch


def accumulation() -> AccumulationStep:
    return AccumulationStep([torch.zeros(2, requires_grad=True)], 2, "same-batch", False, [1.0, 1.0], [0.5, 0.5])


def test_pieces_are_taken_once():
    state, rewards, step = StepState(), torch.ones(4, 2), accumulation()
    assert state.contents == []
    state.check_empty()
    state.put_rewards(rewards)
    assert state.contents == ["rewards"]
    with pytest.raises(ResourceError, match="a second batch of rewards"):
        state.put_rewards(rewards)
    assert state.take_rewards() is rewards and state.contents == []
    with pytest.raises(ResourceError, match="rewards from _calculate_rewards"):
        state.take_rewards()
    assert state.accumulation(lambda: step) is step
    assert state.accumulation(accumulation) is step, "one step under way is gone on with"
    with pytest.raises(ResourceError, match="found: accumulation"):
        state.check_empty()
    assert state.take_accumulation() is step and state.contents == []
    with pytest.raises(ResourceError, match="an accumulation step in progress"):
        state.take_accumulation()


def test_columns_survive_trls_shuffling_and_splitting():
    columns = RewardColumns(
        torch.arange(8.0).view(4, 2), torch.tensor([0, 0, 1, 1]), torch.tensor(True), torch.tensor([[True, False]] * 4)
    )
    batch = {"prompt_ids": torch.arange(4)[:, None]}
    columns.put(batch)
    for part in split_tensor_dict(shuffle_sequence_dict(batch), 2):
        found, rows = RewardColumns.of(part), part["prompt_ids"][:, 0]
        assert torch.equal(found.advantages, columns.advantages[rows])
        assert torch.equal(found.prompt, columns.prompt[rows])
        assert bool(found.signal) and torch.equal(found.applies, columns.applies[rows])


@pytest.mark.parametrize("name", ["reward_advantages", "prompt_group", "reward_signal", "reward_applies"])
def test_a_batch_without_a_column_says_which(name):
    batch = {}
    RewardColumns(torch.ones(2, 2), torch.zeros(2), torch.tensor(True), torch.ones(2, 2, dtype=torch.bool)).put(batch)
    del batch[name]
    with pytest.raises(InputError, match=f"without {name}"):
        RewardColumns.of(batch)


@pytest.mark.parametrize("weighting", ["popo", "popo-light", "fixed"])
def test_the_state_is_empty_between_steps(job, weighting):
    trainer, watch = watched(job, weighting=weighting, max_steps=2, **ACCUMULATED)
    trainer.train()
    under_way = ["accumulation"] if weighting == "popo" else []
    step = [("micro-batch", under_way), ("step", [])]
    assert watch.seen == [("begin", []), *step, *step]
    held = [value for value in vars(trainer).values() if isinstance(value, Recording | AccumulationStep)]
    assert held == [] and trainer.step_state.contents == []


def test_rewards_wait_for_the_generation_that_made_them_only(job):
    trainer, seen = job(ParetoGRPOTrainer, ParetoGRPOConfig, max_steps=1), []

    class Noting(StepState):
        def put_rewards(self, rewards):
            super().put_rewards(rewards)
            seen.append(("put", self.contents))

        def take_rewards(self):
            rewards = super().take_rewards()
            seen.append(("taken", self.contents))
            return rewards

    trainer.step_state = Noting()
    trainer.model.train()
    trainer._generate_and_score_completions([{"prompt": "milk"}] * 4 + [{"prompt": "rice"}] * 4)
    assert seen == [("put", ["rewards"]), ("taken", [])]
    trainer.model.eval()
    trainer._generate_and_score_completions([{"prompt": "milk"}] * 4)
    assert len(seen) == 2, "evaluation leaves nothing behind"


def test_a_run_after_an_interruption_starts_empty(job):
    trainer, watch = watched(job, **ACCUMULATED)
    watch.stop_at = "micro-batch"
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.step_state.contents == ["accumulation"]
    watch.seen, watch.stop_at = [], "begin"
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert watch.seen == [("begin", [])]


def test_a_reward_hook_that_trl_passes_by_is_named(job):
    class PassedBy(ParetoGRPOTrainer):
        def _calculate_rewards(self, *arguments):
            return GRPOTrainer._calculate_rewards(self, *arguments)

    with pytest.raises(ResourceError, match=r"an unexpected order[\s\S]*rewards from _calculate_rewards"):
        job(PassedBy, ParetoGRPOConfig).train()


def test_a_loss_that_does_more_with_the_model_than_hand_it_on_is_named(job, monkeypatch):
    def unwrapping(self, model, inputs):
        return self._get_per_token_logps_and_entropies(model.module, inputs["prompt_ids"])

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", unwrapping)
    with pytest.raises(ResourceError, match=r"uses the model directly[\s\S]*model\.module"):
        job(ParetoGRPOTrainer, ParetoGRPOConfig).train()
    assert not hasattr(Recording(torch.nn.Identity()), "module"), "who asks first is told no"


def test_a_loss_on_a_foreign_batch_says_what_is_missing(job):
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig)
    trainer.model.train()
    with pytest.raises(InputError, match="reward_advantages, prompt_group, reward_signal"):
        trainer._compute_loss(trainer.model, {"advantages": torch.zeros(8)})


def test_no_checkpoint_is_written_in_the_middle_of_a_step(job, tmp_path):
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig)
    trainer.step_state.accumulation(accumulation)
    with pytest.raises(ResourceError, match="when a step ends"):
        trainer._save_checkpoint(trainer.model, None)
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_a_generation_without_signal_has_none_after_a_resume_either(job):
    """Equal rewards move no weights, also when the generation is half used at the checkpoint."""

    def constant(completions, **_):
        return [0.3] * len(completions)

    options = {
        "rewards": [constant, constant],
        "reward_weights": [0.7, 0.3],
        "per_device_train_batch_size": 4,
        "steps_per_generation": 4,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    straight = job(ParetoGRPOTrainer, ParetoGRPOConfig, folder="straight", **options)
    straight.train()
    again = job(ParetoGRPOTrainer, ParetoGRPOConfig, folder="again", **options)
    again.train(resume_from_checkpoint=f"{straight.args.output_dir}/checkpoint-2")
    assert straight.rule.state() == again.rule.state()
    assert again.rule.steps == 0


def test_a_checkpoint_with_another_number_of_rewards_is_rejected(job):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    two = job(ParetoGRPOTrainer, ParetoGRPOConfig, folder="two", **options)
    two.train()
    three = job(ParetoGRPOTrainer, ParetoGRPOConfig, rewards=[vowels, spaces, length], folder="three", max_steps=2)
    with pytest.raises(ArtifactError, match="a different number of rewards"):
        three.train(resume_from_checkpoint=f"{two.args.output_dir}/checkpoint-1")


@pytest.mark.parametrize("rewards", [[vowels, spaces], [vowels, spaces, length]], ids=["2", "3"])
def test_one_forward_serves_the_losses_of_all_rewards(job, rewards, monkeypatch):
    calls, stock = [], GRPOTrainer._get_per_token_logps_and_entropies

    def counted(self, model, *arguments, **keywords):
        calls.append(model)
        return stock(self, model, *arguments, **keywords)

    trainer = job(
        ParetoGRPOTrainer,
        ParetoGRPOConfig,
        rewards=rewards,
        max_steps=2,
        gram_estimator="same-batch",
        share_prefixes=False,
    )
    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", counted)
    trainer.train()
    assert len(calls) == 2 and not any(isinstance(model, Recording) for model in calls)


def forward(scale: torch.Tensor) -> Forward:
    def function(model, ids, mask, keep, *, padded, shift=None, flat=None):
        logps = scale * ids[:, -keep:].double()
        return (logps if shift is None else logps + shift[:, None]), None, None

    ids = torch.arange(12).view(4, 3)
    return Forward(function, torch.nn.Identity(), ids, torch.ones_like(ids), 2, {"shift": torch.arange(4.0), "flat": 1})


def test_a_recording_replays_leaves_and_pulls_gradients_back():
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    recording = Recording(torch.nn.Identity())
    for part in ("recorded", "output_gradient"):
        with pytest.raises(ResourceError, match="did not run"):
            recording.recorded if part == "recorded" else recording.output_gradient(torch.tensor(0.0))
    asked = forward(scale)
    leaves = recording.replayed(asked)
    assert recording.replayed(asked) is leaves and leaves[0].is_leaf and leaves[1:] == (None, None)
    gradient = recording.output_gradient((leaves[0] ** 2).sum())
    assert torch.equal(gradient[0], 2 * leaves[0])
    (found,) = next(recording.vector_jacobian_products([gradient], 0, 1, [scale], keep=False))
    assert found == pytest.approx(float((2 * leaves[0].detach() * asked.input_ids[:, -2:]).sum()))
    with pytest.raises(ResourceError, match="each token's similarity to the evidence"):
        recording.token_statistics()


def test_halves_are_recorded_apart_and_joined_in_row_order():
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    asked = forward(scale)
    asked.options["shift"] = None
    recording = Recording(torch.nn.Identity(), halves=torch.tensor([1, 0, 1, 0]))
    logps = recording.replayed(asked)[0]
    assert [part.rows.tolist() for part in recording.recorded.parts] == [[1, 3], [0, 2]]
    assert torch.equal(logps, scale * asked.input_ids[:, -2:])
    assert recording.in_half(1).tolist() == [True, False, True, False]
    gradient = recording.output_gradient(logps.sum())
    for half in (0, 1):
        (found,) = next(recording.vector_jacobian_products([gradient], half, 2, [scale], keep=False))
        assert found == asked.input_ids[recording.halves == half, -2:].sum()


def test_a_forward_runs_again_on_some_rows_with_the_parameters_of_the_day():
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    asked, rows = forward(scale), torch.tensor([3, 1])
    assert torch.equal(asked.logps_now(rows), 2.0 * asked.input_ids[rows, -2:] + torch.tensor([[3.0], [1.0]]))
    with torch.no_grad():
        scale.fill_(5.0)
    now = asked.logps_now(rows)
    assert torch.equal(now, 5.0 * asked.input_ids[rows, -2:] + torch.tensor([[3.0], [1.0]])) and not now.requires_grad


def test_parameters_move_with_the_recorded_gradients_only(tmp_path):
    """The loss handed back to the caller reaches nothing: its own backward adds no gradient."""
    trainer = build_job(tmp_path, ParetoGRPOTrainer, ParetoGRPOConfig)
    trainer.model.train()
    batch = trainer._generate_and_score_completions([{"prompt": "milk"}] * 4 + [{"prompt": "rice"}] * 4)
    trainer.current_gradient_accumulation_steps = 1
    before = parameters(trainer).clone()
    loss = trainer._compute_loss(trainer.model, batch)
    gradients = [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]
    loss.backward()
    after = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    assert gradients and all(torch.equal(a, b) for a, b in zip(gradients, after))
    assert torch.equal(before, parameters(trainer)) and trainer.step_state.contents == []


def test_gradients_that_differ_by_more_than_rounding_are_independent():
    """Two unit vectors at an angle a have the singular values sqrt(1 ± cos a)."""
    for dtype, near, apart in (
        (torch.float32, 1e-7, 1e-5),
        (torch.bfloat16, 0.01, 0.07),
        (torch.float64, 1e-16, 1e-12),
    ):
        assert numerical_rank(torch.tensor([1.41, near], dtype=torch.float64), dtype) == 1
        assert numerical_rank(torch.tensor([1.41, apart], dtype=torch.float64), dtype) == 2
    assert numerical_rank(torch.zeros(3), torch.float32) == 1

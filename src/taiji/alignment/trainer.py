"""GRPO with adaptive reward weights: TRL's trainer with a few methods overridden and none copied.

``docs/explanation/one-rollout.md`` follows a rollout from the prompt to the parameter update. In short:

- ``_calculate_rewards`` passes the rewards to a reward rule (a rule that reads only rewards).
- ``_generate_and_score_completions`` adds one advantage column per reward to TRL's batch.
- ``_compute_loss`` runs TRL's loss on a recorded forward pass and backpropagates the loss of each reward k through it,
  which gives the gradient g_k. At the last micro-batch of a step, it sets the gradients of the parameters to
  sum_k w_k g_k.

Checkpoints hold the weights and the unused rollouts. With ``weighting="fixed"`` and otherwise default settings, the run
is the same as with plain TRL up to rounding, and bit for bit with ``share_prefixes=False``.

Sources: GRPO (arXiv 2402.03300) as in TRL 1.16; POPO (arXiv 2606.03866). ``docs/alignment.md`` lists the deviations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

from taiji.alignment import tokens
from taiji.alignment.accumulation import AccumulationStep
from taiji.alignment.advantages import common, groups_with_signal, linear, weighted_sum
from taiji.alignment.checkpoint import load_state, save_state
from taiji.alignment.dynamic_sampling import DynamicSampling
from taiji.alignment.front import Front
from taiji.alignment.hooks import Silent, Watched, check_hooks, check_weights, moved_hooks
from taiji.alignment.placement import Placement, placed_like, trainable
from taiji.alignment.recording import Forward, JointGradients, OutputGradient, Outputs, Recording
from taiji.alignment.scales import RewardScale
from taiji.alignment.sharing import SharedPrefixes
from taiji.alignment.step_state import Batch, RewardColumns, StepState
from taiji.alignment.trainer_config import ParetoGRPOConfig
from taiji.core.artifacts import read_json
from taiji.core.errors import ConfigError
from taiji.nn.weighting_rules import Observation, Reading, Rule, make_rule


class ParetoGRPOTrainer(DynamicSampling, SharedPrefixes, GRPOTrainer):
    """Drop-in replacement for TRL's ``GRPOTrainer``, with the same arguments and a :class:`ParetoGRPOConfig`.

    In addition to TRL's metrics, it logs ``weight/<name>`` (applied in this step) for each reward, and for each reward
    with a weight other than zero ``indicator/<name>`` (if the rule has indicators) and ``front/mean/<name>``. It also
    logs ``max_delta_log_weight``, ``front/hypervolume``, ``front/points``, ``weight_observations_skipped`` (if there
    were any) and, with dynamic sampling, ``dynamic_sampling/…``. ``docs/alignment.md`` explains these metrics.

    It trains all parameters or LoRA adapters, and supports gradient accumulation, data parallelism and FSDP2. Under a
    rule that reads gradients, each process keeps K gradients (2K with the cross-batch estimator, 4 with the directional
    one) in float32 for its part of the trainable parameters. Under FSDP1 or DeepSpeed, use a reward rule.

    Attributes:
        front: mean rewards of the batches so far that no other batch dominates.
        rule: rule for the weights, which are copied to TRL's ``reward_weights`` whenever they change.
        step_state: data passed from one of TRL's callbacks to a later one of the same step; empty between steps.
        _train_sampler: TRL's sampler of the prompts, kept from the start of a run until its checkpoint is loaded.
    """

    args: ParetoGRPOConfig
    model: Any
    accelerator: Accelerator
    num_generations: int
    scale_rewards: str
    processing_class: Any

    def __init__(self, model: Any, reward_funcs: Any = None, args: GRPOConfig | None = None, **keywords: Any) -> None:
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = ParetoGRPOConfig(f"{name.split('/')[-1] or 'model'}-ParetoGRPO")
        if not isinstance(args, ParetoGRPOConfig):
            raise ConfigError(
                "The configuration is a plain GRPOConfig of TRL.",
                expected="ParetoGRPOConfig",
                found=type(args).__name__,
                fix="replace GRPOConfig with taiji.alignment.ParetoGRPOConfig",
            )
        self.step_state = StepState()
        self._train_sampler: Sampler | None = None
        check_hooks(GRPOTrainer)
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, **keywords)
        check_hooks(GRPOTrainer, self)
        if args.source == "gradients":
            if self.is_deepspeed_enabled or (self.is_fsdp_enabled and not self.accelerator.is_fsdp2):
                raise ConfigError(
                    f"weighting={args.weighting!r} needs several backward passes over one forward pass, which these shards do not support.",
                    expected="parameters that are unsharded, or sharded by FSDP2",
                    found="DeepSpeed" if self.is_deepspeed_enabled else "FSDP1",
                    fix="use FSDP2 (fsdp_version: 2), data parallelism with LoRA, or a rule that reads rewards, such as popo-light",
                )
            checkpointing: Any = args.gradient_checkpointing_kwargs or {}
            if args.gradient_checkpointing and checkpointing.get("use_reentrant"):
                raise ConfigError(
                    "Reentrant gradient checkpointing supports only one backward pass.",
                    fix='gradient_checkpointing_kwargs={"use_reentrant": False}',
                )
        self._check_dynamic_sampling()
        if args.leave_one_out:
            self.scale_rewards = "none"  # leave-one-out is applied in the advantage columns instead
        self.front = Front(self.reward_weights.tolist(), args.front_reference)
        self.reward_scale = RewardScale.of(
            args.reward_weights, len(self.reward_weights), adaptive=args.source != "none"
        )
        self.rule: Rule = make_rule(args.weighting, self.reward_scale.count, args.rule_options(self.reward_scale))
        self._apply_weights()

    def _apply_weights(self) -> None:
        """Copy the rule's weights to TRL."""
        if self.rule.source != "none":
            self.reward_weights = torch.tensor(self.reward_scale.applied(self.rule.weights), dtype=torch.float32)

    @property
    def _reward_names(self) -> list[str]:
        """Return the names of the rewards; a number is appended to repeated names."""
        rewards = self.reward_func_names
        return [name if rewards.count(name) == 1 else f"{name}_{k}" for k, name in enumerate(rewards)]

    def _log_weights(self, shares: np.ndarray, reading: Reading | None) -> None:
        """Log the weights (K,) of a step and, if the rule made an observation, its reading: indicators and largest
        change of log w."""
        metrics, names = self._metrics["train"], self._reward_names
        for name, weight in zip(names, shares):
            metrics[f"weight/{name}"].append(float(weight))
        if reading is not None and reading.indicators is not None:
            for number, value in zip(self.reward_scale.active, reading.indicators):
                metrics[f"indicator/{names[number]}"].append(float(value))
        metrics["max_delta_log_weight"].append(0.0 if reading is None else reading.delta)
        if self.rule.skipped:
            metrics["weight_observations_skipped"].append(float(self.rule.skipped))

    # ---- generation: rewards, advantages --------------------------------------------------------------------------

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> Tensor:
        """Score the batch of all processes (N, K). A reward rule updates the weights before TRL applies them to this
        batch."""
        rewards: Tensor
        if (drawn := self.step_state.take_scores()) is not None:
            rewards = drawn
        else:
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            if self.model.training:
                self._observe_rewards(rewards)
        if self.model.training:
            self.step_state.put_rewards(rewards)
        return rewards

    def _observe_rewards(self, rewards: Tensor) -> None:
        """Pass the rewards (N, K) of the original prompts to the front and to a reward rule."""
        metrics, seen = self._metrics["train"], rewards.double().cpu()
        means = torch.nanmean(seen, 0).numpy()
        for name, value in self.front.add(means).items():
            metrics[f"front/{name}"].append(value)
        for number in self.front.numbers:
            if np.isfinite(means[number]):
                metrics[f"front/mean/{self._reward_names[number]}"].append(float(means[number]))
        if self.rule.source == "rewards":
            reading = self.rule.observe(
                Observation(rewards=self.reward_scale.rewards(seen).numpy(), group=self.num_generations)
            )
            self._apply_weights()
            self._log_weights(self.reward_scale.shares(self.rule.weights), reading)
        elif self.rule.source == "none":
            self._log_weights(self.reward_weights.double().numpy(), None)

    def _columns(self, rewards: Tensor) -> Tensor:
        """Return the advantages (N, K) of the weighted rewards."""
        seen, group, total = self.reward_scale.rewards(rewards), self.num_generations, self.reward_scale.total
        if self.args.aggregation == "linear":
            return linear(seen, group, self.args.scale_rewards, total)
        return common(seen, group, self.multi_objective_aggregation, self.args.scale_rewards, total)

    def _groups_with_signal(self, rewards: Tensor) -> Tensor:
        """Return a mask (prompts,): True for groups that can change the parameters or the weights of a rule."""
        if self.rule.source == "none":  # only the weighted sum is used
            weights, aggregation = self.reward_weights, self.multi_objective_aggregation
            return groups_with_signal(
                common(weighted_sum(rewards, weights, self.num_generations, aggregation), self.num_generations),
                self.num_generations,
            )
        return groups_with_signal(self._columns(rewards), self.num_generations)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        """Return TRL's batch, with the advantages per reward if the loss needs them."""
        if self.model.training and self.args.dynamic_sampling:
            inputs = self._draw_ahead(inputs, self._observe_rewards, self._groups_with_signal)
        batch: Batch = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return batch
        rewards = self.step_state.take_rewards()
        if self.rule.source == "rewards" and self.multi_objective_aggregation == "sum_then_normalize":
            check_weights(self._metrics["train"]["reward"][-1], rewards, self.reward_weights)
        gradients, trls = (
            self.args.source == "gradients",
            self.args.aggregation == "trl" and not self.args.leave_one_out,
        )
        if trls and not gradients:
            return batch
        columns = self._columns(rewards)
        local = len(batch["advantages"])
        rows = slice(self.accelerator.process_index * local, (self.accelerator.process_index + 1) * local)
        if not trls:
            shares = self.reward_scale.given if self.rule.source == "none" else self.rule.weights
            advantages = (columns * torch.tensor(shares).to(columns)).sum(1)
            batch["advantages"] = advantages[rows]
            self._log_advantages(advantages)
        if gradients:
            prompt = torch.arange(len(columns), device=columns.device) // self.num_generations
            applies = torch.isfinite(self.reward_scale.rewards(rewards))[rows]
            RewardColumns(columns[rows], prompt[rows], (columns != 0).any(), applies).put(batch)
        return batch

    def _log_advantages(self, advantages: Tensor) -> None:
        """Replace TRL's advantages by ours in the table of completions for the last logged batch."""
        logged = cast("deque[float]", self._logs["advantages"])
        for _ in range(min(len(logged), len(advantages))):
            logged.pop()
        logged.extend(advantages.tolist())

    # ---- loss: recorded forward, gradients per reward -------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module | Recording,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        *,
        padded: bool = False,
        joint: list[JointGradients] | None = None,
        **media: Any,
    ) -> Outputs:
        """Run the forward pass, or replay it if TRL's loss was given a recording as its model."""
        forward: Callable[..., Outputs] = super()._get_per_token_logps_and_entropies
        options = {
            "batch_size": batch_size,
            "compute_entropy": compute_entropy,
            "compute_aux_loss": compute_aux_loss,
            **media,
        }
        if isinstance(model, Recording):
            return model.replayed(Forward(forward, model.model, input_ids, attention_mask, logits_to_keep, options))
        return forward(model, input_ids, attention_mask, logits_to_keep, padded=padded, joint=joint, **options)

    def _compute_loss(self, model: torch.nn.Module, inputs: Batch) -> Tensor:
        if self.model.training and self.args.source == "gradients":
            return self._loss_per_reward(model.module if isinstance(model, DistributedDataParallel) else model, inputs)
        loss: Tensor
        if self.model.training and self.args.token_weighting == "pepo":
            recording = Recording(model, evidence=self._evidence(inputs), attached=True)
            weights = self._token_weights(recording, inputs)
            loss = super()._compute_loss(recording, {**inputs, "advantages": inputs["advantages"][:, None] * weights})
        else:
            loss = super()._compute_loss(model, inputs)
        return loss

    def _loss_per_reward(self, model: torch.nn.Module, inputs: Batch) -> Tensor:
        """Add a micro-batch to the accumulation step; at its end, update the weights and set the gradients.

        Return the loss, detached from the parameters.
        """
        batch = RewardColumns.of(inputs)
        step = self.step_state.accumulation(partial(self._start_accumulation, model))
        halves = batch.prompt % 2 if step.halves == 2 else None
        evidence = self._evidence(inputs) if self.args.token_weighting == "pepo" else None
        jointly = step.observed and not step.directional and self.rule.count > 1
        recording = Recording(model, halves, evidence, together=step.placement.together, jointly=jointly)
        token_weights = None if recording.evidence is None else self._token_weights(recording, inputs)
        trl_loss = super()._compute_loss

        def loss_under(column: Tensor) -> Tensor:
            advantages = column if token_weights is None else column[:, None] * token_weights
            seen = Watched(inputs, advantages)
            loss: Tensor = trl_loss(recording, seen)
            if not seen.read:
                raise moved_hooks("_compute_loss reads inputs['advantages']", "a loss that does not read them")
            return loss

        def derivative(column: Tensor) -> OutputGradient:
            with self._unlogged():
                return recording.output_gradient(loss_under(column))

        weights = torch.tensor(self.rule.weights, dtype=batch.advantages.dtype, device=batch.advantages.device)
        loss = loss_under(inputs["advantages"] if step.given else (batch.advantages * weights).sum(1))
        update = recording.output_gradient(loss) if step.given else None
        rewards = [derivative(column) for column in batch.advantages.unbind(1)]
        common_part = derivative(torch.zeros_like(batch.advantages[:, 0])) if step.common else None
        step.placement.reduce_in_each_backward()
        step.add(recording, rewards, common_part, update, batch.applies)
        if self.accelerator.sync_gradients:
            self._update(self.step_state.take_accumulation(), bool(batch.signal))
        # The gradients are set manually, so the caller's backward pass gets a loss that does not depend on the
        # parameters.
        return loss.detach().requires_grad_()

    def _start_accumulation(self, model: torch.nn.Module) -> AccumulationStep:
        count, given = self.rule.count, self.rule.options.preference
        preference = np.full(count, 1 / count) if given is None else np.asarray(given) / sum(given)
        shared = self.beta != 0 or self._entropy_bonus_enabled or self.aux_loss_enabled
        parameters = trainable(model)
        mean: Callable[[Tensor], Tensor] = partial(self.accelerator.reduce, reduction="mean")
        observed = self.state.global_step % self.args.weight_every == 0
        return AccumulationStep(
            parameters=parameters,
            count=count,
            estimator=self.args.gram_estimator,
            common=observed and shared and not self.args.kl_in_indicator,
            reference=(count * preference).tolist(),
            weights=self.rule.weights.tolist(),
            fresh=self.rule.fresh,
            given=self.args.aggregation == "trl",
            observed=observed,
            placement=Placement.of(model, parameters, self.accelerator.num_processes, mean),
        )

    def _update(self, step: AccumulationStep, signal: bool) -> None:
        """Close the step: let the rule observe it, and set the gradients of the parameters.

        The rule does not observe a step with infinite or NaN gradients, with advantages that are all zero, or with
        prompts in only one half. With ``weight_every`` = n, it observes only every n-th step.
        """
        seen = step.close(self.args.directional_step)
        before, reading = self.rule.weights, None
        scaler, finite = self.accelerator.scaler, step.finite
        if not finite:
            reading = self.rule.skip()
        elif signal and seen is not None:
            reading = self.rule.observe(seen)
            self._apply_weights()
        applied = self.rule.weights if self.rule.fresh else before
        factor = scaler.get_scale() if scaler is not None else 1.0
        for parameter, gradient in zip(step.parameters, step.gradient(applied.tolist())):
            if gradient is not None and (finite or scaler is not None):  # a gradient scaler handles infinities itself
                gradient = placed_like(parameter, (gradient * factor).to(parameter.dtype))
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self._log_weights(self.reward_scale.shares(applied), reading)

    @contextmanager
    def _unlogged(self) -> Iterator[None]:
        """Keep TRL's metrics and entropy controller unchanged while its loss runs in the block, without synchronising
        processes."""
        coefficient, accelerator = self.entropy_coef, self.accelerator
        entropy, stats = self._last_world_entropy, self._entropy_window_stats
        self.accelerator = cast(Accelerator, Silent(accelerator))
        try:
            with self._metrics_apart():
                yield
        finally:
            self.entropy_coef, self.accelerator = coefficient, accelerator
            self._last_world_entropy, self._entropy_window_stats = entropy, stats

    def get_high_entropy_mask(self, entropies: Tensor, mask: Tensor, threshold: float) -> Tensor:
        """Return TRL's mask of the tokens to train on. It affects the loss, so it is computed from the entropies of all
        processes even inside :meth:`_unlogged`."""
        accelerator = self.accelerator
        self.accelerator = accelerator.accelerator if isinstance(accelerator, Silent) else accelerator
        try:
            found: Tensor = super().get_high_entropy_mask(entropies, mask, threshold)
        finally:
            self.accelerator = accelerator
        return found

    # ---- PEPO -----------------------------------------------------------------------------------------------------

    def _evidence(self, inputs: Batch) -> tokens.Evidence:
        mask = tokens.evidence_mask(
            self.processing_class, inputs["prompt_ids"], inputs["prompt_mask"], self.args.pepo_evidence
        )
        return tokens.Evidence(mask, attached=self.args.pepo_as_released)

    def _token_weights(self, recording: Recording, inputs: Batch) -> Tensor:
        """Return PEPO's weights (B, T). They are computed from the forward pass that a run of TRL's loss records."""
        with self._unlogged():
            super()._compute_loss(recording, inputs)
        similarity, entropies = recording.token_statistics()
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        weights = tokens.token_weights(similarity, entropies, mask, self.args.pepo_alpha, self.args.pepo_temperature)
        return tokens.blended(weights, self.state.global_step / max(self.state.max_steps, 1))

    # ---- start of a run, checkpoints ------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """Start a run with an empty step state. Transformers requests the loader at the beginning of each run and of
        each retry."""
        self.step_state = StepState()
        loader: DataLoader = super().get_train_dataloader()
        return loader

    def _get_train_sampler(self, dataset: Any = None) -> Sampler:
        sampler: Sampler = super()._get_train_sampler(dataset)
        self._train_sampler = sampler
        return sampler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.step_state.check_empty()
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        under_way = self._step % ((self.args.steps_per_generation or 1) * self.num_iterations) != 0
        rollouts = self._buffered_inputs if under_way else None
        save_state(folder, self.rule, self._step, rollouts, self.front, self.accelerator)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        # TRL's sampler draws the order of each epoch from one generator, so a resumed run has to draw the orders of
        # past epochs, too.
        sampler = self._train_sampler
        if isinstance(sampler, RepeatSampler) and sampler.shuffle:
            for _ in range(int(read_json(Path(checkpoint) / "trainer_state.json")["epoch"] + 1e-9)):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        saved = load_state(Path(checkpoint), self.rule, self.accelerator)
        if saved is not None:
            self._step, self._buffered_inputs = saved.step, saved.rollouts
            self.rule.load(saved.rule)
            self._apply_weights()
            if saved.front is not None:
                self.front.load(saved.front)

"""GRPO whose reward weights adapt: TRL's trainer with five methods overridden and none copied.

``_calculate_rewards`` shows reward rules the batch; ``_generate_and_score_completions`` keeps one advantage column a reward;
``_get_per_token_logps_and_entropies`` records or replays the forward; ``_compute_loss`` pulls each reward's loss back through
it and sets the parameters' gradients to sum_k w_k g_k; checkpoints carry the weights and the rollouts under way. With
``weighting="fixed"`` every one of them steps aside and the run is stock TRL's.

Sources: GRPO (arXiv 2402.03300) as in TRL 1.16; POPO (arXiv 2606.03866); deviations in ``docs/alignment.md``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOConfig, GRPOTrainer

from taiji.alignment import tokens
from taiji.alignment.accumulation import AccumulationStep
from taiji.alignment.advantages import linear, split
from taiji.alignment.checkpoint import load_state, save_state
from taiji.alignment.hooks import check_hooks
from taiji.alignment.recording import OutputGradient, Part, Recording
from taiji.alignment.sharing import SharedPrefixes
from taiji.alignment.trainer_config import ParetoGRPOConfig
from taiji.core.artifacts import read_json
from taiji.core.errors import ConfigError
from taiji.nn.weighting_rules import Observation, Reading, Rule, make_rule


class ParetoGRPOTrainer(SharedPrefixes, GRPOTrainer):
    """Drop-in replacement of TRL's ``GRPOTrainer``; takes the same arguments and a :class:`ParetoGRPOConfig`.

    Logged beside TRL's metrics, per reward name: ``weight/<name>`` (applied in this step), ``indicator/<name>`` (where
    the rule has them) and ``max_delta_log_weight``.

    Works with full parameters or LoRA, gradient accumulation and data parallelism. Gradient rules hold K gradients
    (2K for cross-batch) of the trainable parameters in fp32 and need parameters that are whole on each process; under FSDP or
    DeepSpeed use a reward rule.
    """

    args: ParetoGRPOConfig
    model: Any
    accelerator: Any
    num_generations: int
    scale_rewards: str
    processing_class: Any
    _buffered_inputs: Any
    _train_sampler: Any = None

    def __init__(self, model: Any, reward_funcs: Any = None, args: GRPOConfig | None = None, **keywords: Any) -> None:
        if args is None:
            name = model if isinstance(model, str) else getattr(model.config, "_name_or_path", "")
            args = ParetoGRPOConfig(f"{name.split('/')[-1] or 'model'}-ParetoGRPO")
        if not isinstance(args, ParetoGRPOConfig):
            raise ConfigError(
                "The configuration is TRL's own.",
                expected="ParetoGRPOConfig",
                found=type(args).__name__,
                fix="replace GRPOConfig by taiji.alignment.ParetoGRPOConfig",
            )
        self._rule: Rule | None = None
        self._recording: Recording | None = None
        self._accumulation: AccumulationStep | None = None
        self._signal = True
        self._last_reading: dict[str, Any] = {}
        check_hooks(GRPOTrainer)
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, **keywords)
        check_hooks(GRPOTrainer, self)
        if args.source == "gradients":
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ConfigError(
                    f"weighting={args.weighting!r} needs whole parameters on each process.",
                    found="FSDP or DeepSpeed",
                    fix="use popo-light or popo-covariance, or data parallelism with LoRA",
                )
            checkpointing: Any = args.gradient_checkpointing_kwargs or {}
            if args.gradient_checkpointing and checkpointing.get("use_reentrant"):
                raise ConfigError(
                    "Reentrant gradient checkpointing allows one backward pass only.",
                    fix='gradient_checkpointing_kwargs={"use_reentrant": False}',
                )
        self.rule_for(len(self.reward_weights))

    # ---- the rule -----------------------------------------------------------------------------------------------

    def rule_for(self, count: int) -> Rule:
        """The weight rule, made anew only when the number of rewards changed."""
        if self._rule is None or self._rule.count != count:
            options = self.args.rule_options()
            if options.initial is not None and len(options.initial) != count:
                options.initial = None  # rewards that environments append start like the others
            self._rule = make_rule(self.args.weighting, count, options)
            self._apply(self._rule)
        return self._rule

    def _apply(self, rule: Rule) -> None:
        if rule.source != "none":
            self.reward_weights = torch.tensor(rule.weights, dtype=torch.float32)

    def _note(self, applied: np.ndarray, reading: Reading | None) -> None:
        metrics = self._metrics["train"]
        names = self._reward_names(len(applied))
        for name, weight in zip(names, applied):
            metrics[f"weight/{name}"].append(float(weight))
        if reading is not None and reading.indicators is not None:
            for name, value in zip(names, reading.indicators):
                metrics[f"indicator/{name}"].append(float(value))
        metrics["max_delta_log_weight"].append(0.0 if reading is None else reading.delta)

    def _reward_names(self, count: int) -> list[str]:
        names = list(self.reward_func_names)[:count] + [f"reward{k}" for k in range(len(self.reward_func_names), count)]
        return [name if names.count(name) == 1 else f"{name}_{k}" for k, name in enumerate(names)]

    # ---- rewards and advantages ---------------------------------------------------------------------------------

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.model.training:
            self._rewards = rewards
            rule = self.rule_for(rewards.size(1))
            if rule.source == "rewards":
                reading = rule.observe(Observation(rewards=rewards.double().cpu().numpy(), group=self.num_generations))
                self._apply(rule)
                self._note(rule.weights, reading)
            elif rule.source == "none":
                self._note(self.reward_weights.double().numpy(), None)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        gradients = self.args.source == "gradients"
        if not self.model.training or not (gradients or self.args.linear):
            return output
        rewards, weights = self._rewards, self.reward_weights.to(self._rewards.device)
        if self.args.linear:
            columns = linear(rewards, self.num_generations, self.scale_rewards)
        else:
            columns = split(
                rewards, weights, self.num_generations, self.multi_objective_aggregation, self.scale_rewards
            )
        self._signal = bool((columns != 0).any())
        local = len(output["advantages"])
        rows = slice(self.accelerator.process_index * local, (self.accelerator.process_index + 1) * local)
        if self.args.linear:
            output["advantages"] = (columns * weights).sum(1)[rows]
        if gradients:
            output["reward_advantages"] = columns[rows]
            output["prompt_group"] = (torch.arange(len(columns), device=columns.device) // self.num_generations)[rows]
        return output

    # ---- the forward: recorded once, replayed at will --------------------------------------------------------------

    def policy_forward(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *rest: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities (B, T), entropies (B, T) or None, auxiliary loss or None."""
        return super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, *rest, **keywords
        )

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *rest: Any, **keywords: Any
    ) -> Any:
        recording = self._recording
        if recording is None:
            return self.policy_forward(model, input_ids, attention_mask, logits_to_keep, *rest, **keywords)
        if recording.replay is not None:
            return recording.replay
        whole = torch.arange(len(input_ids), device=input_ids.device)
        images = any(
            keywords.get(name) is not None
            for name in ("pixel_values", "num_images", "token_type_ids", "mm_token_type_ids")
        )
        if recording.halves is None or images or keywords.get("compute_aux_loss"):
            pieces: list[tuple[int | None, Tensor]] = [(None, whole)]
        else:  # one forward a half costs no more arithmetic, and lets a backward visit one half only
            pieces = [
                (half, whole[recording.halves == half]) for half in (0, 1) if bool((recording.halves == half).any())
            ]
        for half, rows in pieces:
            if recording.evidence is None:
                found = self.policy_forward(
                    model, input_ids[rows], attention_mask[rows], logits_to_keep, *rest, **keywords
                )
                recording.parts.append(Part(rows, half, *found))
                continue
            with tokens.hidden_states(model) as store:
                found = self.policy_forward(
                    model, input_ids[rows], attention_mask[rows], logits_to_keep, *rest, **keywords
                )
            layers = store[-1] if self.args.pepo_as_released else tuple(layer.detach() for layer in store[-1])
            recording.parts.append(
                Part(rows, half, *found, tokens.evidence_similarity(layers, recording.evidence[rows], logits_to_keep))
            )
        recording.close()
        return recording.replay

    @contextmanager
    def _record(self, model: Any, inputs: dict[str, Any]) -> Iterator[Recording]:
        """Run the forward once; inside the block TRL's loss sees the recording instead of the model."""
        recording = Recording()
        if self._accumulation is not None and self._accumulation.halves == 2:
            recording.halves = inputs["prompt_group"] % 2
        if self.args.token_weighting == "pepo":
            recording.evidence = tokens.evidence_mask(
                self.processing_class, inputs["prompt_ids"], inputs["prompt_mask"], self.args.pepo_evidence
            )
        self._recording = recording
        try:
            with self._unlogged():
                super()._compute_loss(model, inputs)
            yield recording
        finally:
            self._recording = None

    @contextmanager
    def _unlogged(self) -> Iterator[None]:
        """Keep TRL's metrics and entropy controller as they are, whatever its loss does."""
        kept = {
            name: getattr(self, name)
            for name in ("_metrics", "_entropy_window_stats", "_last_world_entropy", "entropy_coef")
        }
        self._metrics = {mode: defaultdict(list) for mode in ("train", "eval")}
        try:
            yield
        finally:
            for name, value in kept.items():
                setattr(self, name, value)

    def _token_weights(self, recording: Recording, inputs: dict[str, Any]) -> Tensor | None:
        if recording.evidence is None:
            return None
        assert recording.similarity is not None and recording.attached is not None and recording.attached[1] is not None
        entropy = recording.attached[1] if self.args.pepo_as_released else recording.attached[1].detach()
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        weights = tokens.token_weights(
            recording.similarity, entropy, mask, self.args.pepo_alpha, self.args.pepo_temperature
        )
        return tokens.blended(weights, self.state.global_step / max(self.state.max_steps, 1))

    # ---- the loss -------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        gradients = self.args.source == "gradients"
        if not self.model.training or not (gradients or self.args.token_weighting == "pepo"):
            return super()._compute_loss(model, inputs)
        if not gradients:
            with self._record(model, inputs) as recording:
                recording.replay = recording.attached
                weights = self._token_weights(recording, inputs)
                return super()._compute_loss(model, {**inputs, "advantages": inputs["advantages"][:, None] * weights})
        return self._weighted_step(model.module if isinstance(model, DistributedDataParallel) else model, inputs)

    def _weighted_step(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Add a micro-batch to the accumulation step; at its end observe, set the gradients, move the weights."""
        columns = inputs["reward_advantages"]
        rule = self.rule_for(columns.size(1))
        if self._accumulation is None:
            self._accumulation = self._open_accumulation(model, rule)
        with self._record(model, inputs) as recording:
            token_weights = self._token_weights(recording, inputs)

            def advantage(column: Tensor) -> Tensor:
                return column if token_weights is None else column[:, None] * token_weights

            applied = torch.tensor(rule.weights, dtype=columns.dtype, device=columns.device)
            loss = super()._compute_loss(model, {**inputs, "advantages": advantage((columns * applied).sum(1))})
            rewards = [self._derivative(model, inputs, advantage(columns[:, k]), recording) for k in range(rule.count)]
            common = (
                self._derivative(model, inputs, torch.zeros_like(columns[:, 0]), recording)
                if self._accumulation.common
                else None
            )
        self._accumulation.add(recording, rewards, common, partial(self._repeat, model, inputs))
        if self.accelerator.sync_gradients:
            self._close_accumulation(rule)
        # The gradients are set by hand, so the caller's backward gets a loss that reaches nothing.
        return loss.detach().requires_grad_()

    def _derivative(
        self, model: Any, inputs: dict[str, Any], advantages: Tensor, recording: Recording
    ) -> OutputGradient:
        with self._unlogged():
            return recording.output_gradient(super()._compute_loss(model, {**inputs, "advantages": advantages}))

    def _repeat(self, model: Any, inputs: dict[str, Any], rows: Tensor) -> Tensor:
        """The forward of some rows again, with the parameters as they are now and without gradient."""
        size, images = len(inputs["prompt_ids"]), "pixel_values" in inputs  # whose rows are patches
        if not images:
            inputs = {
                key: value[rows] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == size else value
                for key, value in inputs.items()
            }
        self._recording = Recording()
        try:
            with torch.no_grad(), self._unlogged():
                super()._compute_loss(model, inputs)
            found: Tensor = self._recording.attached[0].detach()  # type: ignore[index]
        finally:
            self._recording = None
        return found[rows] if images else found

    def _open_accumulation(self, model: Any, rule: Rule) -> AccumulationStep:
        options = self.args.rule_options()
        preference = (
            np.full(rule.count, 1 / rule.count)
            if options.preference is None
            else np.asarray(options.preference) / sum(options.preference)
        )
        shared = self.beta != 0 or self._entropy_bonus_enabled or self.aux_loss_enabled
        return AccumulationStep(
            parameters=[p for p in model.parameters() if p.requires_grad],
            count=rule.count,
            estimator=self.args.gram_estimator,
            common=shared and not self.args.kl_in_indicator,
            reference=(rule.count * preference).tolist(),
            weights=rule.weights.tolist(),
        )

    def _close_accumulation(self, rule: Rule) -> None:
        step, self._accumulation = self._accumulation, None
        assert step is not None
        mean: Callable[[Tensor], Tensor] = partial(self.accelerator.reduce, reduction="mean")
        estimate = step.close(self.accelerator.num_processes, mean, self.args.directional_step)
        before, reading = rule.weights, None
        if self._signal and estimate.usable:
            reading = rule.observe(
                Observation(
                    gram=estimate.gram,
                    indicators=estimate.indicators,
                    square_norm=estimate.square_norm,
                    group=self.num_generations,
                )
            )
            self._apply(rule)
        applied = rule.weights if rule.fresh else before
        factor = self.accelerator.scaler.get_scale() if self.accelerator.scaler is not None else 1.0
        for parameter, gradient in zip(step.parameters, step.gradient(applied.tolist())):
            if gradient is not None:
                gradient = (gradient * factor).to(parameter.dtype)
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self._note(applied, reading)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        under_way = self._step % ((self.args.steps_per_generation or 1) * self.num_iterations) != 0
        save_state(folder, self._rule, self._step, self._buffered_inputs if under_way else None, self.accelerator)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        # TRL's sampler draws each epoch's order from one generator, so a resumed run has to draw the past epochs' too.
        generator = getattr(self._train_sampler, "generator", None)
        if generator is not None:
            for _ in range(int(read_json(Path(checkpoint) / "trainer_state.json")["epoch"] + 1e-9)):
                torch.randperm(len(self._train_sampler.data_source), generator=generator)
        found = load_state(Path(checkpoint), self.args.weighting, self.accelerator)
        if found is None:
            return
        self._step, state, self._buffered_inputs = found
        if state is not None:
            rule = self.rule_for(len(state["log_weights"]))
            rule.load(state)
            self._apply(rule)

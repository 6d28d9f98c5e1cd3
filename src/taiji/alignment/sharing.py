"""Prompt sharing for a GRPO trainer: each prompt is computed only once for its rollouts, for their loss, and for their
old and reference log-probabilities.

Rows of a batch with a common prefix (the rollouts of a prompt) are computed by `taiji.language.prefix_*`, with the same
log-probabilities, gradients and sampled tokens as TRL's own forward pass, up to float rounding. Unsupported cases
(images, vLLM, MoE auxiliary losses, wrapped or windowed models, unusual generation settings) are left to TRL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from taiji.alignment.recording import JointGradients, Outputs
from taiji.language.logits_processing import Sampling
from taiji.language.prefix_forward import bare_model, shared_batches, shared_logprobs
from taiji.language.prefix_generate import Draw, generate_shared, sampling_of
from taiji.language.prefix_gradients import SharedGradients, split_logprobs
from taiji.language.prefix_lora import fuse_adapters
from taiji.language.prefix_support import supports_sharing

if TYPE_CHECKING:
    from trl import GRPOTrainer as Base

    from taiji.alignment.trainer_config import ParetoGRPOConfig
else:
    Base = object

logger = logging.getLogger(__name__)
ROW_WISE = ("grpo", "dapo", "dr_grpo", "cispo", "sapo", "vespo")
"""TRL's losses whose sum over an accumulation step does not depend on how rows are split into micro-batches."""


@dataclass(frozen=True)
class ScoredGradients:
    """Graph of a shared forward pass, in the layout of TRL's batch: ``scored`` (B, T) is the mask of the completions'
    tokens."""

    graphs: SharedGradients
    scored: Tensor

    def products(self, vectors: Tensor, parameters: Sequence[Tensor]) -> Iterator[list[Tensor | None]]:
        """See :class:`~taiji.alignment.recording.JointGradients`."""
        return self.graphs.products(vectors[:, self.scored], parameters)


class SharedPrefixes(Base):
    """Mixin for TRL's ``GRPOTrainer`` that computes shared prompts once where this is supported."""

    args: ParetoGRPOConfig
    model: Any
    _buffered_inputs: Any
    _told: str = ""

    def shares(self, model: Any) -> bool:
        """Return True if shared prompts are computed once for this model, and prepare its LoRA layers on the first
        call."""
        if not self.args.share_prefixes or not supports_sharing(model)[0]:
            return False
        fuse_adapters(model)
        return True

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
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
        whole = model.module if isinstance(model, DistributedDataParallel) else model
        if (
            padded
            or compute_aux_loss
            or any(v is not None for v in media.values())
            or not self.shares(whole)
            or not bool((attention_mask[:, :-logits_to_keep].sum(1) > 0).all())
        ):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss, **media
            )

        def forward(*_: Tensor) -> Outputs:
            return self._shared_logps(
                whole, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, joint
            )

        return forward() if whole is model else in_place_of_forward(model, forward, input_ids)

    def _shared_logps(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None,
        compute_entropy: bool,
        joint: list[JointGradients] | None = None,
    ) -> Outputs:
        """Return log-probabilities and entropies of the completions, with rows that share a prefix computed
        together."""
        inside = attention_mask.bool()
        rows = [ids[kept].tolist() for ids, kept in zip(input_ids.cpu(), inside.cpu())]
        scored = inside[:, -logits_to_keep:]
        starts = [len(row) - int(count) for row, count in zip(rows, scored.sum(1))]
        bonus = torch.is_grad_enabled() and self._entropy_bonus_enabled
        # TRL's batch size bounds the memory of passes without gradient: pack at most as many tokens as a padded batch
        # of this size has.
        room = (batch_size or len(rows)) * input_ids.size(1)
        found: list[Any] = [None] * len(rows)
        spread: list[Any] = [None] * len(rows)
        with self.accelerator.autocast():
            if joint is not None and torch.is_grad_enabled() and not bonus:
                split = split_logprobs(model, rows, starts, temperature=self.temperature)
                if split is not None:
                    found, spread = split[0].logprobs, split[0].entropies
                    joint.append(ScoredGradients(split[1], scored))
            for part in shared_batches(rows, room) if found[0] is None else []:
                result = shared_logprobs(
                    model,
                    [rows[i] for i in part],
                    [starts[i] for i in part],
                    temperature=self.temperature,
                    entropy_gradient=bonus,
                )
                for i, logprobs, entropies in zip(part, result.logprobs, result.entropies):
                    found[i], spread[i] = logprobs, entropies
        blank = torch.zeros(scored.shape, dtype=found[0].dtype, device=input_ids.device)
        return (
            blank.masked_scatter(scored, torch.cat(found)),
            blank.masked_scatter(scored, torch.cat(spread)) if compute_entropy else None,
            None,
        )

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: Any, has_tool_images: Any = False
    ) -> Any:
        plain = not (
            self.use_vllm or self.use_transformers_continuous_batching or images or multimodal_fields or has_tool_images
        )
        sampling = self._law() if plain and self.shares(self.model) else None
        if sampling is None:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        with self.accelerator.autocast():
            draw = cast(Draw, self.args.rollout_draw)
            return generate_shared(self.model, prompt_ids, 1, sampling, stop_ids=self.eos_token_ids, draw=draw), None

    def _law(self) -> Sampling | None:
        """Return the sampling distribution of TRL's rollouts, including the generation settings of the checkpoint; None
        if sharing does not support it."""
        config = bare_model(self.model)._prepare_generation_config(self.generation_config)[0]
        sampling, reason = sampling_of(config)
        ends = config.eos_token_id
        ends = set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
        if not reason and ends != set(self.eos_token_ids):
            sampling, reason = None, f"eos_token_id={sorted(ends)}"
        if reason and reason != self._told:
            self._told = reason
            logger.warning("Rollouts are generated by transformers without sharing prompts: %s.", reason)
        return sampling

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training or self._buffered_inputs is before or not self._regroupable():
            return inputs
        size = self.args.gradient_accumulation_steps
        batches = self._buffered_inputs
        self._buffered_inputs = [b for at in range(0, len(batches), size) for b in regrouped(batches[at : at + size])]
        assert self.args.steps_per_generation is not None  # set by TRL's configuration
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _regroupable(self) -> bool:
        return (
            len(self._buffered_inputs) > 1
            # Otherwise an optimiser step may span two generations, or start in the middle of one, and rows would move
            # between steps.
            and len(self._buffered_inputs) % self.args.gradient_accumulation_steps == 0
            and self.loss_type in ROW_WISE
            and not self._entropy_bonus_enabled
            and self.top_entropy_quantile == 1.0
            and "num_images" not in self._buffered_inputs[0]
            and self.shares(self.model)
        )


def in_place_of_forward(wrapper: DistributedDataParallel, forward: Callable[..., Outputs], argument: Tensor) -> Outputs:
    """Return ``forward(argument)``, run by the wrapper instead of its module's forward method, so that the wrapper
    reduces the gradients."""
    module = wrapper.module
    own = module.__dict__.get("forward")  # set by accelerate for mixed precision

    def once(*arguments: Tensor) -> Outputs:
        put_back()
        return forward(*arguments)

    def put_back() -> None:
        module.__dict__.pop("forward", None)
        if own is not None:
            module.forward = own

    module.forward = once
    try:
        outputs: Outputs = wrapper(argument)
    finally:
        put_back()
    return outputs


def regrouped(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort the rows of an accumulation step so that the rollouts of a prompt are in the same micro-batch if possible.

    Args:
        batches: dictionaries with equal keys. Tensors (B, …) have one entry per row; other values (scalars, None)
            belong to all rows.
    """
    if len(batches) < 2:
        return batches
    size = len(batches[0]["prompt_ids"])
    whole = {
        key: torch.cat([b[key] for b in batches])
        for key, value in batches[0].items()
        if isinstance(value, Tensor) and value.dim() > 0
    }
    if any(isinstance(value, list) for value in batches[0].values()) or any(
        len(v) != size * len(batches) for v in whole.values()
    ):
        return batches
    group = torch.unique(whole["prompt_ids"], dim=0, return_inverse=True)[1]
    order = torch.argsort(group, stable=True)
    return [
        {key: whole[key][order[n * size : (n + 1) * size]] if key in whole else value for key, value in batch.items()}
        for n, batch in enumerate(batches)
    ]

"""TRL's `SFTTrainer` with the loss of :mod:`taiji.language.prefix_forward`.

This loss needs no padding and no dense mask, and it computes shared prefixes only once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from taiji.language.prefix_forward import shared_logprobs
from taiji.language.prefix_lora import fuse_adapters
from taiji.language.prefix_support import supports_sharing

IGNORED = -100
"""Label of a token excluded from the loss."""


class PackedSFTTrainer(SFTTrainer):
    """Trainer with the same loss and gradients as TRL's, up to float rounding. A model without support for shared
    prefixes uses TRL's loss.

    The loss must cover every token from some position to the end of the row, as for a prompt followed by its completion.
    """

    _served: bool | None = None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the summed negative log-likelihood of the tokens in the loss, divided by the number of such tokens in
        the whole accumulation step."""
        if return_outputs or not self._serves(model):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        rows, starts = unpadded(inputs["input_ids"], inputs["attention_mask"], inputs["labels"])
        with self.accelerator.autocast():
            logprobs = torch.cat(shared_logprobs(model, rows, starts).logprobs)
        loss = -logprobs.sum() / (len(logprobs) if num_items_in_batch is None else num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # the count covers all processes, whose gradients are averaged
        return loss

    def _serves(self, model: Any) -> bool:
        if self._served is None:
            self._served = supports_sharing(model)[0]
            if self._served:
                fuse_adapters(model)
        return self._served


def unpadded(ids: Tensor, mask: Tensor, labels: Tensor) -> tuple[list[list[int]], list[int]]:
    """Return the rows (B, T) without their padding, and the position of the first token of each row that is in the
    loss."""
    rows = [row[kept].tolist() for row, kept in zip(ids.cpu(), mask.bool().cpu())]
    learnt = (labels != IGNORED).sum(1).tolist()
    return rows, [len(row) - count for row, count in zip(rows, learnt)]

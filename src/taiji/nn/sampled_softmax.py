"""Cross-entropy over a large catalogue from sampled negatives."""

from __future__ import annotations

import math

import torch


def sampled_softmax_loss(
    states: torch.Tensor,
    targets: torch.Tensor,
    table: torch.Tensor,
    negatives: torch.Tensor,
    log_chance: torch.Tensor,
) -> torch.Tensor:
    """Return the mean cross-entropy, with the partition function estimated from negatives that all rows share.

    The loss of a row is ``−s⁺ + log(exp s⁺ + Σ_k exp(s_k − log(K q_k)))``, where s⁺ is the logit of the target. A
    negative drawn with probability q_k is thus weighted by 1 / (K q_k), which is the log-Q correction (Bengio &
    Senécal, 2008). Negatives that equal the target are left out of the sum. If the negatives contain every item exactly
    once, with q_k = 1/K, the result is the cross-entropy of the full softmax.

    Args:
        states: (M, d) states that predict the targets.
        targets: (M,) target items.
        table: (N, d) item vectors.
        negatives: (K,) items, drawn with replacement and shared by the M rows.
        log_chance: (K,) log q_k of each negative.
    """
    positive = (states * table[targets]).sum(dim=1, keepdim=True)
    logits = states @ table[negatives].T - (log_chance + math.log(len(negatives)))
    logits = logits.masked_fill(negatives == targets[:, None], -torch.inf)
    return (torch.logsumexp(torch.cat([positive, logits], dim=1), dim=1) - positive.squeeze(1)).mean()

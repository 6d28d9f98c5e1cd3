"""Mean training loss of one pass over the interactions, for retrievers that train networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from taiji.core.errors import InputError


def mean_loss(losses: Sequence[torch.Tensor]) -> float:
    """Return the mean of the scalar losses of all steps in a pass.

    Raises:
        InputError: there were no steps, so the network would stay untrained.
    """
    if not losses:
        raise InputError(
            "The network has nothing to learn from.",
            where="interactions",
            expected="interactions after a user's first one, in addition to any held out for validation",
            found="none",
            fix="set valid_users, if the model has it, to fewer users, or choose a model without a network, such as popularity",
        )
    return float(torch.stack(list(losses)).double().mean())

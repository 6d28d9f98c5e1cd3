"""Mean loss of a pass over the interactions, for retrievers that train networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from taiji.core.errors import InputError


def mean_loss(losses: Sequence[torch.Tensor]) -> float:
    """Return the mean of the losses of a pass's steps, each a scalar.

    Raises:
        InputError: there was no step, so the network would stay untrained.
    """
    if not losses:
        raise InputError(
            "The network has nothing to learn from.",
            where="interactions",
            expected="some that can be predicted from others, apart from the last ones of held-out users",
            found="none",
            fix="set valid_users to fewer users, or choose a model without a network, such as popularity",
        )
    return float(torch.stack(list(losses)).double().mean())

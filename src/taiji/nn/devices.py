"""Transfer of arrays to a device without blocking the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def on_device(values: NDArray[Any], device: torch.device | str) -> torch.Tensor:
    """Return an array as a tensor on a device.

    A copy to a GPU from pageable memory blocks the host until the GPU has finished its queue, so the array is copied
    from pinned memory. On a CPU, the tensor shares the memory of a contiguous array.
    """
    host = torch.from_numpy(np.ascontiguousarray(values))
    if device == "cpu":
        return host
    if torch.device(device).type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)

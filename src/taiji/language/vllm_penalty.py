"""Repetition penalty over the completion only, as a logits processor of vLLM, whose built-in penalty includes the
prompt.

vLLM imports this module by name in the process that holds the model; without vLLM it must not be imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from taiji.language.logits_processing import penalised

ARGUMENT = "completion_penalty"
"""Name of the penalty among a request's ``extra_args``."""


class CompletionPenalty(AdapterLogitsProcessor):  # type: ignore[misc]
    """Logits processor that applies :func:`penalised` to requests with a penalty in their ``extra_args``."""

    def is_argmax_invariant(self) -> bool:
        """Return False, because the most likely token may change."""
        return False

    def new_req_logits_processor(self, params: Any) -> Callable[[list[int], Tensor], Tensor] | None:
        """Return a function of a request's output ids and logits (V,), or None if the request has no penalty."""
        penalty = float((params.extra_args or {}).get(ARGUMENT, 1.0))
        if penalty == 1.0:
            return None

        def process(written: list[int], logits: Tensor) -> Tensor:
            return penalised(logits[None], [written], penalty)[0]

        return process

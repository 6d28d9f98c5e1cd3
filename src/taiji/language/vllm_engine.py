"""vLLM as a backend of `generate` and `score_completions`, instead of `transformers`.

Tokenization, the seeds of prompts and samples, stop texts, the choice of scored tokens and the repetition penalty
(`vllm_penalty`) are the same as with `transformers`. Only the GPU kernels and the random stream of a seed differ. This
module has not been run with vLLM itself: the tests use a test double of vLLM's interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from taiji.core.errors import ConfigError
from taiji.core.optional import needs
from taiji.language.causal_lm import LanguageModel
from taiji.language.settings import GenerationSettings, LanguageSettings
from taiji.language.token_ids import text_of

if TYPE_CHECKING:
    from taiji.language.generate import Written


def with_engine(lm: LanguageModel, settings: LanguageSettings) -> LanguageModel:
    """Return the model with the backend for generation and scoring that ``settings.engine`` selects.

    Raises:
        TaijiError: vLLM is not installed, or the model was created in memory and not read from a folder or hub.
    """
    return lm if settings.engine == "transformers" else replace(lm, engine=VLLMEngine(lm, settings.gpu_share))


class VLLMEngine:
    """One vLLM instance in this process.

    Args:
        lm: model that was read from a folder or hub; its tokenizer is used, but not its weights.
        gpu_share: share of the GPU's memory that vLLM may use (lower it if several workers share a GPU).
    """

    def __init__(self, lm: LanguageModel, gpu_share: float) -> None:
        if lm.source is None:
            raise ConfigError(
                "vLLM can only load a model from a folder or a hub, and this model comes from neither.",
                where="language.model",
                found=f"{lm.name}, created in memory",
            )
        with needs("gpu", where="language.engine"):
            import vllm

            from taiji.language import vllm_penalty

        self._vllm, self._tokenizer = vllm, lm.tokenizer
        self._model = vllm.LLM(
            model=lm.source,
            dtype=str(lm.dtype).removeprefix("torch."),
            gpu_memory_utilization=gpu_share,
            enable_prefix_caching=True,
            logits_processors=[f"{vllm_penalty.__name__}:{vllm_penalty.CompletionPenalty.__name__}"],
        )

    def generate(
        self,
        prompts: Sequence[list[int]],
        seeds: Sequence[Sequence[int]],
        stop_ids: list[int],
        settings: GenerationSettings,
    ) -> list[list[Written]]:
        """Return one completion for each prompt and each of its seeds, in the given order."""
        from taiji.language import vllm_penalty
        from taiji.language.generate import Written, up_to

        requests, sampling = [], []
        for ids, row in zip(prompts, seeds, strict=True):
            for seed in row:
                requests.append({"prompt_token_ids": ids})
                sampling.append(
                    self._vllm.SamplingParams(
                        max_tokens=settings.max_new_tokens,
                        temperature=settings.temperature,
                        top_k=settings.top_k,
                        top_p=settings.top_p,
                        extra_args={vllm_penalty.ARGUMENT: settings.repetition_penalty},
                        stop=list(settings.stop),
                        stop_token_ids=stop_ids,
                        include_stop_str_in_output=True,
                        skip_special_tokens=False,  # the stop texts may be special tokens
                        seed=seed,
                    )
                )
        found = (output.outputs[0] for output in self._ask(requests, sampling))
        stops, tokenizer = set(stop_ids), self._tokenizer
        texts = iter(
            Written(
                up_to(text_of(tokenizer, [i for i in one.token_ids if i not in stops]), settings.stop),
                one.finish_reason == "length",
            )
            for one in found
        )
        return [[next(texts) for _ in row] for row in seeds]

    def logprobs(self, pairs: Sequence[tuple[list[int], int]]) -> list[np.ndarray]:
        """Return, for each pair (ids, position of the first completion token), the log-probabilities of the completion
        tokens.

        A token without context (the first completion token after an empty prompt) gets 0.
        """
        sampling = self._vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        scored = [place for place, (ids, first) in enumerate(pairs) if len(ids) > first]
        results = [np.zeros(len(ids) - first) for ids, first in pairs]
        outputs = self._ask([{"prompt_token_ids": pairs[place][0]} for place in scored], [sampling] * len(scored))
        for place, output in zip(scored, outputs):
            ids, first = pairs[place]
            for token in range(max(first, 1), len(ids)):
                results[place][token - first] = output.prompt_logprobs[token][ids[token]].logprob
        return results

    def _ask(self, requests: list[dict[str, Any]], sampling: list[Any]) -> list[Any]:
        return self._model.generate(requests, sampling, use_tqdm=False) if requests else []  # type: ignore[no-any-return]

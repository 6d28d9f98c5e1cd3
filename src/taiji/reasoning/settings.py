"""Settings of the reasoning package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from taiji.core.settings import Settings


class PromptSettings(Settings):
    """Content of the prompts."""

    history_limit: int = Field(default=50, ge=1)
    """Largest number of interactions in a prompt."""
    token_budget: int = Field(default=448, ge=64)
    """Longest student prompt in tokens, including the chat template; the oldest interactions are dropped first."""
    title_characters: int = Field(default=80, ge=8)
    """Longest title in prompts and answers, in characters; a longer title is cut at a word boundary."""
    description_characters: int = Field(default=0, ge=0)
    """Number of characters of an item's description (`items.description` of the mapping) that prompts show with each
    interaction; 0 shows none. In prompts for item knowledge, the limit is at least 120 characters."""
    templates: Path | None = None
    """Folder with templates that replace the packaged ones: `student.j2`, `teacher.j2`, `writer.j2` and `item.j2` (or
    `<domain>/student.j2`, …). With `answer: set`, the first two are `student-set.j2` and `teacher-set.j2`."""
    answer: Literal["item", "set"] = "item"
    """Form of an answer: one item, or a set of up to `intents` different items. A set needs more tokens: raise
    `generation.max_new_tokens` and `alignment.max_completion_tokens`."""
    intents: int = Field(default=8, ge=2)
    """With `answer: set`: largest number of intents per answer (m)."""
    next_items: int = Field(default=10, ge=2)
    """With `answer: set`: number (N) of the user's next items that the teacher sees and that selection and rewards use
    as targets. They are from the same period as the example; items that are new to the user come first."""

    @property
    def most(self) -> int:
        """Largest number of intents per answer; 1 for a single item."""
        return self.intents if self.answer == "set" else 1


class TeacherSettings(Settings):
    """The writer of rationales and its sampling."""

    kind: Literal["local", "writer", "endpoint"] = "local"
    """Writer of the rationales: a language model in process (`local`), the rule-based writer (`writer`), or an
    OpenAI-compatible endpoint (`endpoint`)."""
    rationales: int = Field(default=3, ge=1)
    """Rationales per prompt (k)."""
    answer_in_view: bool = True
    """Show the teacher the true next item (RUPR). If False, the teacher has to predict it."""
    max_new_tokens: int = Field(default=64, ge=8)
    """Longest rationale of a local model, in tokens. For an endpoint, set `reasoning.endpoint.max_tokens`."""
    temperature: float = Field(default=0.6, ge=0.0)
    """Sampling temperature. At higher values, small models digress."""
    cut: Literal["drop", "shorten"] = "drop"
    """Treatment of a local model's rationale that `max_new_tokens` cut off: drop it, or keep its complete sentences
    (dropped if there are none)."""
    repetition_penalty: float = Field(default=1.1, ge=1.0)
    """Penalty against repetition loops of small models; only for local models."""
    batch_size: int = Field(default=24, ge=1)
    """Rationales written together by a local model."""


class EndpointSettings(Settings):
    """OpenAI-compatible chat endpoint (vLLM, SGLang, Ollama, or a hosted one)."""

    url: str = "http://127.0.0.1:8000/v1"
    """Base address; `/chat/completions` is appended."""
    model: str = "default"
    """Name of the model at the endpoint."""
    key_variable: str = "TAIJI_TEACHER_KEY"
    """Environment variable with the API key; if it is unset, requests carry no key. The key is never written
    anywhere."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer in tokens, including the chain of thought of a reasoning model. A reply that reaches this limit is
    not used."""
    max_tokens_name: str = "max_tokens"
    """Name of the parameter `max_tokens` on the server; some servers accept only `max_completion_tokens`."""
    leave_out: tuple[Literal["max_tokens", "temperature", "seed"], ...] = ()
    """Parameters to omit because the server rejects them."""
    extra_body: dict[str, Any] = Field(default={})
    """Additional fields of a request, such as `{chat_template_kwargs: {enable_thinking: false}}` or
    `{reasoning_effort: low}`."""
    ask_again: int = Field(default=0, ge=0)
    """Number of times an unusable reply (cut, refused, filtered, empty) is requested again. Each retry is paid for. A
    retry after a cut reply may use twice as many tokens. If all retries fail, the rationale is dropped."""
    take: Literal["answer", "chain"] = "answer"
    """Text to use as the rationale: the visible answer, or the chain of thought of a reasoning model. If the chosen
    text is missing, the other one is used."""
    concurrency: int = Field(default=8, ge=1)
    """Largest number of requests in flight."""
    requests_per_minute: float | None = Field(default=None, gt=0.0)
    """Rate limit; `null` for none."""
    timeout_seconds: float = Field(default=120.0, gt=0.0)
    """Time limit of one whole attempt."""
    attempts: int = Field(default=8, ge=1)
    """Attempts per request before the run stops."""
    backoff_seconds: float = Field(default=1.0, ge=0.0)
    """First pause after a failure. It doubles after each further failure, with jitter. `Retry-After` may make it
    longer."""
    longest_pause_seconds: float = Field(default=60.0, ge=0.0)
    """Longest pause, even if the server requests a longer one."""
    price_in: float = Field(default=0.0, ge=0.0)
    """Price of a million prompt tokens, in any currency."""
    price_out: float = Field(default=0.0, ge=0.0)
    """Price of a million completion tokens."""
    budget: float | None = Field(default=None, gt=0.0)
    """Spending limit. The run stops cleanly before it would spend more; `null` for no limit."""

    @field_validator("extra_body")
    @classmethod
    def _no_own_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        own = sorted(value.keys() & {"model", "messages", "stream", "n"})
        if own:
            raise ValueError(f"must not set {', '.join(own)}: each request sets its own value")
        return value


class SelectionSettings(Settings):
    """Selection of rationales."""

    rule: Literal["guarded", "plain", "none"] = "guarded"
    """Rule that decides which rationales are kept. `plain`: those with a perplexity below the threshold, as in the
    paper. `guarded`: those that pass the lexical guards and that, after redaction of all mentions of the true item,
    still make the answer more likely and have a perplexity below the threshold. `none`: all complete rationales."""
    quantile: float = Field(default=0.5, gt=0.0, lt=1.0)
    """Share of the calibration rationales to keep; the paper uses the median. The guarded rule keeps fewer if too few
    pass the guards."""
    review_below: float = Field(default=1.3, ge=1.0)
    """With the guarded rule, a rationale with a perplexity below this value is too good to be true and goes to
    review."""
    most_leak_share: float = Field(default=0.5, ge=0.0)
    """Limit of the guarded rule for rationales that name a third or deeper category level absent from the history. Of
    the amount by which such a rationale lowers the answer's log-perplexity, at most this share may come from mentions
    of the item."""
    batch_size: int = Field(default=12, ge=1)
    """Texts scored together."""


class AuditSettings(Settings):
    """Sample sizes of the leakage audit."""

    controls: int = Field(default=48, ge=2)
    """Number of examples on which controls and decoys are scored."""
    decoys: int = Field(default=2, ge=1)
    """Decoys per example: other items of the target's category."""
    blind: int = Field(default=16, ge=0)
    """Number of examples for which the student also writes rationales, without seeing the answer. The blind gap is the
    lift of the teacher's rationales minus the lift of the student's. 0 skips this check."""
    resamples: int = Field(default=1000, ge=10)
    """Number of bootstrap resamples for the intervals."""
    worst: int = Field(default=5, ge=1)
    """Number of rationales in each list of the worst rationales."""


class ReviewSettings(Settings):
    """Review loop."""

    bar: int = Field(default=4, ge=1, le=5)
    """Lowest passing score, from 1 to 5. A reviewer passes a draft that scores at least this on each of the five axes
    (such as correctness and structure)."""
    agreement: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the reviewers that must pass a draft."""
    strikes: int = Field(default=5, ge=1)
    """Number of rejected drafts of one rationale after which a panel of further reviewers decides; without a panel, the
    rationale is rejected."""


class SFTSettings(Settings):
    """Supervised fine-tuning."""

    lora_rank: int = Field(default=16, ge=0)
    """Rank of the low-rank adapters; 0 trains all weights."""
    learning_rate: float = Field(default=2e-4, gt=0.0)
    """Learning rate. 2e-4 suits adapters; the paper trains all parameters on a million users with 1e-7."""
    epochs: float = Field(default=1.0, gt=0.0)
    """Number of passes over the kept rationales."""
    batch_size: int = Field(default=4, ge=1)
    """Rows per batch and device."""
    gradient_accumulation: int = Field(default=2, ge=1)
    """Number of batches per weight update."""
    warmup_share: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of the updates over which the learning rate warms up."""
    max_length: int = Field(default=1024, ge=64)
    """Longest prompt with completion, in tokens. A longer row is an error; it is never cut silently."""


class ReasoningSettings(Settings):
    """All settings of the package."""

    prompts: PromptSettings = PromptSettings()
    teacher: TeacherSettings = TeacherSettings()
    endpoint: EndpointSettings = EndpointSettings()
    selection: SelectionSettings = SelectionSettings()
    audit: AuditSettings = AuditSettings()
    review: ReviewSettings = ReviewSettings()
    sft: SFTSettings = SFTSettings()

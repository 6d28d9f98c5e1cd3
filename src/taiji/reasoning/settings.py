"""Settings of the reasoning package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from taiji.core.settings import Settings


class PromptSettings(Settings):
    """Content of prompts."""

    history_limit: int = Field(default=50, ge=1)
    """Upper limit of interactions in a prompt."""
    token_budget: int = Field(default=448, ge=64)
    """Longest student prompt in tokens, chat template included; the oldest interactions are left out first."""
    title_characters: int = Field(default=80, ge=8)
    """A longer title is cut at a word, in prompts and answers."""
    templates: Path | None = None
    """A folder with `student.j2` and `teacher.j2` (or `<domain>/student.j2`, …) that replace the packaged ones; with `answer: set` they are `student-set.j2` and `teacher-set.j2`."""
    answer: Literal["item", "set"] = "item"
    """An answer names the one next item, or a set of up to `intents` different ones. Give a set more room: `generation.max_new_tokens` and `alignment.max_completion_tokens`."""
    intents: int = Field(default=8, ge=2)
    """Set: upper limit of intents per answer (m)."""
    next_items: int = Field(default=10, ge=2)
    """Set: number of next items within the period (N) that the teacher sees, and that selection and rewards use as targets; those new to the user
    come first."""

    @property
    def most(self) -> int:
        """Upper limit of intents per answer: 1 for a single item."""
        return self.intents if self.answer == "set" else 1


class TeacherSettings(Settings):
    """The writer of rationales and its sampling."""

    kind: Literal["local", "writer", "endpoint"] = "local"
    """A language model in process, the rule-based writer, or an OpenAI-compatible endpoint."""
    rationales: int = Field(default=3, ge=1)
    """Rationales per prompt (k)."""
    answer_in_view: bool = True
    """Show the teacher the true next item (RUPR); without it the teacher predicts."""
    max_new_tokens: int = Field(default=64, ge=8)
    """Longest rationale, in tokens, of a local model; an endpoint has `reasoning.endpoint.max_tokens`."""
    temperature: float = Field(default=0.6, ge=0.0)
    """Sampling temperature; small models digress above it."""
    cut: Literal["drop", "shorten"] = "drop"
    """A local model's rationale cut by `max_new_tokens`: leave it out, or keep its complete sentences (left out if it has none)."""
    repetition_penalty: float = Field(default=1.1, ge=1.0)
    """Against the loops of small models; local models only."""
    batch_size: int = Field(default=24, ge=1)
    """Rationales written together by a local model."""


class EndpointSettings(Settings):
    """An OpenAI-compatible chat endpoint (vLLM, SGLang, Ollama, hosted ones)."""

    url: str = "http://127.0.0.1:8000/v1"
    """Base address; `/chat/completions` is appended."""
    model: str = "default"
    """The model's name at the endpoint."""
    key_variable: str = "TAIJI_TEACHER_KEY"
    """Environment variable that holds the key; if it is unset, requests carry none. The key is never written anywhere."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer, a reasoning model's chain included. A reply cut by it is not used."""
    max_tokens_name: str = "max_tokens"
    """The server's name of that parameter; some accept only `max_completion_tokens`."""
    leave_out: tuple[Literal["max_tokens", "temperature", "seed"], ...] = ()
    """Parameters not to send because the server rejects them."""
    extra_body: dict[str, Any] = Field(default={})
    """Further fields of a request, such as `{chat_template_kwargs: {enable_thinking: false}}` or `{reasoning_effort: low}`."""
    ask_again: int = Field(default=0, ge=0)
    """Retries for an unusable reply (cut, refused, filtered, empty), each paid for and, after a cut one, with twice the tokens; after that it is left
    out."""
    take: Literal["answer", "chain"] = "answer"
    """Text to use as the rationale: the visible answer (the chain when there is none), or a reasoning model's chain (the answer when there is
    none)."""
    concurrency: int = Field(default=8, ge=1)
    """Upper limit of requests in flight."""
    requests_per_minute: float | None = Field(default=None, gt=0.0)
    """Rate limit; `null` for none."""
    timeout_seconds: float = Field(default=120.0, gt=0.0)
    """Time for one whole attempt."""
    attempts: int = Field(default=8, ge=1)
    """Attempts per request before the run stops."""
    backoff_seconds: float = Field(default=1.0, ge=0.0)
    """First pause after a failure; doubled each time, with jitter; a `Retry-After` header overrides it when longer."""
    longest_pause_seconds: float = Field(default=60.0, ge=0.0)
    """Longest pause."""
    price_in: float = Field(default=0.0, ge=0.0)
    """Price of a million prompt tokens, in any currency."""
    price_out: float = Field(default=0.0, ge=0.0)
    """Price of a million completion tokens."""
    budget: float | None = Field(default=None, gt=0.0)
    """The run stops cleanly before it would spend more than this; `null` for no limit."""

    @field_validator("extra_body")
    @classmethod
    def _no_own_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        own = sorted(value.keys() & {"model", "messages", "stream", "n"})
        if own:
            raise ValueError(f"must not set {', '.join(own)}: each request has its own")
        return value


class SelectionSettings(Settings):
    """Selection of rationales."""

    rule: Literal["guarded", "plain", "none"] = "guarded"
    """`plain`: perplexity below the threshold, as the paper. `guarded`: masked perplexity, lift and the lexical guards too. `none`: every complete
    rationale."""
    quantile: float = Field(default=0.5, gt=0.0, lt=1.0)
    """The threshold keeps this share of the calibration rationales (guarded: if enough pass); the paper takes the median."""
    review_below: float = Field(default=1.3, ge=1.0)
    """Guarded: a lower perplexity is too good to be true, and goes to review."""
    most_leak_share: float = Field(default=0.5, ge=0.0)
    """Guarded: largest share of the help that may come from naming an unseen third category level."""
    batch_size: int = Field(default=12, ge=1)
    """Texts scored together."""


class AuditSettings(Settings):
    """Extent of the audit: the part of a data set that it scores again."""

    controls: int = Field(default=48, ge=2)
    """Examples on which the controls and decoys are scored."""
    decoys: int = Field(default=2, ge=1)
    """Other items of the target's category, per example."""
    blind: int = Field(default=16, ge=0)
    """Examples for which the student writes rationales without the answer; 0 leaves the blind gap out."""
    resamples: int = Field(default=1000, ge=10)
    """Bootstrap resamples of the intervals."""
    worst: int = Field(default=5, ge=1)
    """Examples to read in each list of the worst."""


class ReviewSettings(Settings):
    """The review loop."""

    bar: int = Field(default=4, ge=1, le=5)
    """Lowest acceptable score of an axis."""
    agreement: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the reviewers that must rate every axis at or above the bar."""
    strikes: int = Field(default=5, ge=1)
    """Drafts of a record before it goes to the panel."""


class SFTSettings(Settings):
    """Supervised fine-tuning."""

    lora_rank: int = Field(default=16, ge=0)
    """Rank of the low-rank adapters; 0 trains all weights."""
    learning_rate: float = Field(default=2e-4, gt=0.0)
    """Learning rate. 2e-4 suits adapters; the paper uses 1e-7 for all parameters and a million users."""
    epochs: float = Field(default=1.0, gt=0.0)
    """Passes over the kept rationales."""
    batch_size: int = Field(default=4, ge=1)
    """Rows per step and device."""
    gradient_accumulation: int = Field(default=2, ge=1)
    """Steps per weight update."""
    warmup_share: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of the updates over which the learning rate warms up."""
    max_length: int = Field(default=1024, ge=64)
    """Longest prompt with completion; a longer row is an error, never a silent cut."""


class ReasoningSettings(Settings):
    """The package's settings together."""

    prompts: PromptSettings = PromptSettings()
    teacher: TeacherSettings = TeacherSettings()
    endpoint: EndpointSettings = EndpointSettings()
    selection: SelectionSettings = SelectionSettings()
    audit: AuditSettings = AuditSettings()
    review: ReviewSettings = ReviewSettings()
    sft: SFTSettings = SFTSettings()

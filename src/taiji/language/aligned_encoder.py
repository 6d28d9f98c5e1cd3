"""Item embeddings from a causal LM that is trained on pairs of co-consumed items (QARM V2, arXiv 2602.08559).

The input sequence of an item is ``[text | <EMB> × n | question and answer]``. The EMB positions attend to the text. The
question and the answer attend to the EMB positions and to one another, but not to the text. All information that the
answer needs from the text must therefore pass through the embedding, which is the mean of the last hidden states at the
EMB positions. The loss is the in-batch InfoNCE of item pairs plus the next-token loss of the answers. Early in
training, the question and the answer also attend to the text, with a weight that falls to 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import nn
from torch.nn import functional

from taiji.core.artifacts import atomic_folder, read_json, value_hash, write_json
from taiji.core.errors import ArtifactError, InputError
from taiji.core.progress import progress
from taiji.core.settings import Settings
from taiji.language.causal_lm import LanguageModel, load_language_model, save_model, weights_version
from taiji.language.token_ids import continued, ids_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Array = NDArray[Any]
PADDING, TEXT, EMB, ANSWER = 0, 1, 2, 3
"""Segments of a sequence: padding, the item's text, the EMB positions, and the question with its answer."""
SEES = ((TEXT, TEXT), (EMB, TEXT), (EMB, EMB), (ANSWER, EMB), (ANSWER, ANSWER))
"""Pairs of segments. A position in the first segment may attend to earlier positions in the second, and to itself."""
IGNORED = -100
FILE = "aligned.json"


class AlignedSettings(Settings):
    """Settings of :class:`AlignedEncoder`."""

    places: PositiveInt = 3
    """Number of EMB positions per sequence."""
    text_tokens: PositiveInt = 64
    """Largest number of tokens read from an item's text."""
    answer_tokens: PositiveInt = 48
    """Largest number of tokens read from a question and its answer together."""
    steps: PositiveInt = 500
    """Number of training steps."""
    batch: PositiveInt = 32
    """Number of pairs per step."""
    rate: float = Field(default=1e-4, gt=0)
    """Learning rate of AdamW."""
    temperature: float = Field(default=0.05, gt=0)
    """Temperature of InfoNCE."""
    answer_weight: float = Field(default=1.0, ge=0)
    """Weight of the next-token loss of the answers."""
    warm: float = Field(default=0.3, ge=0, le=1)
    """Fraction of the training steps after which the question and the answer no longer attend to the text."""


@dataclass(frozen=True)
class Sequences:
    """Padded sequences, each attribute (B, T).

    Attributes:
        ids: token ids.
        segments: segment of each position.
        labels: ids of the answers; :data:`IGNORED` at all other positions.
    """

    ids: torch.Tensor
    segments: torch.Tensor
    labels: torch.Tensor


def sequences(
    texts: Sequence[Sequence[int]], places: int, answers: Sequence[tuple[Sequence[int], int]] | None = None
) -> Sequences:
    """Return ``[text | EMB × places | question, answer]`` for each item, padded at the end.

    Args:
        texts: ids of each text.
        places: number of EMB positions.
        answers: ids of question and answer, and the number of question ids.
    """
    rows = []
    for number, text in enumerate(texts):
        said, first = answers[number] if answers is not None else ([], 0)
        ids = [*text, *[0] * places, *said]
        segments = [TEXT] * len(text) + [EMB] * places + [ANSWER] * len(said)
        first = min(first, len(said))  # the question may have been truncated
        labels = [IGNORED] * (len(text) + places + first) + list(said[first:])
        rows.append((ids, segments, labels))
    length = max((len(ids) for ids, *_ in rows), default=0)
    fills = (0, PADDING, IGNORED)
    columns = [[[*row[k], *[fill] * (length - len(row[k]))] for row in rows] for k, fill in enumerate(fills)]
    return Sequences(*(torch.tensor(column, dtype=torch.int64).view(len(rows), length) for column in columns))


def segment_mask(segments: torch.Tensor, dtype: torch.dtype, text_weight: float = 0.0) -> torch.Tensor:
    """Return the additive attention mask, (B, 1, T, T).

    It is 0 where a position may attend, log λ from answers to the text, and the most negative number elsewhere.

    Args:
        segments: (B, T).
        dtype: dtype of the logits.
        text_weight: factor λ in [0, 1] on the attention from answers to the text before normalisation; 0 masks it.
    """
    query, key = segments.unsqueeze(2), segments.unsqueeze(1)
    length = segments.shape[1]
    order = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    sees = torch.zeros(segments.shape[0], length, length, dtype=torch.bool, device=segments.device)
    for who, what in SEES:
        sees |= (query == who) & (key == what)
    sees = (sees & order) | torch.eye(length, dtype=torch.bool, device=segments.device)  # padding attends to itself
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
    if text_weight > 0:
        mask = mask.masked_fill((query == ANSWER) & (key == TEXT), float(np.log(text_weight)))
    return mask.unsqueeze(1)


def info_nce(
    first: torch.Tensor, second: torch.Tensor, items: torch.Tensor, others: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the in-batch InfoNCE loss, averaged over the batch and over both directions.

    Args:
        first, second: (B, d) vectors of the pairs.
        items, others: (B,) dense item ids of the two sides. An item that occurs twice in the batch, on the same side or
            on both, is not its own negative.
        temperature: number by which the cosine similarities are divided.
    """
    logits = functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T / temperature
    own = torch.eye(len(items), dtype=torch.bool, device=logits.device)
    repeated = (others.unsqueeze(0) == others.unsqueeze(1)) | (items.unsqueeze(0) == items.unsqueeze(1))
    same = (repeated | (items.unsqueeze(1) == others.unsqueeze(0))) & ~own
    logits = logits.masked_fill(same, torch.finfo(logits.dtype).min)
    target = torch.arange(len(items), device=logits.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


class AlignedEncoder:
    """Encoder of item texts, an :class:`taiji.language.embed.Embedder`.

    Attributes:
        model: causal LM.
        tokenizer: tokenizer of the model.
        places: (n, hidden) learnt input embeddings of the EMB positions.
        settings: sizes and training settings.
        version: hash of everything on which a vector depends.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        places: torch.Tensor,
        settings: AlignedSettings,
        name: str = "aligned",
    ) -> None:
        self.model, self.tokenizer, self.settings, self.name = model, tokenizer, settings, name
        self.places = nn.Parameter(places)
        self.dimension = int(places.shape[1])
        self.version = self._version()

    @classmethod
    def start(cls, lm: LanguageModel, settings: AlignedSettings | None = None, seed: int = 0) -> AlignedEncoder:
        """Return an untrained encoder, whose EMB inputs are initialised with embeddings of randomly drawn tokens."""
        settings, model = settings or AlignedSettings(), lm.master()
        table = model.get_input_embeddings().weight.detach()  # type: ignore[union-attr, operator]
        chosen = torch.from_numpy(np.random.default_rng(seed).integers(0, len(table), settings.places))
        return cls(model, lm.tokenizer, table[chosen.to(table.device)].clone(), settings)

    def _version(self) -> str:
        places = self.places.detach().cpu().numpy().tobytes().hex()
        return value_hash([weights_version(self.model, self.tokenizer), places, self.settings.text_tokens])[:16]

    def forward(self, batch: Sequences, text_weight: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the vectors (B, d) and the mean next-token loss of the answers (0 if there are none)."""
        device = self.places.device
        ids, segments, labels = (values.to(device) for values in (batch.ids, batch.segments, batch.labels))
        inputs = self.model.get_input_embeddings()(ids)  # type: ignore[misc, operator]
        emb = (segments == EMB).unsqueeze(2)
        inputs = inputs.masked_scatter(emb, self.places.repeat(len(ids), 1).to(inputs.dtype))
        out = self.model(
            inputs_embeds=inputs,
            attention_mask=segment_mask(segments, inputs.dtype, text_weight),
            position_ids=torch.arange(ids.shape[1], device=device).expand_as(ids),
            output_hidden_states=True,
            use_cache=False,
        )
        states = out.hidden_states[-1]
        vectors = (states * emb).sum(dim=1) / self.settings.places
        told = labels[:, 1:] != IGNORED
        if not bool(told.any()):
            return vectors, vectors.new_zeros(())
        return vectors, functional.cross_entropy(out.logits[:, :-1][told], labels[:, 1:][told])

    def fit(
        self,
        texts: Sequence[str],
        pairs: tuple[Array, Array],
        answers: Sequence[tuple[str, str]] | None = None,
        seed: int = 0,
    ) -> AlignedEncoder:
        """Train all weights on pairs of items.

        Args:
            texts: texts of all items.
            pairs: dense ids of the first and the second item of each pair, each (P,), from the training log.
            answers: a question and its answer for each item.
            seed: seed of the batches.

        Raises:
            InputError: there are no pairs, or the number of answers is not the number of items.
        """
        first, second = (np.asarray(side, np.int64) for side in pairs)
        if not len(first) or (answers is not None and len(answers) != len(texts)):
            raise InputError(
                "The pairs or the answers do not fit the texts.",
                where="pairs, answers",
                expected=f"at least one pair, and {len(texts)} answers or none",
                found=f"{len(first)} pairs, {'no' if answers is None else len(answers)} answers",
            )
        s, random = self.settings, np.random.default_rng(seed)
        weights = [*self.model.parameters(), self.places]
        optimiser = torch.optim.AdamW(weights, lr=s.rate, weight_decay=0.0)
        self.model.train()
        with torch.random.fork_rng(devices=[]), progress("Aligning", s.steps, "steps") as update:
            torch.manual_seed(seed)
            for step in range(s.steps):
                chosen = random.integers(0, len(first), min(s.batch, len(first)))
                loss = self._loss(texts, first[chosen], second[chosen], answers, text_weight(step, s.steps, s.warm))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(weights, 1.0)
                optimiser.step()
                update(step + 1)
        self.model.eval()
        self.version = self._version()
        return self

    def _loss(
        self,
        texts: Sequence[str],
        first: Array,
        second: Array,
        answers: Sequence[tuple[str, str]] | None,
        weight: float,
    ) -> torch.Tensor:
        items = np.concatenate([first, second]).tolist()
        said = None if answers is None else [self._answer(*answers[item]) for item in items]
        vectors, answered = self.forward(self._sequences([texts[item] for item in items], said), weight)
        ours, theirs = vectors.chunk(2)
        own, other = (torch.from_numpy(side).to(vectors.device) for side in (first, second))
        return info_nce(ours, theirs, own, other, self.settings.temperature) + self.settings.answer_weight * answered

    def _sequences(self, texts: Sequence[str], answers: Sequence[tuple[Sequence[int], int]] | None = None) -> Sequences:
        ids = [ids_of(self.tokenizer, text)[: self.settings.text_tokens] for text in texts]
        return sequences(ids, self.settings.places, answers)

    def _answer(self, question: str, answer: str) -> tuple[list[int], int]:
        """Return the ids of question and answer with an end token, and the number of question ids."""
        both = continued(self.tokenizer, question, answer)
        end = self.tokenizer.eos_token_id
        ids = [*both.ids, *([end] if isinstance(end, int) else [])]
        return ids[: self.settings.answer_tokens], both.first

    def encode(self, texts: Sequence[str]) -> Array:
        """Return vectors (N, d) float32 of length 1; zero for an empty or blank text."""
        texts = list(texts)
        order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: (len(texts[i]), i))
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        with progress("Embedding", len(order), "texts") as update, torch.inference_mode():
            for start in range(0, len(order), 64):
                part = order[start : start + 64]
                found = functional.normalize(self.forward(self._sequences([texts[i] for i in part]))[0].float(), dim=1)
                vectors[part] = found.cpu().numpy()
                update(start + len(part))
        return vectors

    def save(self, folder: str | Path) -> None:
        """Write the model, its tokenizer, the EMB inputs and the settings, atomically."""
        from safetensors.numpy import save_file

        with atomic_folder(folder) as temporary:
            save_model(self.model, self.tokenizer, temporary / "model")
            save_file({"places": self.places.detach().cpu().numpy()}, temporary / "places.safetensors")
            write_json(temporary / FILE, {"settings": self.settings.model_dump(mode="json"), "version": self.version})

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> AlignedEncoder:
        """Read an encoder that :meth:`save` wrote.

        Raises:
            ArtifactError: the encoder differs from the one that was saved.
        """
        from safetensors.numpy import load_file

        folder = Path(folder)
        config = read_json(folder / FILE)
        lm = load_language_model(folder / "model", "float32", device)
        places = torch.from_numpy(load_file(folder / "places.safetensors")["places"]).to(lm.device)
        made = cls(lm.model, lm.tokenizer, places, AlignedSettings.model_validate(config["settings"]), str(folder))
        if made.version != config["version"]:
            raise ArtifactError(
                "The encoder on disk differs from the one that was saved.",
                where=str(folder),
                expected=config["version"],
                found=made.version,
                fix="align it again; codes computed from other vectors have a different meaning",
            )
        return made


def text_weight(step: int, steps: int, warm: float) -> float:
    """Return λ of :func:`segment_mask` at a step. It falls linearly from 1 to 0 in the first ``warm * steps`` steps."""
    return max(0.0, 1.0 - step / (warm * steps)) if warm > 0 else 0.0

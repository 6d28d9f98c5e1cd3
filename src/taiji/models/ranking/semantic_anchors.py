"""SARM (arXiv 2602.09401): a text encoder for items is trained with the ranker, and replaced by a lookup in serving.

The encoder (:mod:`taiji.nn.semantic_encoder`) reads the text of an item in two tokenizations and returns h_CLS and
h_TAR. A memory bank M holds the encodings of all texts. The texts of the items in the user's history, each in its
version at the time of the interaction, give h_UIN = mean(Transformer(M_CLS)). A mixture of experts predicts from all
inputs and these vectors. The loss is

    L = L(tasks) + λ L(tasks; MLP[h_CLS, h_TAR]).

Token embeddings are initialised at random, or with WordLlama's vectors and the principal components of the tokens'
co-occurrences in the texts (:mod:`taiji.language.token_context`). Each training step encodes the texts of its
candidates and writes the encodings into the bank. After training, all encodings are looked up.

Deviations from the paper:

- Two kinds of inputs are added, because a tower of this size does not learn them: the product h_CLS ⊙ (h_UIN + W u),
  where u is the user's embedding; and the inner products of the ``match_heads`` parts of h_CLS and h_UIN.
- h_UIN is a mean over the history and ``history_prior`` zero vectors. At the start of training, the transformer is the
  identity, so h_UIN is a mean of centred rows of the bank.
- The bank has one row per version of an item's text, so that no exposure is scored with a text written after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator
from torch import nn

from taiji.core.artifacts import value_hash
from taiji.core.errors import ConfigError, ResourceError
from taiji.data.dataset import Dataset
from taiji.data.field_set import Arrays, FieldSet, Layout
from taiji.data.fields import Field as InputField
from taiji.data.fields import NumbersField, Rows
from taiji.data.tasks import Task
from taiji.data.text_versions import TextVersions, is_column, text_versions
from taiji.data.vocabulary import stable_hash
from taiji.language.embed import wordllama_is_there
from taiji.language.term_merges import FIRST, TwoTokenizers
from taiji.language.token_vectors import numbered, started_tokenizers, term_vectors
from taiji.models.ranking.default_fields import default_fields
from taiji.models.ranking.ranker import BATCH, Ranker
from taiji.models.ranking.ranking_network import Network
from taiji.models.ranking.settings import NeuralRankerSettings
from taiji.nn.field_embeddings import Batch
from taiji.nn.flat_inputs import FlatInputs
from taiji.nn.lookup import look_up
from taiji.nn.rotary import turns
from taiji.nn.semantic_encoder import (
    AnchorTexts,
    MemoryBank,
    RotaryBlock,
    SemanticEncoder,
    StartedEncoder,
    TokenStart,
    mean_there,
)
from taiji.nn.towers import MixtureOfExperts

Array = NDArray[Any]
Start = Literal["auto", "wordllama", "random"]
TEXT, PAST = "anchor", "anchor_history"
"""Names of the field of the candidate's text and of the field of the history's texts."""
SAMPLE = 10_000
"""Largest number of training rows from which the constants of :meth:`SemanticAnchorsNetwork.match` are computed."""
MOST = 2**24
"""Limit on the number of text versions: not all larger integers are exact in float32."""


class SemanticAnchorsSettings(NeuralRankerSettings):
    """Settings of SARM."""

    model: str = "semantic_anchors"
    texts: str = ""
    """Source of the item texts: empty for title and categories; a template of columns of the item table, such as
    `"{title}, sold by {store}"`; a column of the item table, such as `knowledge`, which the stage `item_knowledge`
    writes; or, for texts that change over time, a column of the events whose value is known at display."""
    start: Start = "auto"
    """Initial token embeddings: `wordllama` (with WordLlama's own tokenizer), `random` (with a learnt tokenizer), or
    `auto` (WordLlama if its package is installed)."""
    context: NonNegativeInt = 16
    """Number of principal components of token co-occurrences to append to WordLlama's token vectors, see
    :mod:`taiji.language.token_context`."""
    tokens: PositiveInt = 48
    """Largest number of tokens read per text."""
    pieces: NonNegativeInt = 2000
    """Largest number of merges of the general tokenizer, if it is learnt (`start: random`)."""
    terms: NonNegativeInt = 1000
    """Largest number of merges of general tokens into domain terms."""
    text_width: PositiveInt = 32
    """Width of the text encoder; must be even."""
    text_layers: PositiveInt = 2
    """Number of layers of the text encoder (4 in the paper)."""
    experts: PositiveInt = 3
    """Number of experts of the tower."""
    pace: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    """Factor ρ of the transformer's contribution to h_UIN and, with WordLlama's vectors, of the learnt contribution to
    h_CLS (:class:`taiji.nn.semantic_encoder.StartedEncoder`)."""
    match_heads: PositiveInt = 4
    """Number of parts of h_CLS and h_UIN whose inner products are inputs, each with its own scale; must divide
    `text_width`."""
    history_prior: float = Field(default=10.0, ge=0, allow_inf_nan=False)
    """Number of zero vectors included in the mean over a history, so that a short history has less influence than a
    long one; 0 is the paper's mean."""
    auxiliary_weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Weight λ of the loss of the predictions that use only the candidate's text."""

    @field_validator("text_width")
    @classmethod
    def _pairs(cls, value: int) -> int:
        if value % 2:
            raise ValueError("text_width must be even, because rotary positions rotate pairs")
        return value

    @model_validator(mode="after")
    def _heads(self) -> SemanticAnchorsSettings:
        if self.text_width % self.match_heads:
            raise ValueError("match_heads must divide text_width")
        return self


class AnchorText(NumbersField):
    """Field with the index of the item's text version at the time of the row; 0 if the item had no text yet.

    Args:
        source: source of the texts, see :func:`taiji.data.text_versions.text_versions`.
        pieces, terms: largest numbers of merges, see :class:`SemanticAnchorsSettings`.
        start: initial token embeddings, see :attr:`SemanticAnchorsSettings.start`.
        context: number of principal components of co-occurrences, see :attr:`SemanticAnchorsSettings.context`.
    """

    learnt = ("merges", "vocabulary", "start_used")

    def __init__(
        self, source: str = "", pieces: int = 2000, terms: int = 1000, start: Start = "auto", context: int = 16
    ) -> None:
        super().__init__(TEXT, "pair")
        self.source, self.pieces, self.terms, self.start, self.context = source, pieces, terms, start, context
        self.options = {"source": source, "pieces": pieces, "terms": terms, "start": start, "context": context}
        self.start_used: Start = "random"
        self.start_vectors: dict[str, Array] = {}
        self.merges: list[list[list[str]]] = [[], []]
        self.vocabulary: list[list[str]] = [[], []]
        self.versions: TextVersions | None = None
        self._saved: Mapping[str, Array] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of the field."""
        return (self.name,)

    def bind(self, dataset: Dataset) -> TextVersions:
        """Read the text versions of a dataset, or the saved versions if the dataset lacks their column. Use them for
        later rows, and return them.

        Raises:
            ResourceError: there are more text versions than a float32 can number.
        """
        there = is_column(dataset, self.source) or not self._saved
        self.versions = text_versions(dataset, self.source) if there else TextVersions.restore(self._saved, dataset)
        if len(self.versions) >= MOST:
            raise ResourceError(
                "There are too many text versions.",
                where=f"ranking.texts: {self.source}",
                expected=f"fewer than {MOST}",
                found=str(len(self.versions)),
                fix="use a column that changes less often",
            )
        return self.versions

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Learn both tokenizations from the texts that existed before ``until`` (microseconds).

        Raises:
            ConfigError: no text existed before ``until``.
        """
        versions = self.bind(dataset)
        versions.check(rows, until, f"ranking.texts: {self.source or 'titles and categories'}")
        known = [text for text, since in zip(versions.texts, versions.since) if since < until]
        if not known:
            raise ConfigError(
                "The items have no texts.",
                where=f"ranking.texts: {self.source or 'titles and categories'}",
                expected="texts of items before the end of training",
                found=f"{len(versions)} texts, all later" if len(versions) else "none",
                fix="use a column with texts, or choose another ranking.model",
            )
        started = self.start == "wordllama" or (self.start == "auto" and wordllama_is_there())
        self.start_used = "wordllama" if started else "random"
        if started:
            found, self.start_vectors = started_tokenizers(known, self.terms, self.context)
        else:
            distinct = list(dict.fromkeys(known))
            found, self.start_vectors = TwoTokenizers.learn(distinct, self.pieces, self.terms), {}
        self.merges = [[list(pair) for pair in pairs] for pairs in (found.pieces, found.terms)]
        self.vocabulary = [list(found.general), list(found.domain)]
        self._saved = versions.tensors(dataset)

    def tensors(self) -> dict[str, Array]:
        """Return the texts and the initial vectors, so that a saved ranker contains everything that a service needs."""
        return {**self._saved, **{f"start_{name}": values for name, values in self.start_vectors.items()}}

    def restore(self, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        """Restore the field from :meth:`config` and :meth:`tensors`."""
        super().restore(config, tensors)
        self.start_vectors = {
            name.removeprefix("start_"): v for name, v in tensors.items() if name.startswith("start_")
        }
        self._saved = {name: values for name, values in tensors.items() if not name.startswith("start_")}

    def matrix(self, rows: Rows) -> Array:
        """Return the index of each row's text version, (N, 1) float32."""
        versions = self.bind(rows.dataset) if self.versions is None else self.versions
        return versions.at(rows.item, rows.time)[:, None].astype(np.float32)

    @property
    def tokenizers(self) -> TwoTokenizers:
        """Both learnt tokenizations."""
        pieces, terms = (tuple((first, second) for first, second in pairs) for pairs in self.merges)
        apart = self.start_used != "random"
        return TwoTokenizers(pieces, terms, tuple(self.vocabulary[0]), tuple(self.vocabulary[1]), apart)

    @property
    def token_start(self) -> TokenStart | None:
        """Initial token vectors of the encoder; None for random initialisation."""
        if not self.start_vectors:
            return None
        parts = [self.start_vectors[name] for name in ("general", "context") if name in self.start_vectors]
        general = np.concatenate(parts, axis=1)
        vectors = (numbered(general), numbered(term_vectors(self.tokenizers, general)))
        centre, scale, axes = (self.start_vectors[name] for name in ("centre", "scale", "axes"))
        made = [torch.from_numpy(np.ascontiguousarray(v, dtype=np.float32)) for v in (*vectors, centre, scale, axes)]
        near = self.start_vectors.get("context_axes")
        return TokenStart(
            general=made[0], domain=made[1], centre=made[2], scale=made[3], axes=made[4],
            context_axes=None if near is None else torch.from_numpy(near),
        )  # fmt: skip


class AnchorHistory(NumbersField):
    """Field with the indices of the text versions of the user's last items, each at the time of its interaction, newest
    interaction first; 0 without a text or an interaction.

    Args:
        source: source of the texts, see :func:`taiji.data.text_versions.text_versions`.
        length: number of interactions.
    """

    def __init__(self, source: str = "", length: int = 20) -> None:
        super().__init__(PAST, "user")
        self.source, self.length = source, length
        self.options = {"source": source, "length": length}
        self.versions: TextVersions | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per interaction."""
        return tuple(f"{self.name}[{place}]" for place in range(self.length))

    def matrix(self, rows: Rows) -> Array:
        """Return the indices, (N, length) float32."""
        if self.versions is None:
            self.versions = text_versions(rows.dataset, self.source)
        items, times = rows.dataset.history.before_batch(rows.user, rows.time, self.length)
        return self.versions.at(items, times).astype(np.float32)


class SemanticAnchorsNetwork(Network[SemanticAnchorsSettings]):
    """Network of experts over all inputs, the candidate's text and the texts of the history, with an auxiliary head.

    The outputs are the O outputs of the tasks from all inputs, followed by O outputs from the candidate's text alone,
    for the auxiliary loss. ``encoder`` maps tokens (N, T) in both tokenizations and item embeddings (N, item) to
    [h_CLS, h_TAR] (N, 2 d), 0 for a blank text. The encoder can be replaced by another module before training.

    Args:
        layout: layout of the inputs; its last numbers are those of :class:`AnchorHistory` and :class:`AnchorText`.
        outputs: total number O of outputs of all tasks.
        settings: settings of the model.
        texts: texts of the items.
    """

    text_general: torch.Tensor
    text_domain: torch.Tensor
    text_items: torch.Tensor
    cosines: torch.Tensor
    sines: torch.Tensor
    centre: torch.Tensor
    match_scale: torch.Tensor

    def __init__(self, layout: Layout, outputs: int, settings: SemanticAnchorsSettings, texts: AnchorTexts) -> None:
        super().__init__(layout, 2 * outputs, settings)
        own = sum(name == TEXT or name.startswith(f"{PAST}[") for name in layout.numbers)
        self.others = len(layout.numbers) - own
        rest = replace(layout, numbers=layout.numbers[: self.others])
        self.inputs = FlatInputs(rest, settings.dimension, settings.bins, pooled=True)
        width, item = settings.text_width, settings.dimension
        self.texts = len(texts.keys)
        self.register_buffer("text_general", texts.general, persistent=False)
        self.register_buffer("text_domain", texts.domain, persistent=False)
        self.register_buffer("text_items", texts.items, persistent=False)
        layers = settings.text_layers
        sizes = (texts.general_tokens, texts.domain_tokens, width, layers, item)
        self.encoder: nn.Module = (
            SemanticEncoder(*sizes) if texts.start is None else StartedEncoder(*sizes, texts.start, settings.pace)
        )
        self.bank = MemoryBank(texts.keys, 2 * width)
        self.user = RotaryBlock(width)
        for last in (self.user.out.weight, self.user.second.weight, self.user.second.bias):
            nn.init.zeros_(last)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("match_scale", torch.ones(settings.match_heads))
        cosines, sines = turns(torch.arange(own - 1), width, torch.zeros(()))
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self.taste = nn.Linear(item, width, bias=False)
        total = self.inputs.out_width + 4 * width + settings.match_heads
        self.tower = MixtureOfExperts(total, outputs, settings.hidden, settings.dropout, settings.experts)
        self.wide = nn.Linear(total, outputs, bias=False)
        nn.init.zeros_(self.wide.weight)
        self.alone = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, 2 O): from all inputs, then from the candidate's text alone."""
        return self.penalised(batch)[0]

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (B, 2 O), and the penalty: mean over rows of the squared norms of user and item embeddings."""
        numbers, width = batch["numbers"], self.settings.text_width
        anchor = numbers[:, -1].long().clamp(0, self.texts - 1)
        flat, items, penalty = self.inputs(batch | {"numbers": numbers[:, : self.others]})
        if self.training:
            target = self.learnt(anchor, look_up(items, batch["item"])[:, : self.settings.dimension])
        else:
            target = look_up(self.bank.rows, anchor)
        user = self.pooled(numbers[:, self.others : -1].long().clamp(0, self.texts - 1))
        taste = user + self.taste(self.inputs.embeddings.users(batch))
        joined = torch.cat([flat, target, user, target[:, :width] * taste, self.match(target, user)], dim=1)
        return torch.cat([self.tower(joined) + self.wide(joined), self.alone(target)], dim=1), penalty

    def learnt(self, anchors: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return the encoder's output (B, 2 d), and write it into the bank. Each distinct text is encoded only once.

        Args:
            anchors: (B,) indices of texts.
            items: (B, item) embeddings of their items.
        """
        distinct, place = anchors.unique(return_inverse=True)
        first = torch.zeros_like(distinct).scatter_(0, place, torch.arange(len(place), device=place.device))
        longest = max(1, int((self.text_general[distinct] != 0).sum(dim=1).max()))
        general, domain = self.text_general[distinct, :longest], self.text_domain[distinct, :longest]
        found: torch.Tensor = self.encoder(general, domain, items[first])
        self.bank.outdated()
        self.bank.write(distinct, found)
        return look_up(found, place)

    def encoded(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the encoder's output (n, 2 d) for the texts with the given indices (n,)."""
        items = self.inputs.embeddings.item(self.text_items[numbers])
        return self.encoder(self.text_general[numbers], self.text_domain[numbers], items)  # type: ignore[no-any-return]

    def refresh(self) -> None:
        """Recompute the rows of the bank that were not encoded with the current weights."""
        self.bank.refresh(self.encoded)

    def pooled(self, past: torch.Tensor) -> torch.Tensor:
        """Return h_UIN (R, d) from the bank, for text indices (R, L) of the history; 0 for an empty history."""
        there = past != 0
        read = look_up(self.bank.rows, past)[:, :, : self.settings.text_width] - self.centre
        moved = self.user(read, there, (self.cosines, self.sines)) - read
        return mean_there(read + self.settings.pace * moved, there, self.settings.history_prior)

    def match(self, target: torch.Tensor, user: torch.Tensor) -> torch.Tensor:
        """Return the inner products of the parts of the centred h_CLS with the same parts of h_UIN, (B, heads), divided
        by their standard deviations at the start of training.

        Args:
            target: (B, 2 d) encodings of candidates.
            user: (B, d) h_UIN.
        """
        products = (target[:, : self.settings.text_width] - self.centre) * user
        return products.unflatten(1, (self.settings.match_heads, -1)).sum(dim=2) * self.match_scale

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers, vectors and inner products from training rows. Fill the bank, because histories
        may read texts that have not yet occurred as candidates."""
        self.inputs.prepare(replace(arrays, numbers=arrays.numbers[:, : self.others]))
        self.refresh()
        read = arrays.numbers[np.linspace(0, len(arrays.numbers) - 1, min(SAMPLE, len(arrays.numbers))).astype(int)]
        numbers = torch.from_numpy(read[:, self.others :]).to(self.centre.device).long()
        with torch.no_grad():
            target = look_up(self.bank.rows, numbers[:, -1])
            self.centre.copy_(target[:, : self.settings.text_width].mean(dim=0))
            found = self.match(target, self.pooled(numbers[:, :-1]))
            self.match_scale.copy_(1 / found.std(dim=0).clamp_min(1e-6))


class SemanticAnchorsRanker(Ranker):
    """Ranker with semantic anchors; see :class:`SemanticAnchorsNetwork`."""

    Settings = SemanticAnchorsSettings
    settings: SemanticAnchorsSettings
    network_class = SemanticAnchorsNetwork
    network: SemanticAnchorsNetwork

    def fields(self, dataset: Dataset, columns: Sequence[str]) -> list[InputField]:
        """Return the default fields, followed by the two text fields."""
        s = self.settings
        own = [AnchorHistory(s.texts, s.history), AnchorText(s.texts, s.pieces, s.terms, s.start, s.context)]
        return [*default_fields(dataset, columns, s), *own]

    def build(
        self, dataset: Dataset, fieldset: FieldSet, tasks: Sequence[Task], device: str | None = None
    ) -> SemanticAnchorsRanker:
        """Create the network for the texts of the dataset, and bind it to the dataset."""
        past, text = fieldset.numbers[-2:]
        assert isinstance(past, AnchorHistory) and isinstance(text, AnchorText)
        past.versions = text.bind(dataset)
        texts = self.read(dataset, text, past.versions)
        rows = torch.from_numpy(fieldset.item_id.codes(dataset, dataset.items)[:, 0])
        self._texts = replace(texts, items=rows[texts.items])
        super().build(dataset, fieldset, tasks, device)
        return self

    def read(self, dataset: Dataset, text: AnchorText, versions: TextVersions) -> AnchorTexts:
        """Return the texts of the dataset as input of the encoder. Override this for an encoder with other inputs."""
        texts = anchor_texts(dataset, versions, text.tokenizers, self.settings.tokens)
        return replace(texts, start=text.token_start)

    def make_network(self) -> SemanticAnchorsNetwork:
        """Return a new network for the texts of the dataset."""
        return self.network_class(self.layout, sum(task.outputs for task in self.tasks), self.settings, self._texts)

    def step_loss(
        self, chunk: Arrays, index: NDArray[np.int64], outputs: torch.Tensor, group: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the loss with all inputs, plus λ times the loss with the candidate's text alone."""
        labels, half = self.step_labels(chunk, index), outputs.shape[1] // 2
        return self.loss(outputs, labels, group) + self.settings.auxiliary_weight * self.loss(
            outputs[:, half:], labels, group
        )

    def logits(self, arrays: Arrays, batch: int = BATCH) -> NDArray[np.float64]:
        """Bring the bank up to date, and return the uncalibrated outputs of the network, (N, 2 O) float64."""
        self.network.refresh()
        return super().logits(arrays, batch)

    def _evaluating(self) -> None:
        super()._evaluating()
        self.network.refresh()

    def staleness(self) -> NDArray[np.float64]:
        """Return the distance of each row of the bank from the encoder's current output, (n,), as a multiple of the
        mean length of the bank's rows. It is 0 except during training."""
        bank = self.network.bank
        found = bank.staleness(self.network.encoded)[1:] / bank.rows[1:].norm(dim=1).mean().clamp_min(1e-12)
        return found.double().cpu().numpy()  # type: ignore[no-any-return]

    @property
    def version(self) -> str:
        """Hash of weights, calibration and settings. It excludes the bank, which follows from the weights and texts."""
        tensors = [(k, v.numpy().tobytes().hex()) for k, v in sorted(self._tensors().items()) if ".bank." not in k]
        return value_hash([self._config(), tensors])[:16]

    def save(self, folder: str | Path) -> None:
        """Write weights, bank and settings. After loading, texts that are missing from the saved bank are encoded."""
        self.network.refresh()
        super().save(folder)


def anchor_texts(dataset: Dataset, versions: TextVersions, tokenizers: TwoTokenizers, length: int) -> AnchorTexts:
    """Return the text versions as token indices, with the items and keys that the encoder and the bank need.

    Args:
        dataset: the catalogue.
        versions: versions of the item texts.
        tokenizers: learnt tokenizers.
        length: largest number of tokens read per text.
    """
    distinct = {text: place for place, text in enumerate(dict.fromkeys(versions.texts))}
    read = np.array([tokenizers.numbers(text, length) for text in distinct]).reshape(-1, 2, length)
    tokens = np.zeros((1 + len(versions), 2, length), dtype=np.int64)
    tokens[1:] = read[[distinct[text] for text in versions.texts]]
    names = dataset.items["item_id"].cast(pl.String).gather(versions.items.tolist()).to_list()
    keys = stable_hash([f"{name}\n{text}" for name, text in zip(names, versions.texts)])
    return AnchorTexts(
        general=torch.from_numpy(tokens[:, 0].copy()),
        domain=torch.from_numpy(tokens[:, 1].copy()),
        items=torch.from_numpy(np.append(0, versions.items)),
        keys=torch.from_numpy(np.append(np.zeros(1, keys.dtype), keys).astype(np.int64)),
        general_tokens=FIRST + len(tokenizers.general),
        domain_tokens=FIRST + len(tokenizers.domain),
    )

"""Generative retrieval: a transformer decodes the codes of the next item, and only items that may be shown are decoded.

The plain decoder is TIGER (arXiv 2305.05065). Settings turn it into OneLive, OneMall, S²GR or DualGR. Deviations from
TIGER are listed in ``docs/papers.md``, and deviations from the other papers in ``docs/systems``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from taiji.core.component import NO_ITEM, Requests, Slate, pick_device
from taiji.core.errors import ConfigError, InputError
from taiji.core.settings import problem_text
from taiji.data.dataset import Dataset
from taiji.data.history import History
from taiji.models.codes.code_log import CodeLog
from taiji.models.codes.coder import Coder, coder_class
from taiji.models.codes.collisions import extended_codes, unique_codes
from taiji.models.codes.dynamic import DynamicCodes
from taiji.models.codes.item_codes import ItemCodes
from taiji.models.codes.trie import CodeTrie, LiveTrie, PrunedTrie, checked
from taiji.models.retrieval.code_network import BeamScorer, CodeNetwork, Past, RequestAttributes
from taiji.models.retrieval.code_scenarios import column_of, numbers_of, scenario_of_requests, scenarios_of
from taiji.models.retrieval.code_settings import CodeDecoderSettings
from taiji.models.retrieval.code_training import CodeTraining
from taiji.models.retrieval.item_factors import item_factors
from taiji.models.retrieval.retriever import CatalogueRetriever, seen_items
from taiji.models.retrieval.top_items import top_items
from taiji.models.retrieval.vector_retriever import to_numpy
from taiji.nn.beam_search import beam_search
from taiji.nn.devices import on_device
from taiji.nn.time_encoding import time_features

Array = NDArray[Any]
REQUESTS, CELLS = 256, 8_000_000
"""Largest number of requests decoded at a time, and largest number of log-probabilities of codes held in memory. With
large levels or beams, fewer requests are decoded at a time."""


class CodeDecoder(CatalogueRetriever):
    """Generative retriever.

    The score of an item is the log-probability of its codes given the history. With ``collisions: list``, the score
    also includes the logarithm of the item's share in the popularity of all items with the same codes. Codes that lead
    to no permitted item are never decoded.

    Args:
        settings: settings of the decoder.
        codes: (n_items, L) codes of the training dataset's items, as an array or as
            :class:`taiji.models.codes.item_codes.ItemCodes`. By default, the coder named in the settings computes them.
            Codes that change over time are passed as :class:`taiji.models.codes.dynamic.DynamicCodes`, and need
            ``collisions: list``.
        vectors: (n_items, d) vectors that the coder encodes; by default item factors of the training interactions.

    If codes change over time, an interaction is represented, as input and as target, by the codes that its item had at
    the time of the interaction. A request decodes the codes that are valid at the time of the request. An item without
    codes at that time cannot be retrieved.

    Attributes:
        code_log: codes of the catalogue over time.
        trie: trie of the catalogue's codes; if codes change over time, trie of the latest codes.
        network: network that decodes the codes.
    """

    Settings = CodeDecoderSettings
    settings: CodeDecoderSettings

    def __init__(
        self,
        settings: CodeDecoderSettings | None = None,
        codes: ItemCodes | DynamicCodes | Array | None = None,
        vectors: Array | None = None,
    ) -> None:
        super().__init__(settings)
        self.given, self.vectors = codes, vectors
        self._rows: pl.DataFrame | None = None

    def fit(
        self, dataset: Dataset, rows: pl.DataFrame | None = None, *, seed: int = 0, device: str | None = None
    ) -> Self:
        """Fit to interactions and, with ``skip_weight``, to exposures without a click."""
        self._rows = dataset.events if rows is None else rows
        if self.settings.scenario:
            self.facts["scenarios"] = scenarios_of(self._rows, self.settings.scenario)
        try:
            return super().fit(dataset, rows, seed=seed, device=device)
        finally:
            self._rows = None

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Encode the items, and train with early stopping on the held-out last interactions."""
        popularity = np.bincount(history.items, minlength=len(self.places))
        assert self._rows is not None
        log, sizes, self.facts["codes_version"] = self._codes(history, seed)
        codes = log.codes
        if self.settings.collisions == "level":
            if log.changes:
                raise ConfigError(
                    "Codes that change over time cannot have a further level for items with equal codes.",
                    where="collisions",
                    expected="list",
                    found="level",
                    fix="set collisions: list, so that items with equal codes share a leaf",
                )
            codes = unique_codes(codes, popularity)
            log = CodeLog.constant(codes)
        self.facts["told_apart"] = codes.shape[1] > len(sizes)
        self.facts["sizes"] = [*sizes, *(int(most) + 1 for most in codes.max(axis=0)[len(sizes) :])]
        self._take(log, popularity)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(device)
            self.facts["checks"] = CodeTraining(self, self._rows, seed).run()

    def _codes(self, history: History, seed: int) -> tuple[CodeLog, tuple[int, ...], str]:
        """Return the codes of the catalogue's items over time, the sizes of the levels, and the version of the coder
        ("" if unknown)."""
        given, count = self.given, len(self.places)
        if isinstance(given, DynamicCodes):
            return self._log_of(given), given.coders[-1].sizes, given.version
        rows = given if given is not None else self.vectors
        if rows is not None:
            self._check_rows(len(rows), count)
        if isinstance(given, ItemCodes):
            return CodeLog.constant(given.table), given.sizes, given.version
        if given is not None:
            codes = checked(given)
            return CodeLog.constant(codes), tuple(int(most) + 1 for most in codes.max(axis=0)), ""
        vectors = self.vectors
        if vectors is None:
            vectors = item_factors(history, count, self.settings.vector_width, seed)
        coder = self._coder().fit(vectors, seed=seed)
        return CodeLog.constant(coder.encode(vectors)), coder.sizes, coder.version

    def _log_of(self, codes: DynamicCodes) -> CodeLog:
        """Return the codes that the current coder assigned, with their times.

        Raises:
            InputError: the coder assigned no codes, or assigned codes to an item that the catalogue lacks.
        """
        log, count = codes.log_of_version, len(self.places)
        if not len(log.items) or log.items.min() < 0 or log.items.max() >= count:
            raise InputError(
                "The codes do not match the catalogue.",
                where="CodeDecoder",
                expected=f"codes of the current coder, of items 0 to {count - 1}",
                found=f"items {log.items.min()} to {log.items.max()}" if len(log.items) else "none",
            )
        return log

    @staticmethod
    def _check_rows(found: int, expected: int) -> None:
        if found != expected:
            raise InputError(
                "The codes or vectors do not match the catalogue.",
                where="CodeDecoder",
                expected=f"one row for each of the {expected} items of the dataset",
                found=f"{found} rows",
            )

    def _coder(self) -> Coder:
        """Return the unfitted coder that the settings name.

        Raises:
            ConfigError: no coder has this name, or the coder does not accept the given settings.
        """
        kind = coder_class(self.settings.coder, "coder")
        try:
            return kind(kind.Settings.model_validate(self.settings.coder_settings))
        except ValidationError as error:
            problem = error.errors()[0]
            raise ConfigError(
                "The settings do not match the coder.",
                where=".".join(["coder_settings", *map(str, problem["loc"])]),
                expected=f"settings of {self.settings.coder}: {', '.join(kind.Settings.model_fields)}",
                found=problem_text(problem),
            ) from error

    def vectors_of_assignments(self, history: History, seed: int) -> Array:
        """Return one vector (T, d) per assignment of codes in :attr:`code_log`: the vector that was passed for the
        item, or by default the item factors of ``history``.

        The items of ``history`` are positions in :attr:`code_log`.
        """
        if self.vectors is not None and len(self.vectors) == len(self.places):
            return self.vectors[self.code_log.items]
        return item_factors(history, len(self.code_log.items), self.settings.vector_width, seed)

    @property
    def item_codes(self) -> Array:
        """Codes (T, L) of all assignments in :attr:`code_log`. If codes never change, these are the codes of the
        catalogue's items."""
        return self.code_log.codes

    def assignments(self, items: Array, times: Array) -> Array:
        """Return the position in :attr:`code_log` of the codes that are valid for each item of the dataset at the given
        time; −1 for an item without codes.

        The shape of ``times`` must broadcast to the shape of ``items``.
        """
        return self.code_log.last(np.where(items >= 0, self.codes[items], -1), times)

    def _take(self, log: CodeLog, popularity: Array) -> None:
        self.code_log, self.popularity = log, popularity
        self._last_trie: tuple[int, Any, Array] = -1, None, np.zeros(0, bool)
        self.trie, _ = self._trie_at(len(log.ticks))
        self._live = {"": LiveTrie(self.trie)}

    def _trie_at(self, tick: int) -> tuple[CodeTrie, Array]:
        """Return the trie of the codes after the first ``tick`` ticks, and a mask (N,) of items with codes. Ticks are
        the times at which codes change. The last trie is cached."""
        last, trie, coded = self._last_trie  # read and replaced as a whole, because several threads use it
        if last != tick:
            place = self.code_log.at_tick(tick, len(self.places))
            coded = place >= 0
            codes = np.where(coded[:, None], self.code_log.codes[np.maximum(place, 0)], 0)
            trie = CodeTrie.of(codes, tuple(self.facts["sizes"]), np.where(coded, self.popularity, -1))
            self._last_trie = tick, trie, coded
        return trie, coded

    def _build(self, device: str | None) -> None:
        self.device = pick_device(device or self.settings.device)
        scenarios = len(self.facts.get("scenarios", [])) + 1
        self.network = CodeNetwork(self.trie.sizes, self.settings, scenarios).to(self.device)

    def weights(self) -> dict[str, Array]:
        """Return the item codes, the popularity of the items and the network's weights."""
        learnt = {name: to_numpy(value) for name, value in self.network.state_dict().items()}
        log = {"code_times": self.code_log.times, "code_items": self.code_log.items} if self.code_log.changes else {}
        return {"codes": self.item_codes, **log, "popularity": self.popularity, **learnt}

    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Restore the retriever from :meth:`weights`."""
        learnt = dict(weights)
        codes = learnt.pop("codes")
        changing = "code_times" in learnt
        log = (
            CodeLog(learnt.pop("code_times"), learnt.pop("code_items"), codes) if changing else CodeLog.constant(codes)
        )
        self._take(log, learnt.pop("popularity"))
        self._build(device)
        self.network.load_state_dict({name: torch.from_numpy(value) for name, value in learnt.items()})
        self.network.eval()

    def recoded(self, dataset: Dataset, codes: ItemCodes | DynamicCodes | Array) -> Self:
        """Return a copy for a later catalogue, in which items may be new or have new codes. The copy shares the
        network.

        Args:
            dataset: dataset to which the result is bound.
            codes: (n_items, L) codes of the dataset's items, or their codes over time. The fit may have added a last
                level that distinguishes items with equal codes. If ``codes`` lack this level, it is added here. An item
                that was in the fit, and whose other codes are unchanged, keeps its last code. Every other item gets a
                last code that is not in use, or the level's highest code if all are in use. Items whose codes are still
                equal share a leaf.

        Raises:
            InputError: the codes come from a different coder, or their levels do not match those of the fit.
        """
        learnt = self.facts["codes_version"]
        if not isinstance(codes, np.ndarray) and learnt and codes.version != learnt:
            raise InputError(
                "The codes come from a different coder than the decoder's.",
                where="recoded",
                expected=f"codes of version {learnt}",
                found=codes.version,
                fix="encode the items with the coder that the decoder was fitted with, or fit again",
            )
        made = self.bound_to(dataset)
        made._bind(dataset, dataset.items["item_id"])
        popularity = np.bincount(dataset.history.items, minlength=dataset.n_items)
        sizes = tuple(self.facts["sizes"])
        if isinstance(codes, DynamicCodes):
            log = made._log_of(codes)
            checked(log.codes, sizes)
        else:
            table = codes.table if isinstance(codes, ItemCodes) else codes
            made._check_rows(len(table), dataset.n_items)
            log = CodeLog.constant(self._told_apart(table, popularity, dataset.items["item_id"]))
        made._take(log, popularity)
        return made

    def _told_apart(self, codes: Array, popularity: Array, item_ids: pl.Series) -> Array:
        """Return the codes of a later catalogue with the levels of the fit. If the fit added a last level and ``codes``
        lack it, it is added. Items whose other codes are unchanged keep their code in this level, because the network
        has learnt it."""
        sizes = tuple(self.facts["sizes"])
        if codes.shape[1:] == (len(sizes) - 1,) and self.facts["told_apart"]:
            codes = checked(codes, sizes[:-1])
            own = pl.DataFrame({"item_id": self.item_ids}).with_row_index("row")
            found = item_ids.to_frame("item_id").join(own, on="item_id", how="left", maintain_order="left")["row"]
            before, known = self.item_codes[found.fill_null(0).to_numpy()], found.is_not_null().to_numpy()
            same = known & (before[:, :-1] == codes).all(axis=1)
            codes = extended_codes(codes, np.where(same, before[:, -1], -1), popularity)
            codes[:, -1] = np.minimum(codes[:, -1], sizes[-1] - 1)
        return checked(codes, sizes)

    # Retrieval.

    def scores(self, requests: Requests) -> Array:
        """Return the log-probability (B, N) of every item, by a beam search as wide as the catalogue. This is exact,
        but slow for a large catalogue."""
        out = np.full((len(requests), len(self.places)), -np.inf)
        size = self._at_a_time(len(self.places))
        for tick, rows in _positions(self.code_log.tick(requests.time)):
            trie, coded = self._trie_at(tick)
            whole = LiveTrie(trie, coded).without(np.zeros(0, np.int64), np.zeros(0, np.int64))
            for some in np.split(rows, range(size, len(rows), size)):
                row, items, values = self._decode(requests.take(some), whole, len(self.places))
                out[some[row], items] = values
        return out

    def _retrieve(self, requests: Requests, k: int) -> Slate:
        """Return the ``k`` best items of each request, by beam search over the codes of the items that may be shown.

        A beam narrower than ``k`` is doubled until it is wide enough. Because the width changes only by doubling, lists
        of different lengths mostly come from the same beam width.
        """
        width, beam = min(k, len(self.places)), self.settings.beam
        while beam < width:
            beam *= 2
        items, scores = np.full((len(requests), width), NO_ITEM), np.zeros((len(requests), width))
        size = self._at_a_time(beam)
        for pool, tick, rows in self._groups(requests):
            for some in np.split(rows, range(size, len(rows), size)):
                slate = self._best_decoded(requests.take(some), width, beam, pool, tick)
                items[some], scores[some] = slate.items, slate.scores
        return Slate(np.where(items >= 0, self.places[items], NO_ITEM), scores)

    def _at_a_time(self, beam: int) -> int:
        """Return the number of requests to decode together."""
        return max(1, min(REQUESTS, CELLS // (beam * max(self.trie.sizes))))

    def _groups(self, requests: Requests) -> Iterator[tuple[str, int, Array]]:
        """Yield groups of requests that decode the same pool of items with the same codes: name of the pool ("" without
        pools), tick, and positions (R,) of the requests."""
        pools = np.full(len(requests), "")
        if self.settings.pool:
            pools = scenario_of_requests(requests, self.settings.scenario)
        for pool, rows in _positions(pools):
            for tick, part in _positions(self.code_log.tick(requests.time[rows])):
                yield pool, tick, rows[part]

    def _best_decoded(self, requests: Requests, k: int, beam: int, pool: str, tick: int) -> Slate:
        """Return the ``k`` best items of a pool, in the model's own indices, decoded with the codes that are valid
        after ``tick`` ticks."""
        row, items, values = self._decode(requests, self._shown(requests, pool, tick), beam)
        counts = np.bincount(row, minlength=len(requests))
        column = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = len(requests), max(k, int(counts.max(initial=0)))
        table, found = np.full(shape, -np.inf), np.full(shape, NO_ITEM)
        table[row, column], found[row, column] = values, items
        best = top_items(table, k)
        return Slate(np.where(best.mask, np.take_along_axis(found, best.items, axis=1), NO_ITEM), best.scores)

    def _shown(self, requests: Requests, pool: str, tick: int) -> PrunedTrie:
        """Return a trie of the codes after ``tick`` ticks that is restricted, for each request, to the items of the
        pool that may be shown.

        If all requests have the same time, unavailable items are removed from a live trie, which is kept between calls.
        Only items whose state has changed since the previous call are updated in it.
        """
        rows, hidden = np.zeros(0, np.int64), np.zeros(0, np.int64)
        trie, coded = self._trie_at(tick)
        shown = coded & ~self._gone
        if self.settings.pool:
            home = column_of(self.dataset.items, self.settings.pool, "items").to_numpy().astype(str)[self.places]
            shown &= (home == pool) | (home == "")
        if self.availability.bounded and len(requests) and requests.time.min() < requests.time.max():
            rows, hidden = self._hidden(requests)
        else:
            if self.availability.bounded and len(requests):
                shown &= self.availability.at(requests.time[:1])[0, self.places]
            if not self.keeps_seen:
                rows, seen = seen_items(self.dataset.history, requests)
                known = self.codes[seen] >= 0
                rows, hidden = rows[known], self.codes[seen][known]
        live = self._live.get(pool, self._live[""])
        live = live.moved(shown) if live.trie is trie else LiveTrie(trie, shown)
        self._live = {**self._live, pool: live}  # replaced as a whole, because other threads may still use the old one
        return live.without(rows, hidden)

    def _decode(self, requests: Requests, shown: PrunedTrie, beam: int) -> tuple[Array, Array, Array]:
        """Return all items in the final beams: request indices in ascending order, items and scores, each (C,)."""
        past, seen, asked = self.past(requests)
        self.network.eval()
        with torch.no_grad():
            scorer = BeamScorer(self.network, self.network.read(past), seen, asked)
            leaves, values = beam_search(scorer, shown.children, len(requests), self.trie.levels, beam)
        row, column = np.nonzero(leaves.numpy() >= 0)
        place, items = shown.items(row, leaves.numpy()[row, column])
        scores = values.cpu().numpy().astype(np.float64)[row, column]
        return row[place], items, scores[place] + shown.trie.log_shares[items]

    def past(self, requests: Requests) -> tuple[Past, torch.Tensor, RequestAttributes]:
        """Return the requests' histories, the lengths (B,) of these histories, and the requests' other attributes (B,
        1, …)."""
        s = self.settings
        found, found_times = self.dataset.history.before_batch(requests.user, requests.time, s.history + s.long_history)
        own = self.assignments(found, found_times)
        known = own >= 0
        order = np.argsort(~known, axis=1, kind="stable")  # items known to the model, newest first
        own, times = (np.take_along_axis(values, order, axis=1) for values in (own, found_times))
        recent, long = own[:, : s.history], own[:, s.history :]
        seen = (recent >= 0).sum(axis=1)
        width = int(seen.max(initial=0))
        back = seen[:, None] - 1 - np.arange(width)
        inside = back >= 0
        items = np.where(inside, np.take_along_axis(recent, np.maximum(back, 0), axis=1), 0) if width else recent[:, :0]
        then = np.take_along_axis(times, np.maximum(back, 0), axis=1) if width else times[:, :0]
        features = request_features = prompt = None
        if s.time:
            previous = np.concatenate([then[:, :1], then[:, :-1]], axis=1)
            features = self._tensor(time_features(then, previous))
            last = np.where(seen > 0, times[:, 0], requests.time)
            request_features = self._tensor(time_features(requests.time, last)[:, None])
        if s.scenario:
            numbers = numbers_of(scenario_of_requests(requests, s.scenario), self.facts["scenarios"])
            prompt = self._tensor(numbers[:, None])
        return self.past_of(items, features, long), self._tensor(seen), RequestAttributes(request_features, prompt)

    def past_of(self, items: Array, times: torch.Tensor | None, long: Array) -> Past:
        """Return the network's input from the recent interactions ``items`` (R, n), oldest first, and the earlier
        interactions ``long`` (R, m), newest first.

        Interactions are given as positions in :attr:`code_log`, padded with −1. ``times`` are the time features (R, n,
        5) of the recent interactions.
        """
        mask, codes = None, None
        if self.settings.long_history:
            mask, codes = self._tensor(long >= 0), self._tensor(self.item_codes[np.maximum(long, 0)])
        return Past(self._tensor(self.item_codes[np.maximum(items, 0)]), times, codes, mask)

    def _tensor(self, values: Array) -> torch.Tensor:
        return on_device(values, self.device)


def _positions(values: Array) -> list[tuple[Any, Array]]:
    """Return each distinct value of an array (R,) with the positions at which it occurs."""
    return [(value, np.flatnonzero(values == value)) for value in np.unique(values).tolist()]

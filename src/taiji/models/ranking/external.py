"""External rankers for rewards or evaluation: Python callables and HTTP endpoints. For ONNX files, see ``onnx_ranker``.

An external ranker receives the original ids of the tables, and times as ``datetime`` (UTC, without time zone). The
classes have the method ``score_pairs`` and the attribute ``version``, like the built-in ranker.
"""

from __future__ import annotations

import http.client
import importlib
import json
import logging
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from taiji.core.artifacts import file_hash, value_hash
from taiji.core.errors import ConfigError, InputError, ResourceError
from taiji.core.foreign_json import parsed
from taiji.core.http_retry import Backoff, TransientError, is_transient, retry_after
from taiji.core.progress import progress
from taiji.data.dataset import Dataset
from taiji.models.ranking.settings import ExternalSettings

EPOCH = datetime(1970, 1, 1)
MANY = 100
"""Smallest number of pairs for which identical scores are suspicious."""
log = logging.getLogger(__name__)


class PairScorer(Protocol):
    """Interface of a reward ranker or an evaluation ranker."""

    @property
    def version(self) -> str:
        """String that changes whenever scores may change."""

    def score_pairs(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return the scores (N,) float64 of (user, item, time), given as dense ids and microseconds, each (N,)."""


class ExternalRanker(ABC):
    """Base class of external rankers. It translates dense ids, splits pairs into batches, and checks the scores.

    Args:
        dataset: dataset that maps dense ids to the original ids of the tables.
        settings: batch size, timeout and attempts.
    """

    source: str

    def __init__(self, dataset: Dataset, settings: ExternalSettings | None = None) -> None:
        self.settings = settings or ExternalSettings()
        self._doubted = False
        self.users, self.items = dataset.users["user_id"], dataset.items["item_id"]

    @abstractmethod
    def ask(self, users: list[Any], items: list[Any], instants: list[datetime]) -> Any:
        """Return one score per pair of a batch, in any form that numpy converts to an array.

        Args:
            users, items: original ids, (N,) each.
            instants: times in UTC, without time zone, (N,).
        """

    def score_pairs(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return the scores (N,) float64 of (user, item, time), given as dense ids and microseconds, each (N,).

        Raises:
            InputError, ResourceError: the ranker cannot be reached, fails, or does not return one finite number per
                pair.
        """
        out = np.zeros(len(users))
        with progress(f"Scores of {self.source}", total=len(users), unit="pairs") as update:
            for start in range(0, len(users), self.settings.batch):
                part = slice(start, start + self.settings.batch)
                instants = [EPOCH + timedelta(microseconds=int(time)) for time in times[part]]
                answer = self.ask(
                    self.users.gather(users[part]).to_list(), self.items.gather(items[part]).to_list(), instants
                )
                out[part] = self._checked(answer, len(instants))
                update(start + len(instants))
        self._doubt(out)
        return out

    def _doubt(self, scores: np.ndarray) -> None:
        """Warn once about scores that are valid but uninformative."""
        if self._doubted or len(scores) < MANY:
            return
        found = np.unique(scores)
        if len(found) == 1:
            what = f"all {len(scores)} pairs have the score {found[0]:.4g}, which gives no order"
        elif len(found) == 2 and set(found) <= {-1.0, 0.0, 1.0}:
            what = f"all {len(scores)} scores are {found[0]:.0f} or {found[1]:.0f}: are they labels rather than probabilities?"
        else:
            return
        self._doubted = True
        log.warning("%s: %s", self.source, what)

    def _checked(self, answer: Any, number: int) -> np.ndarray:
        try:
            if np.asarray(answer).dtype == bool:
                raise InputError(
                    "The ranker returns labels instead of scores.",
                    where=self.source,
                    expected="numbers, the larger the better",
                    found="true and false",
                    fix="return the probability, as predict_proba does",
                )
            scores = np.asarray(answer, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise InputError(
                "The ranker's response is not a list of numbers.", where=self.source, found=str(error)[:200]
            ) from error
        bad = int((~np.isfinite(scores)).sum())
        if len(scores) != number or bad:
            raise InputError(
                "The ranker must return one finite number per pair.",
                where=self.source,
                expected=f"{number} numbers",
                found=f"{len(scores)} numbers, {bad} of them not finite",
            )
        return scores


class CallableRanker(ExternalRanker):
    """Ranker that calls ``function(user_ids, item_ids, times) -> scores``, named as ``module:function``.

    The version is the function's ``__version__`` if it has one, otherwise a hash of its module's file.
    """

    def __init__(self, dataset: Dataset, name: str, settings: ExternalSettings | None = None) -> None:
        super().__init__(dataset, settings)
        self.source = name
        module, _, function = name.partition(":")
        try:
            self.function = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                "Could not import the ranker.",
                where=name,
                expected="module:function that can be imported from this environment",
                found=str(error),
                fix="check the name, and that the folder of the module is on PYTHONPATH",
            ) from error
        file = getattr(importlib.import_module(module), "__file__", None)
        self.version = str(
            getattr(self.function, "__version__", "") or (file_hash(file)[:16] if file else value_hash(name)[:16])
        )

    def ask(self, users: list[Any], items: list[Any], instants: list[datetime]) -> Any:
        """Call the function."""
        try:
            return self.function(users, items, instants)
        except Exception as error:
            raise ResourceError(
                "The ranker failed.", where=self.source, found=f"{type(error).__name__}: {error}"
            ) from error


class HttpRanker(ExternalRanker):
    """Ranker behind an HTTP endpoint.

    A request POSTs ``{"user_ids": […], "item_ids": […], "as_ofs": [ISO 8601, UTC …]}`` and expects ``{"scores": […]}``.
    Timeouts, connection errors, and the status codes 408, 409, 425, 429 and 5xx are retried with increasing pauses;
    other errors are not retried. The version is the ``version`` in the response if it has one, otherwise the version in
    the settings, otherwise a hash of the URL.
    """

    def __init__(self, dataset: Dataset, url: str, settings: ExternalSettings | None = None) -> None:
        super().__init__(dataset, settings)
        self.source = url
        self.version = self.settings.version or value_hash(url)[:16]

    def ask(self, users: list[Any], items: list[Any], instants: list[datetime]) -> Any:
        """Send one request; retry after a transient error."""
        payload = {"user_ids": users, "item_ids": items, "as_ofs": [instant.isoformat() + "Z" for instant in instants]}
        body = json.dumps(payload, default=str).encode()
        request = urllib.request.Request(
            self.source, data=body, headers={"Content-Type": "application/json"}, method="POST"
        )
        try:
            answer = Backoff(self.settings.attempts, self.settings.pause).run(lambda: self._attempt(request))
        except TransientError as error:
            raise ResourceError(
                "The ranker does not respond.",
                where=self.source,
                expected=f"a response within {self.settings.timeout:g} s",
                found=f"{error} ({self.settings.attempts} attempts)",
                fix="check that it is running and that the address is correct; or raise own_ranker.external.timeout",
            ) from error
        return self._scores(answer)

    def _attempt(self, request: urllib.request.Request) -> bytes:
        try:
            with urllib.request.urlopen(request, timeout=self.settings.timeout) as response:
                body: bytes = response.read()
                return body
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code}: {error.read()[:200].decode(errors='replace')}"
            if is_transient(error.code):
                raise TransientError(problem, retry_after(error.headers.get("Retry-After"))) from error
            raise ResourceError("The ranker rejected the request.", where=self.source, found=problem) from error
        except (TimeoutError, OSError, http.client.HTTPException) as error:
            raise TransientError(str(getattr(error, "reason", error)) or type(error).__name__) from error

    def _scores(self, body: bytes) -> Any:
        try:
            answer = parsed(body)
            scores = answer["scores"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                "The ranker's response cannot be read.",
                where=self.source,
                expected='JSON {"scores": [numbers]}',
                found=body[:200].decode(errors="replace"),
            ) from error
        self.version = str(answer.get("version", self.version))
        return scores


def open_ranker(source: str, dataset: Dataset, settings: ExternalSettings | None = None) -> PairScorer:
    """Open an external or saved ranker, depending on the form of ``source``.

    Args:
        source: ``http://…`` or ``https://…``; a file ending in ``.onnx``; a folder that ``Ranker.save`` wrote; or
            ``module:function``.
        dataset: dataset whose users and items are scored.
        settings: settings of external rankers.
    """
    if source.startswith(("http://", "https://")):
        return HttpRanker(dataset, source, settings)
    if source.endswith(".onnx"):
        from taiji.models.ranking.onnx_ranker import OnnxRanker

        return OnnxRanker(dataset, source, settings)
    if Path(source).is_dir():
        from taiji.models.ranking.train import load_ranker

        return load_ranker(source, dataset)
    return CallableRanker(dataset, source, settings)

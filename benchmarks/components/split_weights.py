"""How much cheaper is ranking if the request's part of the network is computed once (MaRI), and are predictions equal?

Nothing is learnt, and the predictions are the same with and without the split, so there is no world and no twin. Rows
by ``arm``:

- ``N candidates, U:I``: one layer over U request columns and I candidate columns. ``FLOP ratio of the layer`` is the
  number of operations without the split divided by that with it, next to its ``formula``; ``time ratio`` is the same
  for elapsed time, with an activation and a head.
- ``interleaved, 16 segments a side``: the columns of both sides alternate in 16 segments each, with one matrix product
  per segment, as if weights were split without rearranging them first. ``time over neat`` is its time divided by that
  of two products, one per side.
- ``one request, 1000 candidates, vector of 1536``: milliseconds of the default ranker with split weights, with the
  request encoded once but the network whole, and with one row per candidate; and the ratio of the second of these times
  to the first.

Checks: the ratio of operations equals the formula; predictions differ by at most 1e-5; and, in a full run, the ranker
with split weights takes at most half the time of one row per candidate.

    python -m benchmarks.components --only split_weights [--quick] [--json benchmarks/results/split_weights.json]
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from benchmarks.components.comparison import Component
from benchmarks.harness import Result, in_turn, median_ratio
from taiji.core.component import Requests, Slate
from taiji.data.dataset import Dataset
from taiji.models.ranking.graph_colours import Sides, trace
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.split_weights import flops, split_weights
from taiji.models.ranking.target_attention import TargetAttentionRanker
from taiji.testing import exposures_of
from taiji.world.settings import ShopSettings
from taiji.world.shop import Shop

SIDES = Sides(like="item", rows="user", tiled=frozenset({"user"}))
CANDIDATES, VECTOR, SEGMENTS = 1000, 1536, 16


class Fusion(nn.Module):
    """One layer over the concatenation of request and candidate, and a head."""

    def __init__(self, user: int, item: int, hidden: int) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(user + item, hidden), nn.Linear(hidden, 1)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return logits."""
        return self.head(torch.relu(self.layer(torch.cat([batch["user"], batch["item"]], dim=1))))  # type: ignore[no-any-return]


def exact(result: Result, quick: bool) -> None:
    """Run all three parts."""
    grid(result, quick)
    layouts(result, quick)
    service(result, quick)


def grid(result: Result, quick: bool) -> None:
    """Measure one layer, by number of candidates and widths of its inputs."""
    for rows, user, item in [(2000, 400, 40)] if quick else [(200, 400, 40), (2000, 400, 40), (2000, 100, 100)]:
        network = Fusion(user, item, 128).eval()
        example = {"user": torch.randn(2, user), "item": torch.randn(6, item)}
        split = split_weights(network, example, SIDES)
        batch = {"user": torch.randn(1, user), "item": torch.randn(rows, item)}
        whole = {**batch, "user": batch["user"].expand(rows, user)}
        with torch.inference_mode():
            plain, once = in_turn(
                lambda network=network, whole=whole: network(whole),
                lambda split=split, batch=batch: split.score(split.encode(batch), batch),
                repeats=10 if quick else 50,
                warmup=3,
            )
        before = flops(trace(network, ("user", "item")), network, whole) - 2 * rows * 128
        after = flops(split.joint.graph, split.joint, batch) - 2 * rows * 128
        formula = rows * (user + item) / (user + rows * item)
        where = {"component": "split_weights", "arm": f"{rows} candidates, {user}:{item}"}
        result.rows.append({**where, "metric": "FLOP ratio of the layer", "value": before / after, "formula": formula})
        result.rows.append({**where, "metric": "time ratio", "value": median_ratio(plain, once)})
        result.at_most(
            f"{where['arm']}: difference of the FLOP ratio from the formula", abs(before / after - formula), 1e-9
        )


def layouts(result: Result, quick: bool) -> None:
    """Compare one product per side with one product per segment, if the columns of both sides alternate."""
    rows, user, item, hidden = 2000, 640, 160, 128
    u, i = torch.randn(1, user), torch.randn(rows, item)
    own, theirs = torch.randn(hidden, user), torch.randn(hidden, item)
    us, iis, owns, theirss = (part.chunk(SEGMENTS, dim=1) for part in (u, i, own, theirs))

    def neat() -> torch.Tensor:
        return u @ own.T + i @ theirs.T

    def interleaved() -> torch.Tensor:
        request, total = torch.zeros(1, hidden), torch.zeros(rows, hidden)
        for a, b, c, d in zip(us, owns, iis, theirss):
            request, total = torch.addmm(request, a, b.T), torch.addmm(total, c, d.T)
        return request + total

    torch.testing.assert_close(neat(), interleaved(), rtol=1e-3, atol=1e-3)
    with torch.inference_mode():
        fast, slow = in_turn(neat, interleaved, repeats=10 if quick else 50, warmup=3)
    result.rows.append(
        {"component": "split_weights", "arm": f"interleaved, {SEGMENTS} segments a side", "metric": "time over neat",
         "value": median_ratio(slow, fast)}
    )  # fmt: skip


def service(result: Result, quick: bool) -> None:
    """Measure a ranker with a long text vector and a long history, on one request with many candidates, as in
    ``/v1/rank``."""
    random = np.random.default_rng(0)
    dataset = Dataset.from_tables(Shop(ShopSettings(users=200, tail=800, days=30), 0).tables())
    rows = exposures_of(dataset).head(3000)
    vectors = random.normal(size=(dataset.n_users, VECTOR)).astype(np.float32)
    frame = rows.with_columns(vector=pl.Series(vectors[rows["user"].to_numpy()].tolist(), dtype=pl.List(pl.Float32)))
    settings = RankerSettings(min_steps=5, text_width=512, hidden=(256, 64), history=50, device="cpu")
    ranker = TargetAttentionRanker(settings).fit(dataset, frame, seed=0)
    whole = TargetAttentionRanker(settings.model_copy(update={"split_weights": False}))
    whole.__dict__.update({**ranker.__dict__, "settings": whole.settings})
    user, time = int(rows["user"][-1]), int(rows["time"][-1]) + 1
    items = random.integers(0, dataset.n_items, CANDIDATES)
    vector = np.empty(1, dtype=object)
    vector[0] = vectors[user]
    asked = Requests(np.array([user]), np.array([time]), {"vector": vector})
    tiled = pl.DataFrame(
        {"user": np.full(CANDIDATES, user), "item": items, "time": np.full(CANDIDATES, time),
         "vector": pl.Series([vectors[user].tolist()] * CANDIDATES, dtype=pl.List(pl.Float32))}
    )  # fmt: skip

    def by_request(scorer: Ranker) -> Any:
        return scorer.score(scorer.encode(asked), Slate(items[None]))[scorer.goal][0]

    expected = whole.predict(tiled)[whole.goal].to_numpy()
    result.at_most(
        "largest difference between split and whole predictions",
        float(np.abs(by_request(ranker) - expected).max()),
        1e-5,
    )
    split, encoded, rowwise = in_turn(
        lambda: by_request(ranker), lambda: by_request(whole), lambda: whole.predict(tiled), repeats=5 if quick else 21
    )
    where = {"component": "split_weights", "arm": f"one request, {CANDIDATES} candidates, vector of {VECTOR}"}
    for name, seconds in (
        ("split", split),
        ("whole network, request encoded once", encoded),
        ("a row per candidate", rowwise),
    ):
        result.rows.append({**where, "metric": f"ms, {name}", "value": 1e3 * statistics.median(seconds)})
    result.rows.append({**where, "metric": "encoded once over split", "value": median_ratio(encoded, split)})
    if not quick:
        result.at_least("scoring a row per candidate over split, time", median_ratio(rowwise, split), 2.0)


COMPONENT = Component(
    claim="the request side of a ranker is computed once",
    metric="",
    arms={},
    data=lambda place, seed, quick: None,
    exact=exact,
)

"""Does it help to know several behaviours when purchases are predicted, and does FatsMB's diffusion improve on its
encoder?

The log is userbehavior-multibehavior of Taobao: favourites, carts and purchases, without page views. It is reduced to
items with at least 20 events before the test period and to users with at least 5 events on these items. The last two
days are the test period. Each user who buys something in it and has earlier events gives one request, at the user's
first event of the period. The targets are the user's purchases from then on. The whole catalogue is ranked.

FatsMB has two parts. Its encoder reads the history; the behaviour of each event scales ("as factors") the queries and
keys of the attention. Its diffusion starts from the encoder's output and samples the user's preference for purchases.

Rows, by ``arm``:

- ``encoder, behaviours as factors`` and ``encoder, no behaviours``: the encoder alone, with and without behaviours.
- ``diffusion, guidance, own experts``: the complete model, which the checks call *the whole*. It adds to the encoder
  the diffusion, classifier-free guidance, and experts for each behaviour.
- ``diffusion``: the complete model without guidance and without these experts.
- ``whole, masking as released``: the complete model with one part of the released code, which hides the behaviour from
  the diffusion's condition in training, but not in sampling. In our correction it is hidden in both.
- ``SASRec``: a retriever that does not read behaviours. ``bought most``: popularity of purchases.

Equal for all trained arms: learning rate, batch size, number of negatives, history length and validation users.
Training of the encoder and of SASRec stops when NDCG@10 on the validation users, who are from the training days, no
longer improves, after 100 epochs at most. A diffusion starts from the encoder of the same seed; it is trained for 30
epochs, and then its head for 3 at most. SASRec has about as many parameters as the complete model, and the two encoders
have about equally many. Nothing is tuned. Models are smaller than the papers', so that they can be trained on a CPU.

Columns: ``R@20`` and ``N@10`` are recall@20 and NDCG@10, means over users and seeds. In the columns with ``new`` in
their name, items that the user had seen before the test period are neither ranked nor targets. ``R@20 minus encoder``
(with ``low`` and ``high``, a 95 % interval) is the arm's R@20 minus that of the encoder with behaviours, paired by
user; ``R@20 minus SASRec`` likewise. ``distinct`` is the number of different items in the first ten places of a user's
lists over 20 draws of the diffusion's noise. ``CPU seconds`` is the mean per seed of training and evaluation; that of a
diffusion does not include its encoder.

Predictions, written down before the first run:

1. The encoder with behaviours as factors beats the encoder without behaviours.
2. The diffusion does not beat the encoder from which it starts. It learns to sample a function of the same history,
   which the encoder computes anyway.
3. The masking as released is not worse than the corrected one.
4. The complete model beats SASRec, as the paper claims.
5. Over 20 draws of noise, the first ten places of a user's lists contain more than ten items.

The full run has two seeds and takes about 11 minutes of CPU time. With TAIJI_RESUME=FOLDER the results of each arm are
stored in this folder, from which a stopped run continues. The quick run uses a generated log of users who repeatedly
view one item and buy another; only the behaviours distinguish the two items.

    TAIJI_TEST_DATA=FOLDER python -m benchmarks.multi_behaviour [--quick]
        [--json benchmarks/results/multi_behaviour.json]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.components.comparison import PARAMETERS, interval
from benchmarks.harness import Result, public_data, run
from taiji.core.component import Requests
from taiji.data import Dataset
from taiji.data.event_columns import EventColumns
from taiji.data.schema import Tables
from taiji.metrics.list_metrics import Targets, hits, ndcg, recall
from taiji.models.retrieval.behaviour_diffusion import BehaviourDiffusion
from taiji.models.retrieval.behaviour_settings import BehaviourDiffusionSettings
from taiji.models.retrieval.popularity import Popularity
from taiji.models.retrieval.sasrec import SASRec, SASRecSettings

TEST = 1_512_172_800  # 2 December 2017
SEEDS, RATE, DRAWS = 2, 3e-3, 20
SHARED: dict[str, Any] = {
    "history": 20,
    "width": 32,
    "batch": 128,
    "negatives": 512,
    "device": "cpu",
    "valid_users": 1000,
    "learning_rate": RATE,
    "check_every": 4,
    "patience": 3,
    "epochs": 100,
    "diffusion_epochs": 30,
    "head_epochs": 3,
}
WHOLE = "diffusion, guidance, own experts"
ENCODER = "encoder, behaviours as factors"
BLIND = "encoder, no behaviours"
ARMS: dict[str, dict[str, Any]] = {
    ENCODER: {"diffusion": False},
    BLIND: {"behaviours": "none", "diffusion": False},
    WHOLE: {},
    "SASRec": {"width": 40, "layers": 4, "dropout": 0.1},
    "whole, masking as released": {"as_released": ("masking",)},
    "diffusion": {"own_experts": 0, "guidance": 0.0},
}
"""Settings of each arm, which override ``SHARED``."""
Found = dict[str, NDArray[np.float64]]


def dataset_of(events: pl.DataFrame, name: str) -> Dataset:
    """Return a dataset of events with ``user_id``, ``item_id``, ``timestamp`` and ``behaviour``. Every event counts as
    a click."""
    items = events.select("item_id").unique().sort("item_id").with_columns(title=pl.col("item_id"))
    users = events.select("user_id").unique().sort("user_id")
    columns = EventColumns(behaviour="behaviour")
    return Dataset.from_tables(
        Tables(items, users, events.with_columns(click=1), name, notes=(), event_columns=columns)
    )


def taobao(folder: Path) -> Dataset:
    """Return the log, restricted to items with enough events before the test period and to users with enough events on
    these items."""
    log = pl.read_parquet(folder / "interactions.parquet").sort("timestamp", maintain_order=True)
    before = log.filter(pl.col("timestamp") < TEST)
    for column, least in (("item_id", 20), ("user_id", 5)):
        counts = before.group_by(column).len().filter(pl.col("len") >= least)
        log, before = (frame.join(counts, on=column, how="semi", maintain_order="left") for frame in (log, before))
    events = log.select(
        pl.col("user_id", "item_id").cast(pl.String),
        pl.from_epoch("timestamp", "s").alias("timestamp"),
        behaviour=pl.col("behavior"),
    )
    return dataset_of(events, "userbehavior-multibehavior")


def two_items(users: int = 160, items: int = 12) -> Dataset:
    """Return a log of users who repeatedly view one item and buy another. Which of the two comes next is random."""
    random, rows = np.random.default_rng(0), []
    for user in range(users):
        own = random.choice(items, size=2, replace=False)
        for step, kind in enumerate(random.integers(2, size=random.integers(5, 9))):
            rows.append((f"u{user:03d}", f"i{own[kind]:02d}", step, ("view", "buy")[kind]))
    frame = pl.DataFrame(rows, ["user_id", "item_id", "day", "behaviour"], orient="row")
    return dataset_of(frame.with_columns(timestamp=pl.from_epoch(pl.col("day") * 86_400, "s")).drop("day"), "two items")


def asked(data: Dataset, start: int) -> tuple[pl.DataFrame, Requests, Targets, Targets]:
    """Return the events before ``start``, the requests, their targets, and the targets that are new to their user.

    There is one request per user with events before ``start`` and a purchase after it, at the user's first event after
    it. The targets are the items bought from then on.
    """
    before, after = (data.events.filter(when) for when in (pl.col("time") < start, pl.col("time") >= start))
    known = before.select("user").unique()
    bought = after.filter(pl.col("behaviour") == "buy").join(known, on="user", how="semi", maintain_order="left")
    first = after.group_by("user").agg(pl.col("time").min()).join(bought, on="user", how="semi").sort("user")
    users = first["user"].to_numpy().astype(np.int64)
    fresh = bought.join(before.select("user", "item"), on=["user", "item"], how="anti", maintain_order="left")
    targets = [
        Targets.of(
            np.searchsorted(users, part["user"].to_numpy()), part["item"].to_numpy().astype(np.int64), len(users)
        )
        for part in (bought, fresh)
    ]
    return before, Requests(users, first["time"].to_numpy()), targets[0], targets[1]


def measured(model: Any, requests: Requests, every: Targets, fresh: Targets) -> Found:
    """Return the metrics of each user, (U,) each, by name."""
    found: Found = {}
    for name, targets, keeps in (("", every, True), (" new", fresh, False)):
        model.keeps_seen = keeps
        hit = hits(model.retrieve(requests, 20).items, targets)
        found[f"R@20{name}"] = recall(hit, targets.counts, 20)
        found[f"N@10{name}"] = ndcg(hit, targets.counts, 10)
    model.keeps_seen = True
    return found


def distinct(model: BehaviourDiffusion, requests: Requests) -> NDArray[np.float64]:
    """Return, for each of the first 300 requests, the number of different items in the first ten places over all draws
    of noise."""
    some = requests.take(slice(0, 300))
    lists = np.sort(np.hstack([model.redrawn(draw).retrieve(some, 10).items for draw in range(DRAWS)]), axis=1)
    return 1.0 + (np.diff(lists, axis=1) != 0).sum(axis=1)


class Study:
    """Trainings of the arms on one log, stored if ``resume`` names a folder."""

    def __init__(self, data: Dataset, start: int, shared: dict[str, Any], resume: Path | None = None) -> None:
        self.data, self.shared, self.resume = data, shared, resume
        self.rows, self.requests, self.every, self.fresh = asked(data, start)
        self.encoders: dict[int, BehaviourDiffusion] = {}

    def model(self, arm: str, seed: int) -> SASRec | BehaviourDiffusion:
        """Return the fitted model of an arm and a seed."""
        shared = {"seen": "keep", **self.shared, **ARMS[arm]}
        if arm == "SASRec":
            own = {name: value for name, value in shared.items() if name in SASRecSettings.model_fields}
            return SASRec(SASRecSettings.model_validate(own)).fit(self.data, self.rows, seed=seed)
        made = BehaviourDiffusion(BehaviourDiffusionSettings.model_validate(shared))
        if made.settings.diffusion:
            made.encoder_of = self.encoder(seed)
        return made.fit(self.data, self.rows, seed=seed)

    def encoder(self, seed: int) -> BehaviourDiffusion:
        """Return the fitted encoder with behaviours of a seed, which is trained once."""
        if seed not in self.encoders:
            found = self.model(ENCODER, seed)
            assert isinstance(found, BehaviourDiffusion)
            self.encoders[seed] = found
        return self.encoders[seed]

    def found(self, arm: str, seed: int) -> Found:
        """Return the metrics of each user, ``valid`` (the best NDCG@10 of validation), ``seconds``, ``parameters`` and,
        for a diffusion with seed 0, ``distinct``."""
        file = self.resume / f"{arm}, {seed}.npz" if self.resume is not None else None
        if file is not None and file.exists():
            return dict(np.load(file))
        start = time.process_time()
        model = self.encoder(seed) if arm == ENCODER else self.model(arm, seed)
        checks = model.facts.get("head") or model.facts.get("encoder") or model.facts["checks"]
        parts = [
            (n, p)
            for n, p in model.network.named_parameters()
            if not n.startswith("denoiser.") or "head" in model.facts
        ]
        found = measured(model, self.requests, self.every, self.fresh)
        found |= {
            "valid": np.array(max(check["ndcg"] for check in checks)),
            "seconds": np.array(time.process_time() - start),
            "parameters": np.array(sum(p.numel() for _, p in parts)),
        }
        if isinstance(model, BehaviourDiffusion) and model.settings.diffusion and seed == 0:
            found["distinct"] = distinct(model, self.requests)
        if file is not None:
            np.savez(file, **found)  # type: ignore[arg-type]
        told = f"{np.nanmean(found['R@20']):.4f}, valid {found['valid']:.4f}, {found['seconds']:.0f} s"
        print(f"{arm}, seed {seed}: R@20 {told}", file=sys.stderr, flush=True)
        return found


def compare(result: Result, study: Study, seeds: int) -> dict[str, Found]:
    """Add a row per arm. Return each arm's metrics by user, as means over seeds."""
    popular = Popularity().fit(study.data, study.rows.filter(pl.col("behaviour") == "buy"))
    means = {"bought most": measured(popular, study.requests, study.every, study.fresh)}
    row: dict[str, Any] = {
        "arm": "bought most",
        **{name: float(np.nanmean(v)) for name, v in means["bought most"].items()},
    }
    result.rows.append(row | {"users": len(study.requests), "items": study.data.n_items})
    result.so_far()
    every: dict[str, list[Found]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        for arm, several in every.items():
            several.append(study.found(arm, seed))
    for arm, several in every.items():
        means[arm] = {name: np.mean([one[name] for one in several], axis=0) for name in means["bought most"]}
    for arm, several in every.items():
        row = {"arm": arm, **{name: float(np.nanmean(values)) for name, values in means[arm].items()}}
        for other in (ENCODER, "SASRec"):
            if arm != other:
                name = f"R@20 minus {other.split(',')[0]}"
                row[name], row[f"{name}, low"], row[f"{name}, high"] = apart(means, arm, other)
        if "distinct" in several[0]:
            row["distinct"] = float(several[0]["distinct"].mean())
        row |= {"parameters": int(several[0]["parameters"]), "seeds": seeds}
        result.rows.append(row | {"CPU seconds": float(np.mean([one["seconds"] for one in several]))})
        result.so_far()
    return means


def apart(means: dict[str, Found], arm: str, other: str) -> tuple[float, float, float]:
    """Return the mean difference in R@20 between two arms, paired by user, and the bounds of its 95 % interval."""
    values = means[arm]["R@20"] - means[other]["R@20"]
    return interval(values[np.isfinite(values)].tolist())


def measure(quick: bool) -> Result:
    """Train all arms, and compare them."""
    result = Result()
    if quick:
        data = two_items()
        shared = {
            "width": 16,
            "layers": 1,
            "dropout": 0.0,
            "batch": 32,
            "history": 8,
            "negatives": 0,
            "valid_users": 40,
        }
        stages = {
            "epochs": 40,
            "diffusion_epochs": 4,
            "head_epochs": 2,
            "steps": 40,
            "sampler_steps": 4,
            "learning_rate": 5e-3,
        }
        study = Study(data, int(data.events["time"].max()) - 3 * 86_400_000_000, {**shared, **stages, "device": "cpu"})  # type: ignore[arg-type]
        means = compare(result, study, 1)
        first = {arm: float(np.nanmean(means[arm]["N@10"])) for arm in (ENCODER, BLIND)}
        result.at_least(
            "two items: N@10 of the encoder that reads behaviours over that of one that does not",
            first[ENCODER] / first[BLIND],
            1.1,
        )
        return result
    resume = Path(os.environ["TAIJI_RESUME"]) if "TAIJI_RESUME" in os.environ else None
    if resume is not None:
        resume.mkdir(parents=True, exist_ok=True)
    data = taobao(public_data() / "userbehavior-multibehavior")
    study = Study(data, TEST * 1_000_000, SHARED, resume)
    means = compare(result, study, SEEDS)
    for name, arms in (
        ("the whole and SASRec", (WHOLE, "SASRec")),
        ("the two encoders", (ENCODER, BLIND)),
    ):
        sizes = [row["parameters"] for row in result.rows if row["arm"] in arms]
        result.at_most(
            f"parameters of the largest over those of the smallest: {name}", max(sizes) / min(sizes), PARAMETERS
        )
    result.at_least(
        "(1) factors of behaviours over none: low end of the gain in R@20",
        apart(means, ENCODER, BLIND)[1],
        1e-9,
    )
    result.at_most("(2) the whole over its encoder: low end of the gain in R@20", apart(means, WHOLE, ENCODER)[1], 0.0)
    result.at_least(
        "(3) masking as released over corrected: high end of the gain in R@20",
        apart(means, "whole, masking as released", WHOLE)[2],
        0.0,
    )
    result.at_least("(4) the whole over SASRec: low end of the gain in R@20", apart(means, WHOLE, "SASRec")[1], 1e-9)
    many = next(row["distinct"] for row in result.rows if row["arm"] == WHOLE)
    result.at_least("(5) items in the first ten over 20 draws", many, 10.0 + 1e-9)
    return result


if __name__ == "__main__":
    run(measure)

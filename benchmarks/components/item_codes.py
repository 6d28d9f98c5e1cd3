"""Do fewer items share their codes if a grid replaces the last level of residual k-means, at an equal number of bits?

Every item gets three codes of 6 or 8 bits. Items with the same three codes *collide*. Catalogues: 4,000 vectors of
nested clusters whose sizes fall as a power of their rank (skewed), the same with clusters of equal size, and
amazon-office if TAIJI_TEST_DATA contains it (titles encoded by WordLlama; the targets are each user's last items). Each
coding is fitted with five seeds.

Codings: ``residual k-means``, the deciding baseline; ``k-means and grid``; ``product`` codes; a ``grid`` alone;
``RQ-VAE`` and ``balanced RQ-VAE``. ``smoothed`` codings encode vectors that are averaged with those of co-occurring
items.

Columns, means over seeds: ``bits`` of all three codes; ``collisions by item`` and ``by target``, the share of items or
targets whose codes another item has; ``bound of hit @ k``, the hit rate of a recommender that predicts the codes of
every target correctly and ranks items with equal codes by popularity; ``use``, the share of the codebook entries in
use; ``entropy`` of the three codes, summed; ``residual``, squared error divided by the variance; ``stability 1``,
agreement between consecutive seeds about which items share the first code.

Claim, stated beforehand, and checked on the skewed catalogue and on amazon-office: the grid has fewer collisions than
residual k-means, by item and by target (upper end of the interval of the difference at most 0). :func:`effect` measures
what collisions cost a given decoder; :mod:`benchmarks.generative` calls it.

    python -m benchmarks.components --only item_codes [--quick] [--json benchmarks/results/item_codes.json]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.components.comparison import Component, interval
from benchmarks.harness import Result
from benchmarks.sequential import last_out
from taiji.data import Dataset, load_source
from taiji.data.history import History
from taiji.language.embed import load_embedder
from taiji.models.codes.balanced_rq_vae import BalancedRQVAE, BalancedRQVAESettings
from taiji.models.codes.coder import Coder
from taiji.models.codes.fsq import FSQ, FSQSettings
from taiji.models.codes.hybrid import Hybrid, HybridSettings
from taiji.models.codes.item_codes import ItemCodes
from taiji.models.codes.product import ProductCodes, ProductSettings
from taiji.models.codes.quality import collisions_by_target, hit_bound, stability
from taiji.models.codes.residual_kmeans import ResidualKMeans, ResidualKMeansSettings
from taiji.models.codes.rq_vae import RQVAE, RQVAESettings
from taiji.models.codes.smoothing import smoothed
from taiji.models.retrieval.cooccurrence import symmetric_pairs

Array = NDArray[Any]
BITS = (6, 8)
"""Bits per code."""
SEEDS = 5
PLAIN, GRID = "residual k-means", "k-means and grid"


@dataclass(frozen=True)
class Catalogue:
    """Items as vectors, and the targets of a test.

    Attributes:
        name: name in the table of results.
        vectors: (N, d).
        targets: (T,) dense item ids.
        popularity: (N,) number of interactions in the training log.
        pairs: items, co-occurring items and weights, (P,) each, of the training log; None for drawn vectors.
        dataset: dataset of the items; None for drawn vectors.
    """

    name: str
    vectors: Array
    targets: Array
    popularity: Array
    pairs: tuple[Array, Array, Array] | None = None
    dataset: Dataset | None = None


def office(folder: str | Path) -> Catalogue:
    """Return amazon-office, with vectors of the titles, and with each user's last items (often several on one day) as
    targets."""
    dataset = Dataset.from_tables(load_source(folder, non_clicks=0))
    train, _, targets = last_out(dataset)
    history = History.from_events(train, dataset.n_users)
    return Catalogue(
        "amazon-office",
        load_embedder("wordllama").encode(dataset.items["title"].to_list()).astype(np.float64),
        np.asarray(targets.items),
        np.bincount(history.items, minlength=dataset.n_items),
        symmetric_pairs(history, 10, 0.8, dataset.n_items),
        dataset,
    )


def drawn(seed: int, power: float, items: int) -> Catalogue:
    """Return vectors of nested clusters whose sizes fall as rank ** −power. Popularity does not depend on the
    cluster."""
    random = np.random.default_rng(seed)
    width, clusters = 32, 40
    chance = np.arange(1, clusters + 1.0) ** -power
    coarse = random.choice(clusters, items, p=chance / chance.sum())
    fine = random.choice(clusters, items, p=chance / chance.sum())
    centres, offsets = random.normal(size=(clusters, width)), 0.5 * random.normal(size=(clusters, clusters, width))
    vectors = centres[coarse] + offsets[coarse, fine] + 0.15 * random.normal(size=(items, width))
    popularity = random.zipf(1.5, items).clip(max=1000)
    targets = random.choice(items, items, p=popularity / popularity.sum())
    return Catalogue(f"drawn, sizes ~ rank ** -{power:g}", vectors, targets, popularity)


def coders(bits: int, quick: bool = False) -> dict[str, Coder]:
    """Return coders of three codes with this number of bits each, not yet fitted."""
    size, steps = 2**bits, 30 if quick else 600
    return {
        "product": ProductCodes(ProductSettings(slots=3, bits=bits)),
        PLAIN: ResidualKMeans(ResidualKMeansSettings(size=size)),
        GRID: Hybrid(HybridSettings(size=size, grid=(2,) * bits)),
        "grid": FSQ(FSQSettings(size=size, grid=(2,) * bits)),
        "RQ-VAE": RQVAE(RQVAESettings(size=size, steps=steps)),
        "balanced RQ-VAE": BalancedRQVAE(BalancedRQVAESettings(size=size, steps=steps)),
    }


def effect(
    result: Result,
    catalogue: Catalogue,
    hit_rate: Callable[[Catalogue, ItemCodes, int], float],
    *,
    names: Sequence[str] = ("product", PLAIN, GRID),
    bits: int = 8,
    seeds: int = SEEDS,
) -> None:
    """Add a row per coding and seed, with its collisions by target and the hit rate of a decoder that is trained on its
    codes.

    Args:
        result: result to add to.
        catalogue: catalogue of a dataset.
        hit_rate: function from (catalogue, codes, seed) to the hit rate on the catalogue's targets.
        names: names of the codings.
        bits: bits per code.
        seeds: number of seeds with which coder and decoder are fitted.
    """
    for seed in range(seeds):
        for name in names:
            coder = coders(bits)[name]
            codes = ItemCodes.of(coder.fit(catalogue.vectors, seed=seed), catalogue.vectors)
            result.rows.append(
                {
                    "component": "item_codes",
                    "catalogue": catalogue.name,
                    "coding": name,
                    "bits": 3 * bits,
                    "seed": seed,
                    "collisions by target": collisions_by_target(codes.table, catalogue.targets),
                    "hit rate": hit_rate(catalogue, codes, seed),
                }
            )
            result.so_far()


def found(catalogue: Catalogue, coder: Coder, vectors: Array, seeds: int) -> list[dict[str, float]]:
    """Return the metrics of a coder, one dict per seed. Stability compares each seed with the previous one."""
    out, before = [], None
    for seed in range(seeds):
        codes = ItemCodes.of(coder.fit(vectors, seed=seed), vectors)
        quality, energy = codes.quality(), coder.residual_energies(vectors)
        out.append(
            {
                "collisions by item": quality["collisions"],
                "by target": collisions_by_target(codes.table, catalogue.targets),
                "bound of hit @ 1": hit_bound(codes.table, catalogue.targets, catalogue.popularity, 1),
                "bound of hit @ 10": hit_bound(codes.table, catalogue.targets, catalogue.popularity, 10),
                "use": float(np.mean([quality[f"utilisation_{level}"] for level in (1, 2, 3)])),
                "entropy": float(sum(quality[f"entropy_{level}"] for level in (1, 2, 3))),
                "residual": float(energy[-1] / energy[0]),
                "stability 1": float("nan") if before is None else float(stability(before, codes.table)[0]),
            }
        )
        before = codes.table
    return out


def exact(result: Result, quick: bool) -> None:
    """Fit all codings on all catalogues, and check the claim."""
    folder = Path(os.environ.get("TAIJI_TEST_DATA", "")) / "amazon-office"
    catalogues = [drawn(0, power, 300 if quick else 4000) for power in (1.2, 0.0)]
    if folder.is_dir() and not quick:
        catalogues.append(office(folder))
    seeds = 2 if quick else SEEDS
    for catalogue in catalogues:
        for bits in (3,) if quick else BITS:
            figures: dict[str, list[dict[str, float]]] = {}
            for name, coder in coders(bits, quick).items():
                figures[name] = found(catalogue, coder, catalogue.vectors, seeds)
                tell(result, catalogue, name, bits, figures[name])
            if catalogue.pairs is not None:
                company = smoothed(catalogue.vectors, catalogue.pairs)
                for name in (GRID, "balanced RQ-VAE"):
                    smooth = found(catalogue, coders(bits, quick)[name], company, seeds)
                    tell(result, catalogue, f"{name}, smoothed", bits, smooth)
            if not quick and "-0" not in catalogue.name:
                for measure in ("collisions by item", "by target"):
                    pairs = zip(figures[GRID], figures[PLAIN])
                    _, _, high = interval([ours[measure] - theirs[measure] for ours, theirs in pairs])
                    result.at_most(
                        f"{catalogue.name}, {3 * bits} bits: {measure}, grid − k-means, upper end", high, 0.0
                    )


def tell(result: Result, catalogue: Catalogue, name: str, bits: int, figures: list[dict[str, float]]) -> None:
    """Add a row with the means over seeds."""
    means = {key: float(np.nanmean([figure[key] for figure in figures])) for key in figures[0]}
    where = {"component": "item_codes", "catalogue": catalogue.name, "coding": name, "bits": 3 * bits}
    result.rows.append({**where, **means})
    result.so_far()


COMPONENT = Component(
    claim="a grid in place of the last level has fewer collisions",
    metric="",
    arms={},
    data=lambda place, seed, quick: None,
    exact=exact,
)

"""A ``metrics.json`` as a run would write it, for the summary's and the report's tests."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np


def _figure(value: float, width: float, n: int = 298) -> dict[str, Any]:
    return {"value": value, "low": value - width, "high": value + width, "n": n}


def sample_metrics(steps: int = 40) -> dict[str, Any]:
    """Plausible, not real: figures invented for tests of the layout."""
    rng = np.random.default_rng(0)
    llm: list[dict[str, Any]] = []
    answers = {
        "base": ("model", (0.121, 0.034, 0.012, 0.021, 0.034, 0.00312, 0.61, 0.62, 0.18)),
        "sft": ("model", (0.312, 0.088, 0.031, 0.038, 0.061, 0.00371, 0.97, 0.71, 0.06)),
        "aligned": ("model", (0.331, 0.094, 0.034, 0.041, 0.064, 0.00389, 0.98, 0.73, 0.05)),
        "popularity": ("baseline", (0.412, 0.051, 0.044, 0.060, 0.081, 0.00911)),
        "own favourite": ("baseline", (0.381, 0.062, 0.029, 0.0, 0.0, 0.00620)),
        "own category": ("baseline", (0.452, 0.112, 0.048)),
        "co-occurrence": ("baseline", (0.402, 0.097, 0.041, 0.071, 0.110, 0.00870)),
        "mean history": ("baseline", (0.350, 0.091, 0.038, 0.044, 0.068, 0.00401)),
        "true item": ("oracle", (0, 0, 0, 0, 0, 0.0214)),
    }
    names = (
        "category_l1",
        "category_l2",
        "category_l3",
        "hit@50",
        "hit@100",
        "ctcvr",
        "format",
        "grounding",
        "grounding_low",
    )
    for model, (kind, values) in answers.items():
        for name, value in zip(names, values):
            if kind == "oracle" and name != "ctcvr":
                continue
            width = value * 0.12 if name == "ctcvr" else 1.96 * math.sqrt(max(value * (1 - value), 1e-4) / 298)
            row = {"model": model, "kind": kind, "metric": name, **_figure(value, width)}
            if kind == "model" and model != "base":
                gap = value - answers["base"][1][names.index(name)]
                row["difference"] = {"against": "base", "value": gap, "low": gap - width, "high": gap + width}
            if kind == "model":
                row["competitors"] = [
                    {"against": baseline, "value": gap, "low": gap - width, "high": gap + width}
                    for baseline, (baseline_kind, baseline_values) in answers.items()
                    if baseline_kind == "baseline" and names.index(name) < len(baseline_values)
                    for gap in [value - baseline_values[names.index(name)]]
                ]
            llm.append(row)
    ranking: list[dict[str, Any]] = []
    gains = {"none": 0.0, "history_mean": 0.0021, "taiji": 0.0013, "shuffled": -0.0004}
    for group, base, width in (("all", 0.7312, 0.0041), ("sparse", 0.6821, 0.0102)):
        for head in ("click", "ctcvr"):
            for arm, gain in gains.items():
                for metric, level, sign in (
                    ("auc", base, 1),
                    ("user_auc", base - 0.05, 0.7),
                    ("log_loss", 0.421, -0.8),
                    ("ndcg@10", 0.512, 0.9),
                    ("calibration", 1.03, 3),
                ):
                    value = level + sign * gain + (0.06 if head == "ctcvr" and metric == "auc" else 0)
                    row = {
                        "features": arm,
                        "group": group,
                        "metric": f"{head} {metric}",
                        **_figure(value, width, 2301 if group == "all" else 767),
                    }
                    if arm != "none":
                        half = width / (3.2 if metric != "user_auc" else 2)
                        row["difference"] = {
                            "against": "none",
                            "value": sign * gain,
                            "low": sign * gain - half,
                            "high": sign * gain + half,
                        }
                    if arm == "taiji":
                        gap = sign * (gain - gains["history_mean"])
                        row["competitors"] = [
                            {
                                "against": "history_mean",
                                "value": gap,
                                "low": gap - width / 4,
                                "high": gap + width / 4,
                            }
                        ]
                    ranking.append(row)
    weights = 0.5 + 0.22 * (1 - np.exp(-np.arange(steps) / 12)) + rng.normal(0, 0.004, steps)
    curve = [
        {
            "step": k + 1,
            "weights": {"semantic": float(weights[k]), "preference": float(1 - weights[k])},
            "rewards": {
                "semantic": float(0.58 + 0.1 * (1 - np.exp(-k / 15)) + rng.normal(0, 0.02)),
                "preference": float(0.31 + 0.06 * (1 - np.exp(-k / 20)) + rng.normal(0, 0.03)),
            },
        }
        for k in range(steps)
    ]
    return {
        "name": "demo",
        "data": "completejourney, 2,469 households",
        "notes": [
            "Simulated data based on real shopping patterns: no claim about real shoppers may rest on it.",
            "An exposure is a product on display or in the mailer in the store and week of a trip; non-clicks are a seeded sample per trip.",
        ],
        "split": {
            "fingerprint": "9f2c4be0a7d1538e6c22b41f7a0d93e5c8b1640f2d7ea95310cb84f6d21e7a53",
            "dates": {
                "reward": ["2017-01-01", "2017-05-02"],
                "llm": ["2017-05-02", "2017-07-30"],
                "ranker": ["2017-07-30", "2017-10-25"],
                "test": ["2017-10-25", "2018-01-01"],
            },
            "rows": {
                "users": 2469,
                "interactions": 1469307,
                "reward": 440792,
                "llm": 367327,
                "ranker": 367327,
                "test": 293861,
            },
        },
        "rationales": {
            "written": 192,
            "judged": 144,
            "kept": 83,
            "threshold": 4.62,
            "reasons": {"perplexity above the threshold": 71, "names the target": 24, "malformed": 14},
            "perplexities": [float(v) for v in np.exp(rng.normal(1.55, 0.45, 144))],
        },
        "llm": llm,
        "alignment": {"rule": "popo-light", "steps": curve},
        "ranking": ranking,
        "seconds": {
            "data": 21.4,
            "examples": 0.8,
            "reward": 38.0,
            "rationales": 142.7,
            "selection": 55.1,
            "sft": 98.3,
            "environment": 9.4,
            "alignment": 171.0,
            "answers": 74.2,
            "features": 31.9,
            "ranking": 88.8,
            "report": 12.1,
        },
    }


RATIONALES = [
    {
        "kept": True,
        "reason": "",
        "perplexity": 3.41,
        "target": "Yogurt, 6 oz; GROCERY; YOGURT",
        "rationale": "The household buys dairy every week and has lately turned to single-serve breakfasts: granola bars, bananas and drinkable yogurt. A small fruit yogurt fits both the price band and the rhythm of its trips.",
    },
    {
        "kept": True,
        "reason": "",
        "perplexity": 4.02,
        "target": "Cat litter, 20 lb; GROCERY; CAT LITTER",
        "rationale": "Wet cat food appears in four of the last six trips; the last litter was bought five weeks ago and the interval before was six.",
    },
    {
        "kept": False,
        "reason": "perplexity above the threshold",
        "perplexity": 11.87,
        "target": "Hair colour; DRUG GM; HAIR CARE",
        "rationale": "The user likes grocery products and will probably buy more grocery products in the near future because they like to shop for grocery products.",
    },
    {
        "kept": False,
        "reason": "names the target",
        "perplexity": 1.22,
        "target": "Sparkling water, 12 ct; GROCERY; SOFT DRINKS",
        "rationale": "They will buy Sparkling water, 12 ct, because sparkling water 12 ct is what they want.",
    },
]


def sample_audit(order: tuple[str, ...]) -> dict[str, Any]:
    """What an audit found whose controls come in some order of perplexity; nothing was sampled when it is empty."""
    names = ("answer", "own", "other", "shuffled")
    nothing = {"value": None, "low": None, "high": None, "n": 0}

    def figure(value: float, n: int = 12) -> dict[str, Any]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": n} if order else nothing

    controls = {name: figure(0.5 + 0.4 * order.index(name) if order else 0) for name in names}
    controls["empty"] = figure(1.4)
    steps = []
    for one, other in pairwise(names):
        gap = figure(0.4 * (order.index(other) - order.index(one)) if order else 0)
        controls[f"{other} - {one}"] = gap
        if order:
            steps.append({"lower": one, "higher": other, "verdict": "holds" if gap["low"] > 0 else "reversed"})
    holds = order == names
    verdict = "holds" if holds else "reversed" if order else "not shown"
    says = (
        "The controls have the expected order."
        if holds
        else "The controls do NOT have the expected order: found otherwise."
    )
    lifts = {name: figure(0.2) for name in ("target lift", "neighbourhood lift", "specificity")}
    card = {
        "example": "e1", "sample": 0, "target": "Item title: bread", "rationale": "A <b>leak</b>.", "masked": "A something.", "ppl": 1.2, "ppl_masked": 5.0,
        "ppl_none": 6.0, "leak_share": 0.9, "lift": 0.18, "verdict": "reject", "reasons": ["names the item (exact)"],
    }  # fmt: skip
    return {
        "rows": 36,
        "lexical": {"title": 0.3, "unseen L3": 0.2, "forbidden": 0.1},
        "leaking": {"no help": 0.5, "own help": 0.2, "more than 50% of the help is mentions": 0.3},
        "preference": {"kept of naming": 0.8, "kept of others": None},
        "controls": controls,
        "order": {
            "verdict": verdict,
            "steps": steps,
            "says": says if order else "There are no rationales for the controls.",
        },
        "decoys": lifts,
        "blind_gap": {name: figure(0.1, 4) for name in ("teacher", "blind", "gap")} if holds else None,
        "distributions": {name: {"0.05": 1.0, "0.5": 2.0, "0.95": None} for name in ("ppl", "lift", "leak_share")},
        "worst": {"largest leak share": [card], "lowest perplexity": [card], "kept with the least lift": [card]},
    }

"""Model card and data card of a run: Markdown with facts from the run's files, without judgements or promises.

The headings follow *Model Cards for Model Reporting* (arXiv 1810.03993) and *Datasheets for Datasets* (arXiv
1803.09010) as far as a program can fill them in; unknown facts are marked as unknown.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

import taiji
from taiji.core.artifacts import read_json
from taiji.core.number_format import counted, general_text, number_text, thousands
from taiji.data import PERIODS, exposures
from taiji.language.causal_lm import model_title
from taiji.reporting.report import ANSWER_METRICS
from taiji.reporting.summary import RunMetrics, digits_for, findings, metric_text

if TYPE_CHECKING:
    from taiji.data import Dataset, Split

MODEL_CARD, DATA_CARD = "model_card.md", "data_card.md"
HOLDING = (
    "data/dataset",
    "examples",
    "rationales",
    "selection",
    "reward_table",
    "alignment/prompts.parquet",
    "alignment/rollouts.parquet",
    "answers",
    "audit",
    "audit.json",
    "features",
    "ranking",
    "report",
    "review",
    "study",
    "oracle",
    "teacher",
    "candidate_ranker",
    "ranker_without-*",
    "fusion",
    "recommendation",
)
"""Files of a run with rows about individual users, as patterns of paths."""


def model_card(
    run: RunMetrics, settings: Mapping[str, Any], folder: Path, facts: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return the card of the aligned model: its facts, training, results on the test period, and unmeasured properties.

    Args:
        run: metrics of the run.
        settings: the resolved configuration.
        folder: the aligned model's `save_pretrained` folder.
        facts: stage → facts in the manifest of the stage.
    """
    shown = [name for name in ANSWER_METRICS if any(f.metric == name for f in run.llm)]
    rows = []
    for model in dict.fromkeys(f.model for f in run.llm):
        own = {f.metric: f for f in run.llm if f.model == model}
        cells = [
            metric_text(own[name], digits_for([f for f in run.llm if f.metric == name])) if name in own else "–"
            for name in shown
        ]
        rows.append({"name": model, "kind": next(iter(own.values())).kind, "cells": cells})
    aligned = {f.metric: f for f in run.llm if f.model == "aligned"}
    return _render(
        "model_card.md.j2",
        data=run.data or "the given data",
        model={
            "base": model_title(settings["language"]["model"]),
            "facts": [("base model", model_title(settings["language"]["model"])), *model_facts(folder)],
        },
        steps=_steps(run, settings, facts),
        dates=run.split.dates,
        examples=max((f.n for f in run.llm if f.kind == "model"), default=0),
        columns=[ANSWER_METRICS[name] for name in shown],
        answers=rows,
        findings=findings(run),
        seed=settings["seed"],
        malformed=_share(1 - aligned["format"].value)
        if "format" in aligned and aligned["format"].value is not None
        else None,
        cut=facts.get("answers", {}).get("cut", {}).get("aligned", 0),
        not_grounded=_share(aligned["grounding_low"].value)
        if "grounding_low" in aligned and aligned["grounding_low"].value is not None
        else None,
        threshold=settings["evaluation"]["grounding_threshold"],
        level=f"{general_text(100 * run.level)}%",
    )


def _steps(
    run: RunMetrics, settings: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Return the name and facts of each training step, in order."""
    teacher, sft, align = settings["reasoning"]["teacher"], settings["reasoning"]["sft"], settings["alignment"]
    limit = (
        ""
        if run.rationales.threshold is None
        else f", threshold: perplexity {number_text(run.rationales.threshold, 2)}"
    )
    view = "the answer in view" if teacher["answer_in_view"] else "the answer hidden"
    rewards = ", ".join(run.alignment.steps[0].rewards) if run.alignment.steps else "none"
    return [
        ("rationales", f"{run.rationales.written:,} by a teacher of kind {teacher['kind']}, {view}"),
        ("selection", f"rule {settings['reasoning']['selection']['rule']}: {run.rationales.kept_text()}{limit}"),
        (
            "fine-tuning",
            f"{counted(facts.get('sft', {}).get('rows', 0), 'row')}, {counted(facts.get('sft', {}).get('steps', 0), 'step')}, learning rate {general_text(sft['learning_rate'])}",
        ),
        (
            "alignment",
            f"GRPO with {align['weighting']} weights over {rewards}; {counted(len(run.alignment.steps), 'step')} of {counted(align['prompts_per_step'], 'prompt')} with {align['generations']} rollouts each, learning rate {general_text(align['learning_rate'])}, KL weight {general_text(align['beta'])}",
        ),
    ]


def model_facts(folder: Path) -> list[tuple[str, str]]:
    """Return the architecture, parameters and storage of a `save_pretrained` folder, from its configuration and
    safetensors headers."""
    config = read_json(folder / "config.json")
    count, kinds = 0, set()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            head = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
        tensors = [about for name, about in head.items() if name != "__metadata__"]
        count += sum(prod(about["shape"]) for about in tensors)
        kinds |= {about["dtype"] for about in tensors}
    return [
        ("architecture", ", ".join(config.get("architectures") or [config.get("model_type", "unknown")])),
        ("parameters stored", f"{count:,} ({', '.join(sorted(kinds))})"),
        ("vocabulary", f"{config.get('vocab_size', 0):,} tokens"),
        ("folder", "`alignment/model`, readable by `AutoModelForCausalLM.from_pretrained`"),
    ]


def data_card(run: RunMetrics, dataset: Dataset, split: Split, examples: pl.DataFrame, folder: Path) -> str:
    """Return the card of the tables: counts, periods, prompts by role, all columns with their shares of missing values,
    and files with rows about people.

    Args:
        run: metrics of the run.
        dataset: the run's dataset.
        split: the four periods.
        examples: prompts with ``role`` and ``user``.
        folder: the run directory.
    """
    lengths = np.diff(dataset.history.offsets)
    quartiles = [int(value) for value in np.quantile(lengths, (0.25, 0.5, 0.75))] if len(lengths) else [0, 0, 0]
    totals = [
        ("users", thousands(dataset.n_users)),
        ("items", thousands(dataset.n_items)),
        ("events", thousands(len(dataset.events))),
        ("events shown to the user", thousands(int(dataset.events["exposed"].sum()))),
        ("interactions", thousands(int((dataset.events["click"] == 1).sum()))),
        ("interactions per user, quartiles", " / ".join(map(thousands, quartiles))),
        ("users without an interaction", thousands(int((lengths == 0).sum()))),
    ]
    roles = examples.group_by("role").agg(pl.len(), pl.col("user").n_unique().alias("users")).sort("role").rows()
    profile = [name for name in dataset.users.columns if name not in ("user", "user_id")]
    tables = {"items": dataset.items, "users": dataset.users, "events": dataset.events}
    return _render(
        "data_card.md.j2",
        data=f"{dataset.name}, domain {dataset.domain}",
        totals=totals,
        notes=dataset.notes,
        fingerprint=run.split.fingerprint,
        periods=[_period(run, dataset, split, name) for name in PERIODS],
        roles=[(role, thousands(count), thousands(users)) for role, count, users in roles],
        columns=[row for name, table in tables.items() for row in _columns(name, table)],
        profile=[name.replace("_", " ") for name in profile],
        holding=[f"`{name}`" for name in HOLDING if name == "report" or any(folder.glob(name))],
    )


def _period(run: RunMetrics, dataset: Dataset, split: Split, name: str) -> list[str]:
    rows = exposures(dataset, split, name)
    start, end = run.split.dates[name]
    clicked = rows.filter(pl.col("click") == 1)
    converted = clicked["conversion"].drop_nulls()
    return [
        name,
        start[:10],
        end[:10],
        thousands(len(rows)),
        _share(len(clicked) / len(rows)) if len(rows) else "–",
        _share(int(converted.sum()) / len(converted)) if len(converted) else "–",
    ]


def _columns(table: str, frame: pl.DataFrame) -> list[list[str]]:
    return [
        [
            table,
            name,
            str(kind),
            _share(frame[name].null_count() / len(frame)) if len(frame) else "–",
            "–" if kind.is_nested() else thousands(frame[name].drop_nulls().n_unique()),
        ]
        for name, kind in frame.schema.items()
    ]


def _share(value: float) -> str:
    return f"{number_text(100 * value, 1)}%"


def _cell(value: object) -> str:
    """Escape text for a table cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("taiji.reporting"),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"thousands": thousands, "cell": _cell}
    return _single_gaps(environment.get_template(template).render(version=taiji.__version__, **values).splitlines())


def _single_gaps(lines: Sequence[str]) -> str:
    kept = [
        line.rstrip() for number, line in enumerate(lines) if line.strip() or (number and lines[number - 1].strip())
    ]
    return "\n".join(kept).rstrip() + "\n"

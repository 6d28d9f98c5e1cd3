"""Compute the metrics of a run, and write the files that present them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl

from taiji.core.artifacts import read_json, write_json, write_parquet, write_text
from taiji.core.manifests import read_manifest, stage_files
from taiji.data import PERIODS
from taiji.language.embed import load_embedder
from taiji.metrics.ranker_evaluation import evaluate_rankers, predicted_tasks, sparsest_third
from taiji.pipeline.names import ARMS, MODELS
from taiji.pipeline.recipes import ENHANCE
from taiji.pipeline.run_data import load, load_examples, load_split
from taiji.pipeline.run_models import base_model
from taiji.pipeline.run_rankers import KNOWLEDGE_STAGE, evaluation_ranker
from taiji.reasoning.prompts import student_messages, true_answers
from taiji.reasoning.selection import count_reasons
from taiji.reporting.answer_evaluation import evaluate_answers
from taiji.reporting.cards import DATA_CARD, MODEL_CARD, data_card, model_card
from taiji.reporting.catalogue import Catalogue
from taiji.reporting.grounding import ground_answers
from taiji.reporting.report import write_report
from taiji.reporting.summary import check_metrics

if TYPE_CHECKING:
    from taiji.data import Dataset
    from taiji.pipeline.engine import Context

SHOWN_RATIONALES = 3
"""Number of kept rationales, and also of rejected ones, that the report shows."""


def write_run_report(context: Context) -> dict[str, Any]:
    """Compute all metrics with intervals and baselines, write the report, and return the facts of the stage."""
    config, dataset = context.config, load(context)
    verdicts = pl.read_parquet(context.input("selection") / "verdicts.parquet")
    audit = read_json(context.input("audit") / "audit.json")
    coverage = read_json(context.input("ranking") / "coverage.json")
    quantizers = read_json(context.input("features") / "quantizers.json")
    earlier_stages = [stage.name for stage in ENHANCE if stage.name != "report"]
    manifests = {name: read_manifest(context.run / name) for name in earlier_stages}
    metrics: dict[str, Any] = {
        "name": context.run.name,
        "data": dataset.name,
        "level": config.evaluation.level,
        "notes": list(dataset.notes),
        "ladder": read_json(context.input("ladder") / "ladder.json"),
        "split": {key: value for key, value in _split(context).items() if key != "bounds"},
        "rationales": _rationales(context, verdicts),
        "audit": {name: found for name, found in audit.items() if name != "worst"},
        "llm": _language(context, dataset),
        "alignment": _alignment(context),
        "ranking": _rankers(context, dataset),
        "features": {arm: coverage[arm] | quantizers[arm] for arm in ARMS},
        "seconds": {name: manifest["seconds"] for name, manifest in manifests.items()},
    }
    run = check_metrics(metrics)
    write_json(context.folder / "metrics.json", metrics)
    facts = {name: manifest["facts"] for name, manifest in manifests.items()}
    settings = config.model_dump(mode="json")
    write_text(context.folder / MODEL_CARD, model_card(run, settings, context.input("alignment") / "model", facts))
    examples = pl.read_parquet(context.input("examples") / "examples.parquet")
    write_text(context.folder / DATA_CARD, data_card(run, dataset, load_split(context), examples, context.run))
    write_report(
        context.folder / "report.html",
        metrics,
        rationales=_shown(context, dataset, verdicts),
        audit=audit,
        prompt=_prompt(context, dataset),
        reading=dataset.reading,
        configuration=settings,
        cards={"model card": MODEL_CARD, "data card": DATA_CARD},
    )
    return {"figures": len(metrics["llm"]) + len(metrics["ranking"])}


def _split(context: Context) -> dict[str, Any]:
    """Return the split in the form of the report: periods in chronological order, and flat rows."""
    about: dict[str, Any] = read_json(context.input("examples") / "split.json")
    exposed, prompts = about["rows"]["exposures"], about["rows"]["prompts"]
    rows = {
        **{f"{period} exposures": exposed[period] for period in PERIODS},
        **{f"{role} prompts": count for role, count in prompts.items()},
        **(read_manifest(context.input(KNOWLEDGE_STAGE))["facts"] if KNOWLEDGE_STAGE in context.needs else {}),
    }
    return {**about, "dates": {period: about["dates"][period] for period in PERIODS}, "rows": rows}


def _rationales(context: Context, verdicts: pl.DataFrame) -> dict[str, Any]:
    written = pl.read_parquet(context.input("rationales") / "rationales.parquet", columns=["ended"])["ended"]
    # The threshold is compared with the perplexity after the masked rationale (guarded rule) or after the whole
    # rationale (plain rule).
    masked = context.config.reasoning.selection.rule == "guarded"
    return {
        "written": len(written),
        "ended": dict(sorted(Counter(written).items())),
        "judged": len(verdicts),
        "kept": int(verdicts["kept"].sum()),
        "threshold": read_json(context.input("selection") / "calibration.json")["threshold"],
        "reasons": count_reasons(verdicts),
        "perplexities": verdicts["ppl_masked" if masked else "ppl"].drop_nulls().to_list(),
        "masked": masked,
    }


def _language(context: Context, dataset: Dataset) -> list[dict[str, Any]]:
    config, test = context.config, load_examples(context, "test")
    completions = {
        which: pl.read_parquet(context.input("answers") / f"{which}.parquet")["completion"].to_list()
        for which in MODELS
    }
    evaluator, embedder = (
        evaluation_ranker(context, dataset),
        load_embedder(config.embedder.name, config.embedder.device),
    )
    start, titles = int(test["as_of"].min()), config.reasoning.prompts.title_characters  # type: ignore[arg-type]
    catalogue = Catalogue(dataset, embedder, start, titles)
    write_parquet(
        context.folder / "grounding.parquet",
        ground_answers(
            catalogue, embedder, test, completions, evaluator.score_pairs, most=config.reasoning.prompts.most
        ),
    )
    return evaluate_answers(
        dataset,
        test,
        completions,
        embedder,
        evaluation_score=evaluator.score_pairs,
        threshold=config.evaluation.grounding_threshold,
        new_only=config.examples.target == "next_new_item",
        resamples=config.evaluation.resamples,
        level=config.evaluation.level,
        seed=config.seed,
        catalogue=catalogue,
        most=config.reasoning.prompts.most,
    )


def _rankers(context: Context, dataset: Dataset) -> list[dict[str, Any]]:
    config, folder = context.config, context.input("ranking")
    rows = pl.read_parquet(folder / "exposures.parquet")
    predictions = {
        path.stem.removeprefix("predictions-"): pl.read_parquet(path)
        for path in stage_files(folder, "predictions-*.parquet")
    }
    ordered = {name: predictions[name] for name in sorted(predictions, key=lambda name: (name != "none", name))}
    sparse = sparsest_third(dataset, rows["user"], load_split(context).interval("test")[0])
    return evaluate_rankers(
        rows,
        ordered,
        sparse,
        tasks=predicted_tasks(dataset.tasks, ordered.values()),
        resamples=config.evaluation.resamples,
        level=config.evaluation.level,
        seed=config.seed,
    )


def _alignment(context: Context) -> dict[str, Any]:
    import json

    lines = (context.input("alignment") / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {"rule": context.config.alignment.weighting, "steps": [json.loads(line) for line in lines]}


def _shown(context: Context, dataset: Dataset, verdicts: pl.DataFrame) -> list[dict[str, Any]]:
    """Return kept and rejected rationales at fixed quantiles of perplexity, so that the examples are typical rather
    than hand-picked."""
    examples = load_examples(context, "rationale")
    answers = true_answers(dataset, examples, context.config.reasoning.prompts)
    targets = {example: texts[0] for example, texts in zip(examples["example"], answers)}
    users = dict(examples.select("example", "user_id").iter_rows())
    shown = []
    for kept in (True, False):
        rows = verdicts.filter((pl.col("kept") == kept) & pl.col("ppl").is_finite()).sort("ppl", "example", "sample")
        places = (
            sorted({len(rows) * (2 * place + 1) // (2 * SHOWN_RATIONALES) for place in range(SHOWN_RATIONALES)})
            if len(rows)
            else []
        )
        for row in rows[places].iter_rows(named=True):
            shown.append(
                {
                    "kept": kept,
                    "reason": "; ".join(row["reasons"]),
                    "perplexity": row["ppl"],
                    "target": targets[row["example"]],
                    "rationale": row["rationale"],
                    "user": str(users[row["example"]]),
                }
            )
    return shown


def _prompt(context: Context, dataset: Dataset) -> str:
    user, as_of = load_examples(context, "test").select("user", "as_of").row(0)
    messages = student_messages(
        dataset, user, as_of, context.config.reasoning.prompts, base_model(context.config).tokenizer
    )
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)

"""Implementation of `taiji oracle`: an upper bound on what a language model could add to the ranker, without running
one.

The user's next item (the truth) replaces the model's answer, as if the model were always right. A ranker with the
resulting features is compared with rankers that use no language model, and with a negative control in which each row
has the truth of another row (the shuffled truth). The gain from the truth is an upper bound on the gain from any
answer, provided that the ranker can use such features at all. If the truth improves the ranker no more than the
shuffled truth does, nothing follows about answers.

The command also evaluates the ladder without a language model (counts, collaborative fields, text match, and the truth
as agreement with the candidate), and derives the decision table from it (:mod:`taiji.experiments.decision`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taiji.core.artifacts import write_json
from taiji.core.manifests import Verifier
from taiji.core.number_format import counted, number_text
from taiji.data import Dataset
from taiji.experiments.decision import gap
from taiji.experiments.log_ladder import climbed
from taiji.experiments.study import NEGATIVE_CONTROL, Arm, shuffled
from taiji.features.feature_table import fit_table
from taiji.features.history_mean import future_mean, history_mean
from taiji.language.embed import load_embedder
from taiji.metrics.task_metrics import MAIN_METRICS, head_title, split_key, title_of
from taiji.pipeline.refreshes import refresh_times
from taiji.pipeline.run_rankers import KNOWLEDGE_STAGE, with_texts
from taiji.pipeline.run_study import COMPETITOR, ORACLE_ARM, evaluated, print_study, split_at
from taiji.reasoning.prompts import item_lines
from taiji.reporting.conclusion import ladder_conclusion
from taiji.reporting.summary import Difference, goal_of, verdict

if TYPE_CHECKING:
    from taiji.config import Config

BREADTH = 10
WIDE_ORACLE_ARM = f"{ORACLE_ARM}, next {BREADTH}"
"""Name of the arm whose answer is the mean embedding of the user's next items, whether or not they are new to the user.
It measures the value of knowing a user's taste rather than one item."""
WHAT = {ORACLE_ARM: "the next item", WIDE_ORACLE_ARM: f"the next {BREADTH} items"}
"""Map from arm to a description of the answer that an always correct model gives."""
LADDER_ROWS = 50_000
"""Largest number of candidates on which the ladder is evaluated."""
SHUFFLED_ARM = f"{NEGATIVE_CONTROL}shuffled"
"""Name of the arm in which each row has the truth of another row, which gives uninformative features of the same
form."""


def oracle(run: Path, config: Config, seeds: int) -> dict[str, Any]:
    """Compare a ranker without features with rankers whose features come from the mean of the history, from the truth,
    or from the shuffled truth. All users with enough history are evaluated (``examples.min_history``).

    Args:
        run: run directory in which the stages data and examples are finished.
        config: configuration with the frequency of rows (``size.feature_refreshes``), the target and the ranker.
        seeds: number of training runs per arm.

    Returns:
        the result of :func:`taiji.pipeline.run_study.evaluated`, ``bounds`` (see :func:`bounds`), ``ladder`` and
        ``decisions`` (see :func:`taiji.experiments.log_ladder.climbed`); also written to ``oracle/oracle.json``.
    """
    folder, dataset, split = (
        run / "oracle",
        Dataset.load(run / "data" / "dataset"),
        split_at(run / "examples" / "split.json"),
    )
    rows = refresh_times(dataset, split, config.examples.min_history, config.size.feature_refreshes)
    users, as_ofs, cut = rows["user"].to_numpy(), rows["as_of"].to_numpy(), split.interval("test")[0]
    lines = load_embedder(config.embedder.name, config.embedder.device).encode(
        item_lines(dataset, config.reasoning.prompts.title_characters)
    )
    new = config.examples.target == "next_new_item"
    contents = {
        COMPETITOR: history_mean(dataset, users, as_ofs, lines, config.features.history_mean),
        ORACLE_ARM: future_mean(dataset, users, as_ofs, lines, new=new),
        WIDE_ORACLE_ARM: future_mean(dataset, users, as_ofs, lines, BREADTH, new=False),
    }
    tables = {
        name: fit_table(dataset, rows, vectors, cut, config.features, name, config.seed)[1]
        for name, vectors in contents.items()
    }
    columns = config.features.columns
    noise = Arm(SHUFFLED_ARM, shuffled(tables[ORACLE_ARM], config.seed), columns)
    made = {name: Arm(name, table, columns) for name, table in tables.items()}
    arms = [Arm("none"), made[COMPETITOR], noise, made[ORACLE_ARM], made[WIDE_ORACLE_ARM]]
    competitors = (COMPETITOR, SHUFFLED_ARM)
    Verifier().demand_whole(run, (KNOWLEDGE_STAGE,))
    known = with_texts(dataset, run / KNOWLEDGE_STAGE)
    found = evaluated(run, folder, config, known, split, arms, tables[ORACLE_ARM], seeds, competitors)
    found["bounds"] = bounds(found["rows"])
    intervals = config.evaluation
    found |= climbed(dataset, config.embedder.name, seeds, intervals.resamples, rows=LADDER_ROWS, level=intervals.level)
    write_json(folder / "oracle.json", found)
    return found


def bounds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the upper bounds on the gain from a model, one for each kind of truth.

    A bound exists only if, in paired comparisons over all rows, the truth is significantly better both than no
    features and than the shuffled truth.

    Args:
        rows: rows of :func:`taiji.experiments.study.evaluate_seeds`. The ``competitors`` of the truths must include the
            shuffled truth.

    Returns:
        a dict for each truth: ``features``, ``metric``, ``bound`` (the paired difference from no features, or None),
        and ``says`` (a sentence).
    """
    whole = {(row["features"], row["metric"]): row for row in rows if row["group"] == "all"}
    metric = next((name for _, name in whole if split_key(name)[1] in MAIN_METRICS), "")
    goal = goal_of(metric)
    found: list[dict[str, Any]] = []
    for name, what in WHAT.items():
        row = whole.get((name, metric))
        if row is None or "difference" not in row:
            continue
        gaps = [row["difference"], *(g for g in row.get("competitors", []) if g["against"] == SHUFFLED_ARM)]
        outcomes = [verdict(Difference(**gap), goal) for gap in gaps]
        line: dict[str, Any] = {"features": name, "metric": metric, "bound": None}
        if len(gaps) == 2 and all(outcome == "better" for outcome in outcomes):
            line |= {
                "bound": gaps[0],
                "says": f"A model that always names {what} would add {_gap(gaps[0])} {_title(metric)} to this ranker.",
            }
        else:
            values = {
                arm: whole[arm, metric]["value"] for arm in ("none", SHUFFLED_ARM, name) if (arm, metric) in whole
            }
            shown = ", ".join(f"{arm} {number_text(value, 4)}" for arm, value in values.items() if value is not None)
            comparisons = "; ".join(
                f"{_gap(gap)} against {gap['against']}: {outcome}" for gap, outcome in zip(gaps, outcomes)
            )
            line["says"] = (
                f"No upper bound follows from {what}: the ranker with the truth is not significantly better than both "
                "the ranker without features and the ranker with the shuffled truth "
                f"({_title(metric)}: {shown}; {comparisons}). {_why(outcomes)}"
            )
        found.append(line)
    return found


def _why(outcomes: Sequence[str]) -> str:
    if all(outcome in ("better", "worse", "interval includes zero", "identical") for outcome in outcomes):
        return (
            "This ranker cannot use such features here (codes of the answer's embedding, and look-alike users); other "
            "settings or more data may change that. "
            "The ladder uses the same answer in another way: as the agreement of each candidate with it."
        )
    return "There are too few users to decide whether this ranker can use such features."


def _title(metric: str) -> str:
    head, name = split_key(metric)
    return f"{head_title(head)} {title_of(name)}"


def _gap(gap: Mapping[str, Any]) -> str:
    if gap["value"] is None:
        return "undefined"
    text = number_text(gap["value"], 4, signed=True)
    if gap["low"] is None:
        return text
    return f"{text} [{number_text(gap['low'], 4, signed=True)}, {number_text(gap['high'], 4, signed=True)}]"


def print_oracle(found: dict[str, Any]) -> None:
    """Print the table, the bound for each kind of truth (or why there is none), the ladder, and the decisions."""
    print_study(found, groups=("all", "sparse", "cold items"))
    for line in found["bounds"]:
        print(line["says"])
    if any(line["bound"] for line in found["bounds"]):
        print(
            "These are upper bounds, not forecasts: they deliberately use the next item, and no real model is always right."
        )
    if found.get("left_out"):
        print(f"The ladder is not available. {found['left_out']}")
    rungs = [row for row in found.get("ladder", ()) if row["group"] == "all" and row["auc"] is not None]
    if rungs:
        print(
            f"Ladder, over {counted(rungs[0]['rows'], 'test row')} (each user's first interaction with an item, and items "
            "sampled from other users). Its AUC cannot be compared with the table above, which is over exposures:"
        )
    for row in rungs:
        against = f", {gap(row)} against {row['against']}" if "against" in row else ""
        print(f"{row['rung']}: AUC {number_text(row['auc'], 4)}{against}")
    for line in found.get("decisions", ()):
        print(f"{line['question']} {line['found']}. {line['says']}")
    if (reached := ladder_conclusion(found.get("ladder", ()))) is not None:
        print("\n" + "\n".join(reached.lines()))

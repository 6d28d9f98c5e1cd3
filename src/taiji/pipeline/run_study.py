"""Implementation of `taiji study`: the value of each kind of features to the ranker, over training seeds and with
negative controls.

Layout of ``runs/NAME/study/``, where each part is computed once and kept::

    stages/           parametrised stages that an arm needs and the run does not have, such as features-sft
    cells/            test predictions of every (arm, seed)
    study.json        all metrics
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from taiji.core.advice import resume_command
from taiji.core.artifacts import read_json, value_hash, write_json
from taiji.core.component import foreign_code
from taiji.core.errors import ArtifactError, ConfigError
from taiji.core.manifests import Verifier
from taiji.core.number_format import counted, number_text
from taiji.data import Dataset, Split, exposures
from taiji.experiments.study import Arm, ablation, aggregate, built_in, control_findings, run_cells
from taiji.features.feature_table import fit_table
from taiji.features.history_mean import future_mean
from taiji.language.embed import load_embedder
from taiji.metrics.ranker_evaluation import sparsest_third
from taiji.metrics.task_metrics import MAIN_METRICS, key_title, split_key
from taiji.pipeline.engine import Run
from taiji.pipeline.names import ARMS
from taiji.pipeline.ranker_tables import ranker_tables
from taiji.pipeline.run_rankers import KNOWLEDGE_STAGE, settled_once, with_texts
from taiji.pipeline.stages.alignment_stage import Alignment
from taiji.pipeline.stages.features_stage import Features
from taiji.reasoning.prompts import item_lines

if TYPE_CHECKING:
    from taiji.alignment.settings import Weighting
    from taiji.config import Config
    from taiji.pipeline.stage import Stage

RULE_OF_ARM: dict[str, Weighting] = {"grpo": "fixed", "popo-light": "popo-light", "popo": "popo"}
"""Map from arm to the reward-weighting rule of its alignment."""
WRITERS = ("base", "sft")
"""Arms whose texts come from a model before alignment."""
COMPETITOR, OWN = ARMS
"""Names of the tables that a run itself computes: the baseline without a language model, and the table of the aligned
model.

If the run's weighting rule is one of those in :data:`RULE_OF_ARM`, the arm of that rule uses the second table, and
there is no arm ``taiji``."""
ORACLE_ARM = "truth"
"""Name of the oracle, in which the user's actual next item replaces the answer. It deliberately uses the future."""
COLD = 5
"""An item with fewer clicks than this before the test period is cold."""
SMALL = 0.1
"""Absolute value below which a metric is printed with one more decimal."""
DEPARTMENTS = 8
"""Number of departments that are evaluated separately, starting with the one that has the largest number of test
exposures."""


def study(
    run: Path, config: Config, seeds: int, arms: Sequence[str] = (), say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Compute the missing parts of a run's study, and evaluate it.

    Args:
        run: finished run directory.
        config: configuration of the run, possibly with other values of ``ranking`` and ``evaluation``.
        seeds: number of training runs per arm.
        arms: names of the feature tables (a ranker with each is compared with one without features): ``history_mean``,
            ``truth``, ``base``, ``sft``, ``grpo``, ``popo-light``, ``popo``, and ``taiji`` if the run's weighting rule
            is none of these; all by default. The run's own table (or, if it is not among them, the last table) is
            ablated and gets the negative controls.
        say: function called with progress messages.

    Returns:
        content of ``study.json``: ``main``, the name of the ablated table, and everything that :func:`evaluated`
        returns.

    Raises:
        ArtifactError: the run is not finished.
        ConfigError: an arm is unknown.
    """
    needed = [run / "data" / "dataset", run / "examples" / "split.json", run / "features" / "taiji.parquet"]
    missing = [path for path in needed if not path.exists()]
    if missing:
        raise ArtifactError("The run has no features yet.", where=str(missing[0]), fix=resume_command(run))
    Verifier().demand_whole(run, ("data", "examples", "features", KNOWLEDGE_STAGE))
    own = next((arm for arm, rule in RULE_OF_ARM.items() if rule == config.alignment.weighting), OWN)
    known = (COMPETITOR, ORACLE_ARM, *WRITERS, *RULE_OF_ARM, *([OWN] if own == OWN else []))
    unknown = [arm for arm in arms if arm not in known]
    if unknown:
        raise ConfigError(
            "The arm of a study is unknown.", where="--arm", expected=", ".join(known), found=", ".join(unknown)
        )
    wanted = [name for name in known if not arms or name in arms]
    folder, split = run / "study", split_at(needed[1])
    dataset = with_texts(Dataset.load(needed[0]), run / KNOWLEDGE_STAGE)
    made = {arm: parts for arm in wanted if (parts := stages_for(arm, own))}
    stages = [stage for parts in made.values() for stage in parts]
    if stages:
        say(f"study: features of {', '.join(made)}")
        Run(folder / "stages", config, stages, say=say, base=run).execute()
    tables = {}
    for name in wanted:
        if name == ORACLE_ARM:
            tables[name] = _truth(run, config, dataset, split)
            continue
        features = folder / "stages" / made[name][-1].key if name in made else run / "features"
        tables[name] = pl.read_parquet(features / f"{COMPETITOR if name == COMPETITOR else OWN}.parquet")
    main = own if own in tables else wanted[-1]
    arms_made = ablation(tables, main, config.seed, config.features.columns)
    found = {"main": main} | evaluated(run, folder, config, dataset, split, arms_made, tables[main], seeds)
    write_json(folder / "study.json", found)
    return found


def stages_for(arm: str, own: str) -> tuple[Stage, ...]:
    """Return the parametrised stages that produce the table of an arm, with the stage ``features`` last.

    A table that the run already has needs no stages. Nor does the table of the oracle, which needs no model.

    Args:
        arm: name of the table.
        own: name of the table of the run.
    """
    if arm in (own, COMPETITOR, ORACLE_ARM):
        return ()
    return (Alignment(RULE_OF_ARM[arm]), Features(RULE_OF_ARM[arm])) if arm in RULE_OF_ARM else (Features(arm),)


def evaluated(
    run: Path,
    folder: Path,
    config: Config,
    dataset: Dataset,
    split: Split,
    arms: Sequence[Arm],
    population: pl.DataFrame,
    seeds: int,
    competitors: Sequence[str] = (COMPETITOR,),
) -> dict[str, Any]:
    """Train arms on the exposures of the period ``ranker``, and evaluate them on the test exposures of the users in a
    feature table.

    Args:
        run: run directory, for its name.
        folder: folder of the cells.
        config: configuration with the ranker to train in the section ``ranking``.
        dataset, split: dataset and split of the run.
        arms: arms to compare.
        population: feature table whose users are evaluated.
        seeds: number of training runs per arm.
        competitors: arms with which every later arm is also compared.

    Returns:
        ``run`` and ``data`` (names of the run and its dataset), ``notes`` (on how the data was made), ``seeds``
        (training runs per arm), ``arms`` (their names), ``users`` and ``exposures`` (numbers in the test), ``cells`` (a
        record per arm and seed with the file of its test predictions), ``rows`` (metrics, see
        :func:`taiji.experiments.study.evaluate_seeds`) and ``controls`` (whether a negative control shows a gain, see
        :func:`taiji.experiments.study.control_findings`).
    """
    train, test = exposures(dataset, split, "ranker"), exposures(dataset, split, "test")
    test = test.join(population.select("user").unique(), on="user", how="semi", maintain_order="left")
    trainer, version = built_in(dataset, settled_once(dataset, train, config.ranking, config.seed))
    read = [ranker_tables(config), foreign_code(config.ranking.model_dump(mode="json"))]
    version = value_hash([version, *read]) if any(read) else version
    cells = run_cells(
        train, test, arms, range(seeds), trainer, folder / "cells", trainer_version=version, tasks=dataset.tasks
    )
    start = split.interval("test")[0]
    rows = aggregate(
        cells,
        folder / "cells",
        test,
        sparsest_third(dataset, test["user"], start),
        tasks=dataset.tasks,
        groups=groups_of(dataset, test, start),
        competitors=competitors,
        resamples=config.evaluation.resamples,
        level=config.evaluation.level,
        seed=config.seed,
    )
    return {
        "run": run.name,
        "data": dataset.name,
        "notes": list(dataset.notes),
        "seeds": seeds,
        "arms": [arm.name for arm in arms],
        "users": test["user"].n_unique(),
        "exposures": len(test),
        "cells": cells,
        "rows": rows,
        "controls": control_findings(rows),
    }


def groups_of(dataset: Dataset, test: pl.DataFrame, start: int) -> dict[str, Any]:
    """Return masks of groups of test rows: cold items, and the departments (level 1) with the most rows."""
    past = dataset.events.filter((pl.col("click") == 1) & (pl.col("time") < start))["item"]
    seen = np.bincount(past.to_numpy(), minlength=dataset.n_items)
    item = test["item"].to_numpy()
    groups = {"cold items": seen[item] < COLD}
    department = dataset.items["category_l1"].gather(test["item"])
    names = (
        department.drop_nulls()
        .value_counts(sort=True, name="rows")
        .sort("rows", "category_l1", descending=[True, False])
    )
    groups |= {
        f"department {name}": (department == name).fill_null(False).to_numpy()
        for name in names["category_l1"][:DEPARTMENTS]
    }
    return groups


def split_at(path: Path) -> Split:
    """Read the split that the stage `examples` wrote."""
    return Split(tuple(read_json(path)["bounds"]))


def _truth(run: Path, config: Config, dataset: Dataset, split: Split) -> pl.DataFrame:
    """Return the feature rows of the run with the next item instead of the answer."""
    rows = pl.read_parquet(run / "features" / "taiji.parquet", columns=["user", "as_of"])
    lines = load_embedder(config.embedder.name, config.embedder.device).encode(
        item_lines(dataset, config.reasoning.prompts.title_characters)
    )
    new = config.examples.target == "next_new_item"
    vectors = future_mean(dataset, rows["user"].to_numpy(), rows["as_of"].to_numpy(), lines, new=new)
    return fit_table(dataset, rows, vectors, split.interval("test")[0], config.features, ORACLE_ARM, config.seed)[1]


def print_study(found: dict[str, Any], groups: Sequence[str] = ()) -> None:
    """Print the value of each arm by group (all groups, or the given ones), and the results of the negative
    controls."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 150))
    console.print(
        f"[bold]{escape(found['run'])}[/bold]  {escape(found['data'])}  ·  {counted(found['users'], 'user')}, {counted(found['exposures'], 'exposure')}, {counted(found['seeds'], 'training run')} per arm",
        highlight=False,
    )
    rows = {(row["group"], row["features"], row["metric"]): row for row in found["rows"]}
    shown = list(dict.fromkeys(row["metric"] for row in found["rows"] if split_key(row["metric"])[1] in MAIN_METRICS))
    for group in dict.fromkeys(row["group"] for row in found["rows"]):
        if groups and group not in groups:
            continue
        grid = Table(
            title=f"{escape(group)}: value, difference from no features, difference from history_mean",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        grid.add_column("features", no_wrap=True)
        for metric in shown:
            grid.add_column(key_title(metric), justify="right")
        for arm in found["arms"]:
            grid.add_row(arm, *(_cell(rows.get((group, arm, metric))) for metric in shown))
        console.print(grid)
    for line in found["controls"]:
        console.print(f"  {line['arm']}, {key_title(line['metric'])}: {line['verdict']}", highlight=False)


def _cell(row: dict[str, Any] | None) -> str:
    """Return a cell with the value, and the differences from no features and from ``history_mean``, with their
    intervals."""
    if row is None or row["value"] is None:
        return "–"
    digits = 4 if abs(row["value"]) >= SMALL else 5
    lines = [number_text(row["value"], digits)]
    beside = [gap for gap in row.get("competitors", []) if gap["against"] == COMPETITOR]
    for gap in [*([row["difference"]] if "difference" in row else []), *beside]:
        if gap["value"] is not None and gap["low"] is not None:
            lines.append(
                f"{number_text(gap['value'], digits, signed=True)} [{number_text(gap['low'], digits, signed=True)}, {number_text(gap['high'], digits, signed=True)}]"
            )
    return "\n[dim]".join(lines)

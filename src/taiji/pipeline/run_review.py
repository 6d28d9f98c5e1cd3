"""Print the audit of a run's rationales, and open the sessions of `taiji review`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from taiji.core.advice import resume_command
from taiji.core.errors import TaijiError
from taiji.core.manifests import Verifier
from taiji.core.number_format import counted
from taiji.data import Dataset
from taiji.pipeline.run_models import base_model
from taiji.reasoning.prompts import student_messages
from taiji.reasoning.review_session import ReviewSession
from taiji.reasoning.reviewers import Draft, ModelReviewer, PersonReviewer, Reviewer, RuleReviewer
from taiji.reasoning.selection import known_answers

if TYPE_CHECKING:
    from taiji.config import Config


def print_audit(found: dict[str, Any]) -> None:
    """Print the metrics of the audit, and the worst examples (their first 600 characters)."""
    from rich.console import Console
    from rich.pretty import Pretty

    console = Console()
    for name, value in found.items():
        console.rule(name.replace("_", " "), align="left")
        console.print(Pretty(value, max_string=600, expand_all=False))


def open_review(
    run: Path, config: Config, name: str, beside: Sequence[str], only: str | None, count: int
) -> ReviewSession:
    """Open a review session over some of the scored rationales of a run.

    Args:
        run: run directory.
        config: configuration of the run.
        name: name of the reviewer.
        beside: additional reviewers: ``rules``, ``model`` (the run's language model), or names of people.
        only: verdict (``keep``, ``reject`` or ``review``) of the rationales; None for all, starting with ``review``.
        count: number of rationales; if a later call asks for more, the earlier ones are kept.

    Raises:
        TaijiError: the run has not scored its rationales, or no rationale has this verdict.
    """
    folder = run / "review"
    drafts = _drafts(run, config, only, count)
    kinds: dict[str, Any] = {"rules": RuleReviewer, "model": lambda: ModelReviewer(base_model(config))}
    others: list[Reviewer] = [
        kinds[other]() if other in kinds else PersonReviewer(other, folder) for other in dict.fromkeys(beside)
    ]
    if name in kinds or name in beside:
        raise TaijiError(
            "The name of the reviewer is listed twice, or is the name of an automatic reviewer.",
            where="--as (by default me) or --beside",
            found=name,
            fix="give your own name",
        )
    return ReviewSession(drafts, PersonReviewer(name, folder), others, config.reasoning.review, folder)


def serve_review(session: ReviewSession, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C."""
    from taiji.reasoning.review_page import ReviewServer

    with ReviewServer(session, port) as server:
        say(
            f"{counted(session.progress()['waiting'], 'rationale is', 'rationales are')} waiting for {session.person.name}: {server.url}\nStop with Ctrl-C; every judgement is saved immediately."
        )
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.1)


def print_review(session: ReviewSession) -> None:
    """Print the progress of the review and the agreement of the reviewers."""
    found, progress = session.summary(), session.progress()
    records = ", ".join(f"{count} {status}" for status, count in found["records"].items())
    print(f"{records}; {progress['waiting']} waiting for {session.person.name}")
    for name, means in found["means"].items():
        print(f"{name}: " + ", ".join(f"{axis} {mean:.2f}" for axis, mean in means.items()))
    print(
        "agreement (Fleiss' kappa, pass or fail): "
        + ("not yet defined" if found["kappa"] is None else f"{found['kappa']:.2f}")
    )
    if progress["waiting"]:
        print(f"to fill in: {session.folder / session.person.name}.todo.jsonl; save as {session.person.file}")
    print(f"log: {session.folder / 'log.jsonl'}, {found['entries']} entries, last hash {found['head']}")


def _drafts(run: Path, config: Config, only: str | None, count: int) -> list[Draft]:
    needed = [run / "data" / "dataset", run / "examples" / "examples.parquet", run / "selection" / "verdicts.parquet"]
    missing = [path for path in needed if not path.exists()]
    if missing:
        copies = (
            f"; to review its copies: taiji review {run} --copies"
            if (run / "copywriting" / "copies.parquet").exists()
            else ""
        )
        raise TaijiError(
            "The run has no scored rationales yet.", where=str(missing[0]), fix=resume_command(run) + copies
        )
    Verifier().demand_whole(run, ("data", "examples", "selection"))
    verdicts = pl.read_parquet(needed[2]).filter(pl.col("rationale") != "")
    if only:
        verdicts = verdicts.filter(pl.col("verdict") == only)
    if verdicts.is_empty():
        raise TaijiError(
            "There is no rationale to review.",
            where=str(needed[2]),
            found=f"none with the verdict {only!r}" if only else "only rationales without a text",
            fix="choose another verdict with --only, or leave it out" if only else None,
        )
    order = np.random.default_rng([config.seed, 41]).permutation(len(verdicts))
    # Doubtful rationales come first. Among the others, the position must not reveal whether one was kept or rejected.
    mixed = verdicts[order.tolist()]
    chosen = pl.concat([mixed.filter(pl.col("verdict") == "review"), mixed.filter(pl.col("verdict") != "review")]).head(
        count
    )
    dataset, prompts, tokenizer = Dataset.load(needed[0]), config.reasoning.prompts, base_model(config).tokenizer
    examples = (
        pl.read_parquet(needed[1])
        .filter(pl.col("role") == "rationale")
        .join(chosen.select("example").unique(), on="example", how="semi")
    )
    known = {row["example"]: row for row in known_answers(dataset, examples, prompts, tokenizer).iter_rows(named=True)}
    at = {example: (user, as_of) for example, user, as_of in examples.select("example", "user", "as_of").iter_rows()}
    drafts = []
    for example, sample, rationale in chosen.select("example", "sample", "rationale").iter_rows():
        shown = student_messages(dataset, *at[example], prompts, tokenizer)[-1]["content"]
        facts = known[example]
        (title, levels), *further = ((item["title"], tuple(item["levels"])) for item in facts["items"])
        drafts.append(
            Draft(f"{example}#{sample}", shown, facts["answer"], title, levels, rationale, further=tuple(further))
        )
    return drafts

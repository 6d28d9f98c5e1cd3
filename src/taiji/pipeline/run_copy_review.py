"""Implementation of `taiji review RUN --copies`, in which reviewers compare the texts about items (copies) that a run
has written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from taiji.copywriting.copy_review import CopyReview, agreement, comparisons, judged_pairs
from taiji.core.artifacts import read_parquet
from taiji.core.errors import ArtifactError
from taiji.core.manifests import Verifier
from taiji.core.number_format import counted
from taiji.pipeline.run_copy import REVIEW, STAGE


def open_copy_review(run: Path, seed: int, name: str, count: int) -> CopyReview:
    """Open a session in which a reviewer compares the texts that `taiji copy` has written.

    Args:
        run: run directory in which ``taiji copy`` has written texts.
        seed: random seed for the comparisons.
        name: name of the reviewer.
        count: number of comparisons; if a later call asks for more, the earlier ones are kept.

    Raises:
        ArtifactError: no texts have been written in the run, or their table is damaged.
    """
    if not (run / STAGE / "copies.parquet").exists():
        raise ArtifactError(
            "The run has no marketing texts to compare.", where=str(run / STAGE), expected="copies.parquet", found="none", fix=f"taiji copy {run}"
        )  # fmt: skip
    Verifier().demand_whole(run, (STAGE,))
    copies = read_parquet(run / STAGE / "copies.parquet")
    return CopyReview(comparisons(copies, count, seed), name, run / REVIEW)


def serve_copy_review(run: Path, session: CopyReview, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C."""
    from taiji.copywriting.copy_review_page import CopyReviewServer

    facts: dict[str, list[tuple[str, str]]] = {}
    for item, name, text in read_parquet(run / STAGE / "facts.parquet", ["item_id", "name", "text"]).iter_rows():
        facts.setdefault(item, []).append((name, text))
    with CopyReviewServer(session, facts, port) as server:
        waiting = counted(session.progress()["waiting"], "comparison is", "comparisons are")
        say(
            f"{waiting} waiting for {session.name}: {server.url}\nStop with Ctrl-C; every judgement is saved immediately."
        )
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.1)


def copy_review_summary(session: CopyReview, least_z: float) -> dict[str, int | str]:
    """Return the progress of the session, the number of training pairs from all reviewers' judgements, and how often
    several reviewers agreed.

    Args:
        session: the session.
        least_z: smallest preference, in standard errors, that gives a pair (``copywriting.pairs.least_z``).
    """
    same, several = agreement(session.folder)
    return {
        **session.progress(),
        "pairs": len(judged_pairs(session.folder, least_z)),
        "judged by several": several,
        "of these agreed": same,
        "judgements": str(session.file),
    }

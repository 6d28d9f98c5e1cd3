"""Summarise a proposal of `taiji init` as text for people, or as JSON values for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import Any

import polars as pl
import yaml

from taiji.data import Dataset
from taiji.data.reading_tables import reading_tables
from taiji.pipeline.initialise import Initialised

ROWS = 4
"""Number of rows shown of each table."""


def initialised_text(made: Initialised) -> str:
    """Return the proposal, the preview and the next command as text."""
    proposal, dataset = made.proposal, made.dataset
    lines: list[str] = []
    if made.layout:
        lines.append(
            f"LAYOUT\n  {made.layout}: known, so no mapping is needed. Only the files of this layout are read; "
            "with --set or --ignore, a mapping of all files is proposed instead."
        )
    if proposal:
        lines.append("FILES")
        parts = {
            table.path.name: role
            for role in ("users", "items", "events")
            if (table := getattr(proposal.roles, role)) is not None
        }
        for table in made.tables:
            role = parts.get(table.path.name, "not used")
            lines.append(
                f"  {table.path.name}: {len(table.frame):,} rows -> {role}"
                + "".join(f" ({reason})" for reason in proposal.roles.reasons.get(role, ()))
            )
        lines.append("\nMAPPING")
        width = max(len(key) for key in proposal.guesses)
        for key, guess in proposal.guesses.items():
            value = (
                ", ".join(map(str, guess.value))
                if isinstance(guess.value, tuple)
                else yaml.safe_dump(guess.value, default_flow_style=True, width=10**6, allow_unicode=True)
                .removesuffix("...\n")
                .strip()
            )
            others = (
                f" [other candidates: {', '.join(name for name, _ in guess.others)}]"
                if guess.others and guess.confidence < 0.8
                else ""
            )
            lines.append(f"  {key:<{width}}  {guess.sure:<6}  {value}  ({'; '.join(guess.reasons)}){others}")
        for file, columns in proposal.unused.items():
            lines.append(f"  not used from {file}: {', '.join(columns)}")
        for line, why in proposal.suggestions:
            lines.append(f"  could be added to events: {line}  ({why})")
    lines.append("\nTABLES")
    with pl.Config(
        tbl_rows=ROWS,
        tbl_cols=12,
        fmt_str_lengths=32,
        tbl_hide_dataframe_shape=True,
        tbl_formatting="ASCII_MARKDOWN",
        tbl_width_chars=160,
        tbl_hide_column_data_types=True,
    ):
        for name, frame in (
            ("items", dataset.items.drop("item")),
            ("users", dataset.users.drop("user")),
            ("events", _readable(dataset)),
        ):
            lines.append(
                f"{name}: {len(dataset.events) if name == 'events' else len(frame):,} rows\n{frame.head(ROWS)}\n"
            )
    events = dataset.events
    first, last = (pl.Series([events["time"][place]]).cast(pl.Datetime("us"))[0] for place in (0, -1))
    known = events.filter(pl.col("click") == 1)["conversion"].drop_nulls()
    lines.append(
        f"{first:%Y-%m-%d} to {last:%Y-%m-%d}; clicked: {_share(events['click']):.1%}; converted: "
        + (f"{_share(known):.1%} of the clicks" if len(known) else "unknown")
    )
    if dataset.reading:
        lines.append("\nREADING")
        for title, head, rows in reading_tables(dataset.reading):
            lines += ["", title, *_aligned([head, *rows])]
        lines.append("")
    for note in dataset.notes:
        lines.append(f"note: {note}")
    for number, prompt in enumerate(made.prompts, start=1):
        lines.append(f"\nPROMPT {number}: {prompt}")
    if made.doubts:
        lines.append("\nPLEASE CHECK")
        for doubt in made.doubts:
            lines.append(f"  - {doubt}")
    config = quote(str(made.files[-1]))
    lines.append("\nwritten: " + ", ".join(map(str, made.files)) + f"\nnext: {made.command}")
    lines.append(
        f"or first, in minutes: taiji oracle {config}   # the gain from titles, and the most that a language model could add"
    )
    lines.append(
        f"or a recommender from the log alone: taiji recommend {config} --name {quote(made.files[-1].stem + '-lists')}"
    )
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _share(labels: pl.Series) -> float:
    return float(labels.cast(pl.Float64).to_numpy().mean())


def _readable(dataset: Dataset) -> pl.DataFrame:
    """Return the first events with their original ids, and with times as dates."""
    events = dataset.events.head(ROWS)
    return events.with_columns(
        dataset.users["user_id"].gather(events["user"]).alias("user_id"),
        dataset.items["item_id"].gather(events["item"]).alias("item_id"),
        pl.col("time").cast(pl.Datetime("us")),
    ).select("user_id", "item_id", "time", "exposed", "click", "conversion", "price", *dataset.event_columns.names)


def as_json(made: Initialised) -> dict[str, Any]:
    """Return the content of :class:`Initialised` for scripts."""
    proposal = made.proposal
    guesses = {
        key: {
            "value": guess.value,
            "confidence": round(guess.confidence, 2),
            "reasons": list(guess.reasons),
            "others": [list(other) for other in guess.others],
        }
        for key, guess in (proposal.guesses if proposal else {}).items()
    }
    rows = {"users": made.dataset.n_users, "items": made.dataset.n_items, "events": len(made.dataset.events)}
    return {
        "guesses": guesses,
        "unused": proposal.unused if proposal else {},
        "suggestions": [line for line, _ in proposal.suggestions] if proposal else [],
        "rows": rows,
        "layout": made.layout or None,
        "settings": made.sizes,
        "reading": made.dataset.reading.model_dump(mode="json") if made.dataset.reading else None,
        "doubts": made.doubts,
        "prompts": made.prompts,
        "files": [str(path) for path in made.files],
        "next": made.command,
    }

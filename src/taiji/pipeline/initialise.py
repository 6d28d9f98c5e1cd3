"""Implementation of `taiji init`, which turns a folder of unfamiliar files into a mapping, a preview and a runnable
configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from types import SimpleNamespace
from typing import Any

import polars as pl

from taiji.config import load_config
from taiji.core.artifacts import write_text
from taiji.core.errors import ConfigError, InputError, TaijiError
from taiji.core.manifests import has_finished_stage
from taiji.core.number_format import counted
from taiji.data import Dataset, DataSettings, ExampleSettings, Split, make_examples, time_split
from taiji.data.discovery.parts import Question
from taiji.data.discovery.propose import Proposal, propose
from taiji.data.discovery.relations import unlinked
from taiji.data.discovery.table_files import Table, read_tables
from taiji.data.reading_checks import PROFILE
from taiji.data.sources import read_source, recognised
from taiji.pipeline.initial_files import configuration_text, mapping_text
from taiji.pipeline.names import run_name
from taiji.reasoning.prompts import domains, student_prompt

PROMPTS = 3
ENOUGH_PROMPTS = 100
LEAST_PROMPTS = 12
CHARACTERS_A_TOKEN = 4
COLUMNS = ("_id", ".timestamp", ".title")
"""Endings of the mapping keys whose value is the name of a column."""
CLICK_RATES = 0.001, 0.8
"""Lowest and highest click rate that cause no remark."""


@dataclass(frozen=True)
class Initialised:
    """Result of `taiji init`: findings and written files.

    Attributes:
        tables: inspected files.
        proposal: proposed mapping with its reasons; None for a folder with a known layout.
        dataset: contents of the files, read according to the mapping.
        prompts: examples of prompts, rendered as text.
        sizes: settings chosen for a small log, by configuration key.
        doubts: points that a person should check.
        files: written files.
        layout: name of the source that knows the layout of the folder; empty if the mapping was proposed.
    """

    tables: list[Table]
    proposal: Proposal | None
    dataset: Dataset
    prompts: list[str]
    sizes: dict[str, Any]
    doubts: list[str]
    files: list[Path]
    layout: str = ""

    @property
    def command(self) -> str:
        """Command to run next, with ``--resume`` if a run of this name has finished stages."""
        config = self.files[-1]
        resumes = has_finished_stage(Path("runs") / config.stem)
        return f"taiji run {quote(str(config))}{' --resume' if resumes else ''}"


def initialise(
    folder: Path,
    to: Path,
    name: str,
    answers: dict[str, str],
    ask: Callable[[Question], str] | None = None,
    *,
    force: bool = False,
    ignore: Sequence[str] = (),
) -> Initialised:
    """Examine a folder, propose a mapping, test it on the complete files, and write mapping and configuration.

    Args:
        folder: folder that contains the files.
        to: output folder of ``NAME.yaml`` and ``NAME-mapping.yaml``.
        name: name of dataset and run.
        answers: mapping keys that the user has decided, with their values.
        ask: function that asks the user a question and returns the answer; None if the command is not interactive.
        force: True to overwrite the files of an earlier call.
        ignore: name patterns of files to skip.

    Raises:
        TaijiError: the name is invalid, there is nothing to read, a file is broken, a question is open and ``ask`` is
            None, the files exist already, or the data contradict the proposal.
    """
    run_name(name, f"the name of the folder {folder}" if name == folder.resolve().name else "--name")
    config, mapping = to / f"{name}.yaml", to / f"{name}-mapping.yaml"
    _free([config, mapping], force)
    layout = recognised(folder) if not answers and not ignore else None
    if layout is not None:
        dataset = Dataset.from_tables(read_source(DataSettings(source=str(folder))))
        sizes, doubts = _sizes(dataset)
        write_text(
            config,
            configuration_text(folder, None, name, sizes, f"{folder.name} has a known layout: no mapping is needed"),
        )
        return Initialised(
            [],
            None,
            dataset,
            _prompts(dataset, sizes),
            sizes,
            [*_found(dataset, False), *doubts, *_rate(dataset)],
            [config],
            type(layout).__name__,
        )
    tables, left_out = read_tables(folder, ignore)
    try:
        proposal = propose(tables, answers, name)
    except InputError as error:
        raise _with_notes(error, left_out) from error
    while proposal.questions and ask:
        answers = {**answers, **{question.key: ask(question) for question in proposal.questions}}
        proposal = propose(tables, answers, name)
    roles = proposal.roles
    spare = [table for table in tables if table not in (roles.events, roles.items, roles.users)]
    same = [table.path.name for table in spare if table.columns.keys() == roles.events.columns.keys()]
    left_out += [
        f"{other} has the same columns as {roles.events.path.name} and is not used. If both belong to the log, concatenate the two files."
        for other in same
    ]
    left_out = [*left_out, *(note for table in spare if (note := unlinked(roles.events, table)))]
    if proposal.questions:
        raise _undecided(folder, proposal, answers)
    proposed = mapping.with_suffix(".proposed.yaml") if mapping.exists() else mapping
    write_text(proposed, mapping_text(proposal, folder))
    try:
        dataset = Dataset.from_tables(read_source(DataSettings(source=str(folder), mapping=proposed)))
    except TaijiError as error:
        written = f"the proposed mapping is in {proposed}: correct it there, or override it with --set and --force"
        raise InputError(
            f"The files do not match the proposed mapping. {error.message}",
            where=error.where,
            expected=error.expected,
            found=error.found,
            fix=f"{error.fix}; {written}" if error.fix else written,
        ) from error
    proposed.replace(mapping)  # a mapping of an earlier call is replaced only by one that can be read
    sizes, doubts = _sizes(dataset)
    if dataset.domain not in domains(None, "student"):
        doubts.append(
            f"There are no prompt templates for the domain {dataset.domain} (only for {', '.join(domains(None, 'student'))}): "
            "write them into a folder and name it in reasoning.prompts.templates (see docs/reasoning.md)."
        )
    write_text(config, configuration_text(folder, mapping, name, sizes, "the mapping assigns a role to each column"))
    load_config(config)
    return Initialised(
        tables,
        proposal,
        dataset,
        _prompts(dataset, sizes),
        sizes,
        [*left_out, *proposal.doubts, *_found(dataset, True), *doubts, *_rate(dataset)],
        [mapping, config],
    )


def _free(paths: list[Path], force: bool) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise InputError(
            "Files of an earlier call already exist.",
            where=", ".join(existing),
            fix="add --force to overwrite them, or choose another --name or --to",
        )


def _with_notes(error: InputError, notes: list[str]) -> InputError:
    """Add the names of the skipped files to an error about missing data, because the data may be in these files."""
    found = "; ".join([*([error.found] if error.found else []), *notes])
    return InputError(error.message, where=error.where, expected=error.expected, found=found, fix=error.fix)


def _undecided(folder: Path, proposal: Proposal, answers: dict[str, str]) -> ConfigError:
    """Return one error with all open questions, their candidates and the command that answers them."""
    lines, options = [], [f"--set {quote(f'{key}={value}')}" for key, value in answers.items()]
    roles = proposal.roles
    for table in dict.fromkeys(
        table.path.name for table in (roles.events, roles.items, roles.users) if table and table.header
    ):
        lines.append(
            f"the first line of {table} does not look like a header, so its columns are called column_1, column_2, …"
        )
    for question in proposal.questions:
        lines.append(f"{question.key}: {question.what}")
        lines += [f"    {choice.value}  ({'; '.join(choice.reasons)})" for choice in question.choices]
        options.append(
            f"--set {question.key}={'FILE' if question.key.endswith('.file') else 'COLUMN' if question.key.endswith(COLUMNS) else 'CHOICE'}"
        )
    rules = any(question.key in ("events.click", "events.conversion") for question in proposal.questions)
    return ConfigError(
        "Some roles cannot be determined from the files. Please decide:",
        where=str(folder),
        found="\n    ".join(lines),
        fix=f"choose an answer for each: taiji init {quote(str(folder))} {' '.join(options)}"
        + ("; a label may be any rule, such as 'COLUMN in (a, b)'" if rules else ""),
    )


def _sizes(dataset: Dataset) -> tuple[dict[str, Any], list[str]]:
    """Choose settings under which the log provides enough prompts, and return them with remarks on the size of the
    log."""
    try:
        split = time_split(dataset)
    except TaijiError as error:
        return {}, [f"THE LOG IS TOO SHORT FOR A RUN. {error.message} {error.found or ''} ({error.expected})."]
    best: tuple[int, dict[str, Any]] = (0, {})
    for target in ("next_new_item", "next_purchase"):
        for history in (5, 3, 2, 1):
            counts = [
                _count(dataset, split, period, ExampleSettings(target=target, min_history=history))
                for period in ("llm", "test")
            ]  # type: ignore[arg-type]
            chosen = {"examples.target": target, "examples.min_history": history}
            if min(counts) > 1.5 * best[0]:
                best = (min(counts), chosen)
            if min(counts) >= ENOUGH_PROMPTS:
                break
        if best[0] >= ENOUGH_PROMPTS:
            break
    defaults = {"examples.target": "next_new_item", "examples.min_history": 5}
    sizes = {key: value for key, value in best[1].items() if value != defaults[key]}
    if best[0] < LEAST_PROMPTS:
        return sizes, [
            f"THE LOG IS SMALL: it provides only {best[0]} prompts in the language model's period or in the test period, whichever has fewer. "
            "A run will have very little data or fail; provide a longer log."
        ]
    remarks = (
        [
            f"The log is sparse: a prompt requires only {counted(best[1]['examples.min_history'], 'earlier interaction')} of its user"
            + (
                ", and asks for the next item even if it is not new to the user."
                if best[1]["examples.target"] == "next_purchase"
                else "."
            )
        ]
        if sizes
        else []
    )
    return sizes, remarks


def _found(dataset: Dataset, proposed: bool) -> list[str]:
    """Return the findings of the reading report that the proposal does not cover."""
    findings = dataset.reading.findings if dataset.reading else ()
    return [finding.text for finding in findings if not proposed or finding.check != PROFILE]


def _rate(dataset: Dataset) -> list[str]:
    """Return a remark on a log in which nearly all, or hardly any, exposures are clicks."""
    clicks = dataset.events.filter(pl.col("exposed"))["click"].drop_nulls()
    if clicks.is_empty():
        return []
    share, (low, high) = float(clicks.cast(pl.Float64).to_numpy().mean()), CLICK_RATES
    if share > high:
        return [
            f"{share:.1%} OF THE EXPOSURES ARE CLICKS: a ranker has hardly any negatives to learn from. "
            "If the log omits them, sample popular items for each click: --set events.non_clicks=4 --force."
        ]
    if share < low:
        return [
            f"ONLY {share:.2%} OF THE EXPOSURES ARE CLICKS. Check the rule for events.click; if it is right, a ranker has "
            "little to learn from: provide a longer log, or one with fewer exposures per click."
        ]
    return []


def _count(dataset: Dataset, split: Split, period: str, settings: ExampleSettings) -> int:
    try:
        return len(make_examples(dataset, split, period, settings, 0))
    except TaijiError:
        return 0


def _prompts(dataset: Dataset, sizes: dict[str, Any]) -> list[str]:
    """Return the prompts of three users, spread over the log. A token is estimated as four characters, so no tokenizer
    is needed."""
    if dataset.domain not in domains(None, "student"):
        return []
    settings = load_config(preset="demo", overrides=[f"{key}={value}" for key, value in sizes.items()])
    try:
        examples = make_examples(dataset, time_split(dataset), "llm", settings.examples, 0)
    except TaijiError:
        return []
    rows = examples[[len(examples) * place // PROMPTS for place in range(min(PROMPTS, len(examples)))]]
    texts = []
    for user, as_of, user_id, target in rows.select("user", "as_of", "user_id", "target").iter_rows():
        prompt = student_prompt(dataset, user, as_of, settings.reasoning.prompts, _Letters())
        time = pl.Series([as_of]).cast(pl.Datetime("us"))[0]
        head = f"user {user_id}, as of {time:%Y-%m-%d %H:%M}; next item (not in the prompt): {dataset.items['title'][target]}"
        texts.append(
            head + "\n" + "\n".join(f"[{message['role']}] {message['content']}" for message in prompt.messages)
        )
    return texts


class _Letters:
    """Stand-in for a tokenizer where only lengths matter."""

    eos_token = bos_token = None
    chat_template = None

    def __call__(self, text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=range(len(text) // CHARACTERS_A_TOKEN))

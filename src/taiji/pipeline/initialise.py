"""`taiji init`: from a folder of unfamiliar files to a mapping, a preview and a configuration that runs."""

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
from taiji.core.manifests import MANIFEST
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
"""Ends of the mapping's keys that a column answers."""
CLICK_RATES = 0.001, 0.8
"""Between these a log's share of clicks is nothing to remark on."""


@dataclass(frozen=True)
class Initialised:
    """Result of `taiji init`: what was found and written.

    Attributes:
        tables: the files looked at.
        proposal: the mapping with its reasons; None for a folder whose layout is known.
        dataset: the files read as the mapping says.
        prompts: a few of the prompts a run would make, rendered as text.
        sizes: settings chosen for a small log, by key of the configuration.
        doubts: what a person should look at.
        files: what was written.
    """

    tables: list[Table]
    proposal: Proposal | None
    dataset: Dataset
    prompts: list[str]
    sizes: dict[str, Any]
    doubts: list[str]
    files: list[Path]

    @property
    def command(self) -> str:
        """Return the command to run next; where a run of that name has finished stages, the one that goes on with it."""
        config = self.files[-1]
        goes_on = any((Path("runs") / config.stem).glob(f"*/{MANIFEST}"))
        return f"taiji run {quote(str(config))}{' --resume' if goes_on else ''}"


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
    """Look at a folder, propose, try the proposal on the whole files, and write mapping and configuration.

    Args:
        folder: with the files.
        to: where ``NAME.yaml`` and ``NAME-mapping.yaml`` go.
        name: of data set and run.
        answers: keys of the mapping that the user decided.
        ask: puts a question to a person and returns one of its choices; None asks nothing.
        force: write over files of an earlier call.
        ignore: patterns of names in the folder that are not looked at.

    Raises:
        TaijiError: a name that no run can have, nothing to read, a broken file, a question that nobody may be asked, files in the way, or a proposal that the data refute.
    """
    run_name(name)
    config, mapping = to / f"{name}.yaml", to / f"{name}-mapping.yaml"
    _free([config, mapping], force)
    if not answers and not ignore and recognised(folder) is not None:
        dataset = Dataset.from_tables(read_source(DataSettings(source=str(folder))))
        sizes, doubts = _sizes(dataset)
        write_text(
            config,
            configuration_text(
                folder, None, name, sizes, f"{folder.name} has a layout that is known: no mapping is needed"
            ),
        )
        return Initialised(
            [],
            None,
            dataset,
            _prompts(dataset, sizes),
            sizes,
            [*_found(dataset, False), *doubts, *_rate(dataset)],
            [config],
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
        f"{other} has the columns of {roles.events.path.name} and plays no part: join them if both are the log."
        for other in same
    ]
    left_out = [*left_out, *(said for table in spare if (said := unlinked(roles.events, table)))]
    if proposal.questions:
        raise _undecided(folder, proposal, answers)
    write_text(mapping, mapping_text(proposal, folder))
    try:
        dataset = Dataset.from_tables(read_source(DataSettings(source=str(folder), mapping=mapping)))
    except TaijiError as error:
        written = f"the proposed mapping is in {mapping}: correct it there, or choose with --set and --force"
        raise InputError(
            f"The files do not fit the proposed mapping. {error.message}",
            where=error.where,
            expected=error.expected,
            found=error.found,
            fix=f"{error.fix}; {written}" if error.fix else written,
        ) from error
    sizes, doubts = _sizes(dataset)
    if dataset.domain not in domains(None, "student"):
        doubts.append(
            f"There are no prompt templates for the domain {dataset.domain} (there are for {', '.join(domains(None, 'student'))}): "
            "write them into a folder that reasoning.prompts.templates names, see docs/reasoning.md."
        )
    write_text(config, configuration_text(folder, mapping, name, sizes, "the mapping says which column is what"))
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
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise InputError(
            "Files of an earlier call are in the way.",
            where=", ".join(there),
            fix="add --force to write over them, or choose another --name or --to",
        )


def _with_notes(error: InputError, notes: list[str]) -> InputError:
    """Return the error with what was left out of the folder, which may be what it misses."""
    found = "; ".join([*([error.found] if error.found else []), *notes])
    return InputError(error.message, where=error.where, expected=error.expected, found=found, fix=error.fix)


def _undecided(folder: Path, proposal: Proposal, answers: dict[str, str]) -> ConfigError:
    """One message with every question, its candidates and the command that answers them."""
    lines, options = [], [f"--set {quote(f'{key}={value}')}" for key, value in answers.items()]
    for question in proposal.questions:
        lines.append(f"{question.key}: {question.what}")
        lines += [f"    {choice.value}  ({'; '.join(choice.reasons)})" for choice in question.choices]
        options.append(
            f"--set {question.key}={'FILE' if question.key.endswith('.file') else 'COLUMN' if question.key.endswith(COLUMNS) else 'CHOICE'}"
        )
    return ConfigError(
        "The files do not tell everything, and nothing is guessed where it is open. Please say:",
        where=str(folder),
        found="\n    ".join(lines),
        fix=f"choose one of each: taiji init {quote(str(folder))} {' '.join(options)}",
    )


def _sizes(dataset: Dataset) -> tuple[dict[str, Any], list[str]]:
    """Settings under which the log yields prompts, and what to know about its size."""
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
            f"THE LOG IS SMALL: only {best[0]} prompts in its thinnest period. A run will work on very little or stop; bring a longer log."
        ]
    said = (
        [
            f"The log is thin: prompts need only {best[1]['examples.min_history']} earlier interactions ({best[1]['examples.target']})."
        ]
        if sizes
        else []
    )
    return sizes, said


def _found(dataset: Dataset, proposed: bool) -> list[str]:
    """Return what the reading report asks about, beyond what the proposal says of the profile."""
    findings = dataset.reading.findings if dataset.reading else ()
    return [finding.text for finding in findings if not proposed or finding.check != PROFILE]


def _rate(dataset: Dataset) -> list[str]:
    """Return what to know about a log in which nearly all exposures are clicks, or hardly any."""
    clicks = dataset.events.filter(pl.col("exposed"))["click"].drop_nulls()
    if clicks.is_empty():
        return []
    share, (low, high) = float(clicks.cast(pl.Float64).to_numpy().mean()), CLICK_RATES
    if share > high:
        return [
            f"{share:.1%} OF THE EXPOSURES ARE CLICKS: there are hardly any without a click for a ranker to learn from. "
            "If the log leaves them out, let popular items be sampled beside each click: --set events.non_clicks=4 --force."
        ]
    if share < low:
        return [
            f"ONLY {share:.2%} OF THE EXPOSURES ARE CLICKS. Check the rule for events.click; if it is right, a ranker has "
            "little to learn from: bring a longer log, or one with fewer of the exposures."
        ]
    return []


def _count(dataset: Dataset, split: Split, period: str, settings: ExampleSettings) -> int:
    try:
        return len(make_examples(dataset, split, period, settings, 0))
    except TaijiError:
        return 0


def _prompts(dataset: Dataset, sizes: dict[str, Any]) -> list[str]:
    """The prompts of three users, spread over the log; tokens are taken for four characters, to need no model."""
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
        moment = pl.Series([as_of]).cast(pl.Datetime("us"))[0]
        head = f"user {user_id}, as of {moment:%Y-%m-%d %H:%M}; what came next (the prompt does not say): {dataset.items['title'][target]}"
        texts.append(
            head + "\n" + "\n".join(f"[{message['role']}] {message['content']}" for message in prompt.messages)
        )
    return texts


class _Letters:
    """Stands in for a tokenizer where only lengths matter."""

    eos_token = bos_token = None
    chat_template = None

    def __call__(self, text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=range(len(text) // CHARACTERS_A_TOKEN))

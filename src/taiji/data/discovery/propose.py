"""Propose a mapping for the files of a folder. Every guess has a confidence and reasons, and every doubt is reported.

The evidence comes from names, values, and key relations between files. If the scores of the best two candidates for a
required role are close, the role is not guessed. It becomes a :class:`Question`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from taiji.core.errors import ConfigError
from taiji.core.settings import Settings
from taiji.core.yaml_files import parse_yaml
from taiji.data.discovery.assign import Roles, assign
from taiji.data.discovery.columns import Column
from taiji.data.discovery.event_time import event_time
from taiji.data.discovery.further import further
from taiji.data.discovery.labels import labels
from taiji.data.discovery.mapping_values import mapping_values
from taiji.data.discovery.oddities import told_by_times, units_of_price
from taiji.data.discovery.parts import (
    ANSWERED,
    Guess,
    Question,
    categories,
    description_score,
    pick,
    price_score,
    says_price,
    time_score,
    title_score,
)
from taiji.data.discovery.profile import profile
from taiji.data.discovery.relations import depends
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.unusable import columns_in, open_numbers, unusable
from taiji.data.personal import telling_contacts
from taiji.data.schema import LEVEL
from taiji.data.sources.column_mapping import EventsMapping, ItemsMapping, UsersMapping

NON_CLICKS = 4
FEW_ROWS = 0.05
"""Up to this share of the rows of a table, unusable rows are dropped and reported without asking the user."""


@dataclass
class Proposal:
    """Proposed mapping of a folder.

    Attributes:
        roles: assignment of files to the log, the items and the users.
        guesses: guesses by key of the mapping (``events.user_id``).
        questions: questions about parts of the mapping that the files do not determine.
        doubts: notes on decisions with weak evidence and on unused data, as sentences.
        unused: columns without a role, by file name.
        suggestions: optional lines for the ``events`` section of the mapping, each with its reason.
        values: values of the mapping, ready to be written. Parts with an open question are missing.
    """

    roles: Roles
    guesses: dict[str, Guess] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    unused: dict[str, list[str]] = field(default_factory=dict)
    suggestions: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


def propose(tables: list[Table], answers: Mapping[str, str] | None = None, name: str = "data") -> Proposal:
    """Propose a mapping for the files of a folder.

    Args:
        tables: tables of the folder.
        answers: the user's choices by key of the mapping: a column for ``events.user_id``, a file name for
            ``items.file``.
        name: default name of the dataset.

    Raises:
        InputError: an answer names a missing file, or no file can be a log; see
            :func:`taiji.data.discovery.assign.assign`.
        ConfigError: an answer names a missing column or an unknown key of the mapping.
    """
    answers = _flatten_timestamp(dict(answers or {}))
    roles, question = assign(tables, answers)
    proposal = Proposal(roles)
    if question:
        proposal.questions.append(question)
        return proposal
    builder = _ProposalBuilder(proposal, answers)
    builder.events()
    builder.items()
    builder.users()
    builder.further()
    builder.finish(name, tables)
    return proposal


def _flatten_timestamp(answers: dict[str, str]) -> dict[str, str]:
    """Split an answer such as ``events.timestamp={column: day, clock: time}`` into one key per part."""
    time = answers.get("events.timestamp", "")
    if time.startswith("{"):
        parts = parse_yaml(time, "the answer for events.timestamp")
        answers |= {f"events.timestamp.{part}": str(value) for part, value in parts.items() if part != "column"}
        answers["events.timestamp"] = str(parts.get("column", ""))
    return answers


class _ProposalBuilder:
    """Builder of a proposal, one role at a time. ``taken`` holds the columns of the log that have a role."""

    def __init__(self, proposal: Proposal, answers: dict[str, str]) -> None:
        self.proposal, self.roles, self.answers = proposal, proposal.roles, answers
        self.taken: set[str] = set()
        self.rules: tuple[str, ...] = ()
        self.item_columns: set[str] = set()
        self.user_columns: set[str] = set()

    def _accept(self, key: str, guess: Guess | Question | None) -> str | None:
        if isinstance(guess, Question):
            self.proposal.questions.append(guess)
            return None
        if guess is None:
            return None
        self.proposal.guesses[key] = guess
        return str(guess.value)

    def _pop_answer(self, key: str, table: Table) -> Guess | None:
        if self.answers.get(key, "null") == "null":  # null omits the key, see _apply_remaining_answers
            return None
        value = self.answers.pop(key)
        if value not in table.columns:
            raise ConfigError(
                "The column is empty." if value in table.empty else "The column does not exist.",
                where=f"{key}={value}",
                expected=f"a column of {table.path.name}: {', '.join(table.columns)}",
                found=value,
            )
        return Guess(value, 1.0, ANSWERED)

    def events(self) -> None:
        log = self.roles.events
        answered = {key: self._pop_answer(f"events.{key}", log) for key in ("user_id", "item_id")}
        self.taken |= {str(guess.value) for guess in answered.values() if guess}
        for key, scores in (("user_id", self.roles.user_scores), ("item_id", self.roles.item_scores)):
            guess = answered[key] or pick(
                f"events.{key}",
                log,
                {
                    name: score for name, score in scores.items() if name not in self.taken
                },  # one column cannot be both ids
                f"the column of {log.path.name} with the {'user' if key == 'user_id' else 'item'} of each event",
            )
            if column := self._accept(f"events.{key}", guess):
                self.taken.add(column)
        scores = {column.name: time_score(column) for column in log.columns.values() if column.name not in self.taken}
        finer = {name: score for name, score in scores.items() if name not in log.partition}
        scores = finer if any(score for score, _ in finer.values()) else scores
        time = self._accept(
            "events.timestamp",
            self._pop_answer("events.timestamp", log)
            or pick("events.timestamp", log, scores, f"the column of {log.path.name} with the time of each event"),
        )
        if time:
            self.taken.add(time)
            self._time(log, log.columns[time].understood)
        found = labels(log, self.taken)
        asked = {question.key for question in found.questions}
        for key, value in (("click", found.click), ("conversion", found.conversion)):
            if f"events.{key}" not in self.answers.keys() | asked and value is not None:
                self.proposal.guesses[f"events.{key}"] = Guess(value, found.confidence[key], found.reasons[key])
        self.taken |= set(found.columns)
        self.rules = found.columns
        if "events.click" not in self.answers:  # the doubts concern the proposed rule
            self.proposal.doubts += found.doubts
        self.proposal.questions += [question for question in found.questions if question.key not in self.answers]
        if "events.conversion" not in self.proposal.guesses.keys() | self.answers.keys() | asked:
            self.proposal.doubts += told_by_times(log, self.taken)
            self.proposal.doubts.append(
                "No column indicates conversions (purchases or high ratings): models are trained and evaluated on clicks only."
            )
        given = self.answers.get("events.click")
        if found.all_clicks if given is None else given.strip().lower() in ("1", "true"):
            why = "the log has no exposures without a click, and a ranker cannot learn from positives alone: popular items are sampled as negatives for each click"
            self.proposal.guesses["events.non_clicks"] = Guess(NON_CLICKS, 0.9, (why,))

    def _time(self, log: Table, column: Column) -> None:
        found = event_time(log, column, self.answers, self.taken)
        self.proposal.guesses |= found.guesses
        self.proposal.doubts += found.doubts
        if found.question:
            self.proposal.questions.append(found.question)
        if clock := found.guesses.get("events.timestamp.clock"):
            self.taken.add(str(clock.value))

    def items(self) -> None:
        table, log = self.roles.items or self.roles.events, self.roles.events
        joined = table is log
        item = self.proposal.guesses.get("events.item_id")
        if joined:
            if item is None:
                return
            key: str | None = str(item.value)
            self.proposal.guesses["items.item_id"] = Guess(
                key, item.confidence, (f"{log.path.name} is the only file with information about items",)
            )
            columns = [
                column
                for column in log.columns.values()
                if column.name not in self.taken and depends(log, str(key), column)
            ]
        else:
            guess = self._pop_answer("items.item_id", table) or pick(
                "items.item_id", table, self.roles.item_keys, f"the key of {table.path.name}"
            )
            key = self._accept("items.item_id", guess)
            columns = [column for column in table.columns.values() if column.name != key]
        scores = {column.name: title_score(column) for column in columns}
        answered = self._pop_answer("items.title", table)
        title = self._accept(
            "items.title",
            answered
            or (
                pick(
                    "items.title", table, scores, f"the column of {table.path.name} with a readable title of each item"
                )
                if any(score[0] >= 0.3 for score in scores.values())
                else None
            ),
        )
        if title is None and not any(question.key == "items.title" for question in self.proposal.questions) and key:
            self.proposal.guesses["items.title"] = Guess(
                key, 0.1, ("no column holds text about items; the id is used instead",)
            )
            self.proposal.doubts.append(
                "NO TEXT ABOUT ITEMS WAS FOUND. Prompts would contain only ids, which mean nothing to a language model, so its features cannot help. Add a file with titles."
            )
        self._contacts(table, title)
        self.item_columns = {name for name in (key, title) if name}
        described = [column for column in columns if column.name not in self.item_columns]
        self._description(table, described, table.columns[key].distinct if key else 0)
        rest = [column for column in columns if column.name not in self.item_columns]
        for name, guess in categories(table, rest).items():
            if f"items.{name}" not in self.answers:
                self.proposal.guesses[f"items.{name}"] = guess
                self.item_columns.add(guess.column or str(guess.value))
        for name in sorted(key.partition(".")[2] for key in self.answers if key.startswith("items.category_l")):
            if given := self._pop_answer(f"items.{name}", table):
                self.proposal.guesses[f"items.{name}"] = given
                self.item_columns.add(str(given.value))
        self._price("events", log, [column for column in log.columns.values() if column.name not in self.taken])
        if not joined:
            self._price("items", table, rest)
        repeated = table.columns[key].distinct < table.columns[key].present if key else False
        if repeated:
            self.proposal.guesses["items.one_per_id"] = Guess(
                True,
                0.9,
                (
                    "the items are read from the log: the first row of each item describes it"
                    if joined
                    else f"{key} is not unique: the first row of each id is used",
                ),
            )

    def _description(self, table: Table, columns: list[Column], items: int) -> None:
        """Propose the column of longer texts about the items."""
        scores = {column.name: description_score(column, items) for column in columns}
        best = max(scores, key=lambda name: (scores[name][0], name), default=None)
        guess = self._pop_answer("items.description", table)
        if guess is None and best is not None and scores[best][0] and "items.description" not in self.answers:
            guess = Guess(best, *scores[best])
        if guess is not None:
            self.proposal.guesses["items.description"] = guess
            self.item_columns.add(str(guess.value))
            self._contacts(table, str(guess.value))

    def _contacts(self, table: Table, name: str | None) -> None:
        if name and (contacts := telling_contacts(table.frame[name])):
            self.proposal.doubts.append(
                f"{table.path.name}: {contacts:,} values of {name} contain an e-mail address or a telephone number, which prompts would include. Remove them from the file."
            )

    def _price(self, section: str, table: Table, columns: list[Column]) -> None:
        prices = {column.name: price_score(column) for column in columns}
        best = max(prices, key=lambda name: (prices[name][0], name), default=None)
        if given := self._pop_answer(f"{section}.price", table):
            self.proposal.guesses[f"{section}.price"] = given
        elif best is not None and prices[best][0] >= 0.5:
            self.proposal.guesses[f"{section}.price"] = Guess(best, prices[best][0], prices[best][1])
            (self.taken if section == "events" else self.item_columns).add(best)
        elif best is not None:
            for column in (column for column in columns if says_price(column)):
                self.proposal.doubts.append(
                    f"{table.path.name}: {column.name} is named like a price, but too few of its values are prices ({column.describe()}), so it is not used."
                )

        if guess := self.proposal.guesses.get(f"{section}.price"):
            self.proposal.doubts += units_of_price(table, str(guess.value))

    def users(self) -> None:
        table, log = self.roles.users, self.roles.events
        user = self.proposal.guesses.get("events.user_id")
        if table is not None:
            key = self._accept(
                "users.user_id",
                self._pop_answer("users.user_id", table)
                or pick("users.user_id", table, self.roles.user_keys, f"the key of {table.path.name}"),
            )
            found = profile(
                table, [column for column in table.columns.values() if column.name != key], self._item_ids()
            )
            reasons: tuple[str, ...] = (f"columns of {table.path.name} that hold numbers or few distinct values",)
            repeated = bool(key) and table.columns[str(key)].distinct < table.columns[str(key)].rows
        else:
            if user is None or (log is self.roles.items):
                return
            key = str(user.value)
            free = [column for column in log.columns.values() if column.name not in self.taken | self.item_columns]
            found = profile(log, [column for column in free if depends(log, key, column)], self._item_ids())
            reasons, repeated = (f"columns of {log.path.name} that are constant for each user",), True
            if not found.told:
                return
            self.proposal.guesses["users.user_id"] = Guess(
                key, user.confidence, (f"{log.path.name} also describes the users",)
            )
        if not found.told and table is not None and "users.file" not in self.answers:
            self.roles.users = None
            for name in [name for name in self.proposal.guesses if name.startswith("users.")]:
                self.proposal.guesses.pop(name)
            self.proposal.questions = [
                question for question in self.proposal.questions if not question.key.startswith("users.")
            ]
            self.proposal.doubts.append(
                f"{table.path.name} is not used: it has no column about users that a prompt may show."
            )
            repeated = False
        if found.told:
            self.proposal.guesses["users.profile"] = Guess(found.told, 0.6, reasons)
            self.user_columns = {*found.told, str(key)}
            if "users.profile" not in self.answers:  # no note about a proposal that the user overrode
                self.proposal.doubts.append(
                    f"Prompts will show the language model each user's {', '.join(found.told)}. Remove from users.profile whatever the model must not see (names, contact data). "
                    "These columns have no timestamp: for every event of the log they show the values at the time when the table was written."
                )
        if found.doubt:
            self.proposal.doubts.append(found.doubt)
        if repeated:
            self.proposal.guesses["users.one_per_id"] = Guess(True, 0.9, ("the first row of each id is used",))

    def _item_ids(self) -> list[pl.Series]:
        """Return the distinct ids and titles of the items, one series for each column that contains them."""
        table, log = self.roles.items or self.roles.events, self.roles.events
        named = [(table, "items.item_id"), (table, "items.title"), (log, "events.item_id")]
        return [file.ids(str(self.proposal.guesses[key].value)) for file, key in named if key in self.proposal.guesses]

    def further(self) -> None:
        """Propose further labels of the log, and roles for the columns that describe a request and how its items were
        displayed."""
        log = self.roles.events
        taken = self.taken | self.item_columns | self.user_columns
        item = self.proposal.guesses.get("events.item_id")
        found = further(
            log, [name for name in log.columns if name not in taken], self.rules, [str(item.value)] if item else []
        )
        for key, guess in found.guesses.items():
            if ".".join(key.split(".")[:2]) not in self.answers:
                self.proposal.guesses[key] = guess
        self.proposal.suggestions = found.suggestions
        self.proposal.doubts += found.doubts

    def finish(self, name: str, tables: list[Table]) -> None:
        roles = self.roles
        if self.answers.get("name"):
            name = self.answers.pop("name")
        domain = self.answers.pop("domain") if "domain" in self.answers else None
        wanted, reason = roles.domain
        self.proposal.guesses["domain"] = Guess(
            domain or wanted,
            1.0 if domain else 0.7 if wanted != "shop" else 0.6,
            ("you set this" if domain else reason,),
        )
        for key in list(self.answers):
            if key.endswith(".file"):
                self.answers.pop(key)
        self._apply_remaining_answers()
        if self.answers:
            raise ConfigError(
                "An answer does not match any key of the mapping that applies to this folder.",
                where="; ".join(f"{key}={value}" for key, value in self.answers.items()),
                expected="an applicable key of the mapping, for example events.user_id, items.title, events.timestamp.format, domain",
                fix="correct the key; docs/data.md lists all keys",
            )
        self._decide_on_unusable_rows()
        self.taken |= set(roles.events.columns) & {
            name
            for key, guess in self.proposal.guesses.items()
            if key.startswith("events.")
            for name in columns_in(guess)
        }
        for table in tables:
            if table.empty:
                what = "empty columns were" if len(table.empty) > 1 else "an empty column was"
                self.proposal.doubts.append(f"{table.path.name}: {what} left out ({', '.join(table.empty)}).")
            used = (
                self.taken | self.item_columns | self.user_columns
                if table is roles.events
                else self.item_columns
                if table is roles.items
                else self.user_columns
                if table is roles.users
                else set()
            )
            decided = [str(guess.value) for guess in self.proposal.guesses.values() if guess.reasons == ANSWERED]
            if rest := [
                column for column in table.columns if column not in used and not _mentioned_in(column, decided)
            ]:
                self.proposal.unused[table.path.name] = rest
        self._other_logs(tables)
        self.proposal.values = mapping_values(self.roles, self.proposal.guesses, name)

    def _other_logs(self, tables: list[Table]) -> None:
        """Report unused files that have the same columns as the log, such as one file per behaviour."""
        parts = ("events.user_id", "events.item_id", "events.timestamp")
        columns = {str(self.proposal.guesses[part].value) for part in parts if part in self.proposal.guesses}
        others = [
            table.path.name
            for table in tables
            if table not in (self.roles.events, self.roles.items, self.roles.users) and columns <= table.columns.keys()
        ]
        if others and len(columns) == len(parts):
            self.proposal.doubts.append(
                f"{', '.join(others)}: not used, although {'it has' if len(others) == 1 else 'they have'} the columns {', '.join(sorted(columns))} of {self.roles.events.path.name}. "
                "If these rows belong to the log, write all of them into one file, with a column for the kind of event in each row (shown, click, purchase)."
            )

    def _apply_remaining_answers(self) -> None:
        """Apply the answers that have not been used yet. Any key of the mapping takes a value in YAML; ``null`` omits
        the key."""
        models: dict[str, type[Settings]] = {"items": ItemsMapping, "events": EventsMapping, "users": UsersMapping}
        for key in list(self.answers):
            section, _, part = key.partition(".")
            known = part in models[section].model_fields if section in models else key == "unusable"
            if known or (section == "items" and LEVEL.match(part)):
                given = self.answers.pop(key)
                value = (
                    given if given.startswith("`") else parse_yaml(given, f"the answer for {key}")
                )  # a text that starts with ` is a rule that begins with a quoted column, not YAML
                for name in [name for name in self.proposal.guesses if name == key or name.startswith(f"{key}.")]:
                    self.proposal.guesses.pop(name)
                if value is not None:
                    self.proposal.guesses[key] = Guess(
                        tuple(value) if isinstance(value, list) else value, 1.0, ANSWERED
                    )

    def _decide_on_unusable_rows(self) -> None:
        """Decide what to do with unusable rows and cells, and ask about ambiguous numbers."""
        self.proposal.questions += open_numbers(self.proposal.guesses, self.roles)
        if self._decided("unusable"):
            return
        found = unusable(self.proposal.guesses, self.roles)
        if found.reasons and found.worst <= FEW_ROWS:
            self.proposal.guesses["unusable"] = Guess("drop", 0.7, found.reasons)
            self.proposal.doubts.append(
                "Some rows or cells cannot be used and will be dropped (unusable: drop): "
                + "; ".join(found.reasons)
                + "."
            )
        elif found.reasons:
            choices = (
                Guess("drop", 0.5, ("drop these rows and count them in the report",)),
                Guess("error", 0.5, ("stop with an error that lists the rows, which you can then correct",)),
            )
            problems = "; ".join(found.reasons)
            self.proposal.questions.append(
                Question("unusable", f"what to do with the many rows that cannot be used: {problems}", choices)
            )

    def _decided(self, key: str) -> bool:
        return key in self.proposal.guesses


def _mentioned_in(column: str, answers: list[str]) -> bool:
    """Return True if one of the user's answers mentions the column, possibly inside a rule."""
    return any(re.search(rf"(?<!\w){re.escape(column)}(?!\w)", value) for value in answers)

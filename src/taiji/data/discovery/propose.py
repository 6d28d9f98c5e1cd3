"""From facts about a folder's files to a proposed mapping: every guess with its confidence and reasons, every doubt reported.

Names, values and keys between files each give evidence. If the best two candidates for a required role are close, nothing is guessed: the role
becomes a :class:`Question`.
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
from taiji.data.discovery.oddities import told_by_times, units_of_price
from taiji.data.discovery.parts import (
    Guess,
    Question,
    categories,
    pick,
    price_score,
    says_price,
    time_score,
    title_score,
)
from taiji.data.discovery.profile import profile
from taiji.data.discovery.relations import depends
from taiji.data.discovery.table_files import Table
from taiji.data.discovery.unusable import columns_in, number_forms_of, open_numbers, unusable
from taiji.data.personal import telling_contacts
from taiji.data.schema import LEVEL
from taiji.data.sources.column_mapping import EventsMapping, ItemsMapping, UsersMapping

NON_CLICKS = 4
FEW_ROWS = 0.05
"""Largest share of unusable rows to drop (and report); more are left to the check, which names them."""


@dataclass
class Proposal:
    """Proposed mapping of a folder.

    Attributes:
        roles: roles of the files.
        guesses: by key of the mapping (``events.user_id``).
        questions: required roles that could not be determined.
        doubts: sentences about decisions on thin evidence, and about unused data.
        unused: file name to columns without a role.
        suggestions: optional lines for the mapping's events, each with its reason.
        values: the mapping, ready to be written (without the parts of open questions).
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
        tables: tables of one folder.
        answers: keys of the mapping that the user decided (``events.user_id`` to a column, ``items.file`` to a file name).
        name: name of the data set.

    Raises:
        ConfigError: an answer names something missing, or no file can be a log.
    """
    answers = _flat(dict(answers or {}))
    roles, question = assign(tables, answers)
    proposal = Proposal(roles)
    if question:
        proposal.questions.append(question)
        return proposal
    maker = _Maker(proposal, answers)
    maker.events()
    maker.items()
    maker.users()
    maker.further()
    maker.finish(name, tables)
    return proposal


def _flat(answers: dict[str, str]) -> dict[str, str]:
    """Return answers in which ``events.timestamp={column: day, clock: time}`` is one key each."""
    time = answers.get("events.timestamp", "")
    if time.startswith("{"):
        parts = parse_yaml(time, "--set events.timestamp")
        answers |= {f"events.timestamp.{part}": str(value) for part, value in parts.items() if part != "column"}
        answers["events.timestamp"] = str(parts.get("column", ""))
    return answers


class _Maker:
    """Maker of a proposal, role by role; ``taken`` are the log's columns with a role."""

    def __init__(self, proposal: Proposal, answers: dict[str, str]) -> None:
        self.p, self.roles, self.answers = proposal, proposal.roles, answers
        self.taken: set[str] = set()
        self.rules: tuple[str, ...] = ()
        self.item_columns: set[str] = set()
        self.user_columns: set[str] = set()

    def _take(self, key: str, guess: Guess | Question | None) -> str | None:
        if isinstance(guess, Question):
            self.p.questions.append(guess)
            return None
        if guess is None:
            return None
        self.p.guesses[key] = guess
        return str(guess.value)

    def _answer(self, key: str, table: Table) -> Guess | None:
        if self.answers.get(key, "null") == "null":  # null: to be left out, at the end
            return None
        value = self.answers.pop(key)
        if value not in table.columns:
            raise ConfigError(
                "That column holds no value." if value in table.empty else "There is no such column.",
                where=f"--set {key}={value}",
                expected=f"a column of {table.path.name}: {', '.join(table.columns)}",
                found=value,
            )
        return Guess(value, 1.0, ("you said so",))

    def events(self) -> None:
        log = self.roles.events
        said = {key: self._answer(f"events.{key}", log) for key in ("user_id", "item_id")}
        self.taken |= {str(guess.value) for guess in said.values() if guess}
        for key, scores in (("user_id", self.roles.user_scores), ("item_id", self.roles.item_scores)):
            guess = said[key] or pick(
                f"events.{key}",
                log,
                {
                    name: score for name, score in scores.items() if name not in self.taken
                },  # a column can have only one role as id
                f"the column of {log.path.name} that tells {'who acted' if key == 'user_id' else 'which item it was'}",
            )
            if column := self._take(f"events.{key}", guess):
                self.taken.add(column)
        scores = {column.name: time_score(column) for column in log.columns.values() if column.name not in self.taken}
        finer = {name: score for name, score in scores.items() if name not in log.partition}
        scores = finer if any(score for score, _ in finer.values()) else scores
        time = self._take(
            "events.timestamp",
            self._answer("events.timestamp", log)
            or pick("events.timestamp", log, scores, f"the column of {log.path.name} that tells when it happened"),
        )
        if time:
            self.taken.add(time)
            self._time(log, log.columns[time].understood)
        found = labels(log, self.taken)
        asked = {question.key for question in found.questions}
        for key, value in (("click", found.click), ("conversion", found.conversion)):
            if f"events.{key}" not in self.answers.keys() | asked and value is not None:
                self.p.guesses[f"events.{key}"] = Guess(value, found.confidence[key], found.reasons[key])
        self.taken |= set(found.columns)
        self.rules = found.columns
        if "events.click" not in self.answers:  # they explain the proposed rule
            self.p.doubts += found.doubts
        self.p.questions += [question for question in found.questions if question.key not in self.answers]
        if "events.conversion" not in self.p.guesses.keys() | self.answers.keys() | asked:
            self.p.doubts += told_by_times(log, self.taken)
            self.p.doubts.append(
                "No column tells a conversion (a purchase, a high rating): only clicks will be learnt and judged."
            )
        if self.answers["events.click"] in ("1", "true") if "events.click" in self.answers else found.all_clicks:
            why = "the log holds no exposure without a click, and a ranker cannot learn from successes alone: popular items are sampled beside each click"
            self.p.guesses["events.non_clicks"] = Guess(NON_CLICKS, 0.9, (why,))

    def _time(self, log: Table, column: Column) -> None:
        found = event_time(log, column, self.answers, self.taken)
        self.p.guesses |= found.guesses
        self.p.doubts += found.doubts
        if found.question:
            self.p.questions.append(found.question)
        if clock := found.guesses.get("events.timestamp.clock"):
            self.taken.add(str(clock.value))

    def items(self) -> None:
        table, log = self.roles.items or self.roles.events, self.roles.events
        joined = table is log
        item = self.p.guesses.get("events.item_id")
        if joined:
            if item is None:
                return
            key: str | None = str(item.value)
            self.p.guesses["items.item_id"] = Guess(
                key, item.confidence, (f"{log.path.name} is the only file that tells about items",)
            )
            columns = [
                column
                for column in log.columns.values()
                if column.name not in self.taken and depends(log, str(key), column)
            ]
        else:
            guess = self._answer("items.item_id", table) or pick(
                "items.item_id", table, self.roles.item_keys, f"the key of {table.path.name}"
            )
            key = self._take("items.item_id", guess)
            columns = [column for column in table.columns.values() if column.name != key]
        scores = {column.name: title_score(column) for column in columns}
        answered = self._answer("items.title", table)
        title = self._take(
            "items.title",
            answered
            or (
                pick("items.title", table, scores, f"the text of {table.path.name} that names an item to a person")
                if any(score[0] >= 0.3 for score in scores.values())
                else None
            ),
        )
        if title is None and not any(question.key == "items.title" for question in self.p.questions) and key:
            self.p.guesses["items.title"] = Guess(
                key, 0.1, ("no column holds text about items; the bare id stands in",)
            )
            self.p.doubts.append(
                "NO TEXT ABOUT ITEMS WAS FOUND. Prompts would show bare ids, about which a language model knows nothing: its features cannot help. Add a file with titles."
            )
        if title and (told := telling_contacts(table.frame[title])):
            self.p.doubts.append(
                f"{table.path.name}: {told:,} values of {title} hold an e-mail address or a telephone number, which prompts will tell. Take them out in the file."
            )
        self.item_columns = {name for name in (key, title) if name}
        rest = [column for column in columns if column.name not in self.item_columns]
        for name, guess in categories(table, rest).items():
            if f"items.{name}" not in self.answers:
                self.p.guesses[f"items.{name}"] = guess
                self.item_columns.add(guess.column or str(guess.value))
        for name in sorted(key.partition(".")[2] for key in self.answers if key.startswith("items.category_l")):
            if given := self._answer(f"items.{name}", table):
                self.p.guesses[f"items.{name}"] = given
                self.item_columns.add(str(given.value))
        self._price("events", log, [column for column in log.columns.values() if column.name not in self.taken])
        if not joined:
            self._price("items", table, rest)
        repeated = table.columns[key].distinct < table.columns[key].rows if key else False
        if repeated:
            self.p.guesses["items.one_per_id"] = Guess(
                True,
                0.9,
                (
                    "the file is the log: each item's first row tells about it"
                    if joined
                    else f"{key} is not quite unique: the first row of an id counts",
                ),
            )

    def _price(self, section: str, table: Table, columns: list[Column]) -> None:
        prices = {column.name: price_score(column) for column in columns}
        best = max(prices, key=lambda name: (prices[name][0], name), default=None)
        if given := self._answer(f"{section}.price", table):
            self.p.guesses[f"{section}.price"] = given
        elif best is not None and prices[best][0] >= 0.5:
            self.p.guesses[f"{section}.price"] = Guess(best, prices[best][0], prices[best][1])
            (self.taken if section == "events" else self.item_columns).add(best)
        elif best is not None:
            for column in (column for column in columns if says_price(column)):
                self.p.doubts.append(
                    f"{table.path.name}: {column.name} is a price by its name, but too few of its values are ({column.describe()}): it is not used."
                )

        if guess := self.p.guesses.get(f"{section}.price"):
            self.p.doubts += units_of_price(table, str(guess.value))

    def users(self) -> None:
        table, log = self.roles.users, self.roles.events
        user = self.p.guesses.get("events.user_id")
        if table is not None:
            key = self._take(
                "users.user_id",
                self._answer("users.user_id", table)
                or pick("users.user_id", table, self.roles.user_keys, f"the key of {table.path.name}"),
            )
            found = profile(
                table, [column for column in table.columns.values() if column.name != key], self._item_ids()
            )
            reasons: tuple[str, ...] = (f"columns of {table.path.name} with few different values, or numbers",)
            repeated = bool(key) and table.columns[str(key)].distinct < table.columns[str(key)].rows
        else:
            if user is None or (log is self.roles.items):
                return
            key = str(user.value)
            free = [column for column in log.columns.values() if column.name not in self.taken | self.item_columns]
            found = profile(log, [column for column in free if depends(log, key, column)], self._item_ids())
            reasons, repeated = (f"columns of {log.path.name} that never change within a user",), True
            if not found.told:
                return
            self.p.guesses["users.user_id"] = Guess(
                key, user.confidence, (f"{log.path.name} tells about its users, too",)
            )
        if not found.told and table is not None and "users.file" not in self.answers:
            self.roles.users = None
            for name in [name for name in self.p.guesses if name.startswith("users.")]:
                self.p.guesses.pop(name)
            self.p.questions = [question for question in self.p.questions if not question.key.startswith("users.")]
            self.p.doubts.append(
                f"{table.path.name} tells nothing about users that a prompt may say, and plays no part."
            )
            repeated = False
        if found.told:
            self.p.guesses["users.profile"] = Guess(found.told, 0.6, reasons)
            self.user_columns = {*found.told, str(key)}
            if "users.profile" not in self.answers:  # no note about a proposal that the user overrode
                self.p.doubts.append(
                    f"Prompts will tell the language model about each user's {', '.join(found.told)}. Leave out of users.profile what it must not know (names, contact data). "
                    "These columns have no time: they tell, for all of the log, what was known when the table was written."
                )
        if found.doubt:
            self.p.doubts.append(found.doubt)
        if repeated:
            self.p.guesses["users.one_per_id"] = Guess(True, 0.9, ("the first row of an id counts",))

    def _item_ids(self) -> list[pl.Series]:
        """Ids and titles of the items, as the files have them."""
        table, log = self.roles.items or self.roles.events, self.roles.events
        named = [(table, "items.item_id"), (table, "items.title"), (log, "events.item_id")]
        return [file.ids(str(self.p.guesses[key].value)) for file, key in named if key in self.p.guesses]

    def further(self) -> None:
        """Propose the log's further labels, and roles for columns of request and display."""
        log = self.roles.events
        taken = self.taken | self.item_columns | self.user_columns
        item = self.p.guesses.get("events.item_id")
        found = further(
            log, [name for name in log.columns if name not in taken], self.rules, [str(item.value)] if item else []
        )
        for key, guess in found.guesses.items():
            if ".".join(key.split(".")[:2]) not in self.answers:
                self.p.guesses[key] = guess
        self.p.suggestions = found.suggestions
        self.p.doubts += found.doubts

    def finish(self, name: str, tables: list[Table]) -> None:
        roles = self.roles
        if self.answers.get("name"):
            name = self.answers.pop("name")
        domain = self.answers.pop("domain") if "domain" in self.answers else None
        wanted, reason = roles.domain
        self.p.guesses["domain"] = Guess(
            domain or wanted,
            1.0 if domain else 0.7 if wanted != "shop" else 0.6,
            ("you said so" if domain else reason,),
        )
        for key in list(self.answers):
            if key.endswith(".file"):
                self.answers.pop(key)
        self._further()
        if self.answers:
            raise ConfigError(
                "That part was not to be decided.",
                where="; ".join(f"--set {key}={value}" for key, value in self.answers.items()),
                expected="a key of the mapping that plays a part here, for example events.user_id, items.title, events.timestamp.format, domain",
                fix="see docs/data.md for the keys",
            )
        self._unusable()
        self.taken |= set(roles.events.columns) & {
            name for key, guess in self.p.guesses.items() if key.startswith("events.") for name in columns_in(guess)
        }
        for table in tables:
            if table.empty:
                said = "columns hold no value and were" if len(table.empty) > 1 else "a column holds no value and was"
                self.p.doubts.append(f"{table.path.name}: {said} left out ({', '.join(table.empty)}).")
            used = (
                self.taken | self.item_columns | self.user_columns
                if table is roles.events
                else self.item_columns
                if table is roles.items
                else self.user_columns
                if table is roles.users
                else set()
            )
            decided = [str(guess.value) for guess in self.p.guesses.values() if guess.reasons == ("you said so",)]
            if rest := [column for column in table.columns if column not in used and not _said_of(column, decided)]:
                self.p.unused[table.path.name] = rest
        self._other_logs(tables)
        self.p.values = _mapping(self.p, name)

    def _other_logs(self, tables: list[Table]) -> None:
        """Report unused files with the log's columns, such as one file per behaviour."""
        parts = ("events.user_id", "events.item_id", "events.timestamp")
        columns = {str(self.p.guesses[part].value) for part in parts if part in self.p.guesses}
        others = [
            table.path.name
            for table in tables
            if table not in (self.roles.events, self.roles.items, self.roles.users) and columns <= table.columns.keys()
        ]
        if others and len(columns) == len(parts):
            self.p.doubts.append(
                f"{', '.join(others)}: the same columns as in {self.roles.events.path.name} ({', '.join(sorted(columns))}), and no part is played. "
                "If these rows belong to the log, write them all into one file, with a column that tells what happened in each (shown, click, purchase)."
            )

    def _further(self) -> None:
        """Apply answers without a question: any key of the mapping takes its value as YAML; ``null`` omits it."""
        models: dict[str, type[Settings]] = {"items": ItemsMapping, "events": EventsMapping, "users": UsersMapping}
        for key in list(self.answers):
            section, _, part = key.partition(".")
            known = part in models[section].model_fields if section in models else key == "unusable"
            if known or (section == "items" and LEVEL.match(part)):
                given = self.answers.pop(key)
                value = given if given.startswith("`") else parse_yaml(given, f"--set {key}")  # a rule's quoted column
                for name in [name for name in self.p.guesses if name == key or name.startswith(f"{key}.")]:
                    self.p.guesses.pop(name)
                if value is not None:
                    self.p.guesses[key] = Guess(
                        tuple(value) if isinstance(value, list) else value, 1.0, ("you said so",)
                    )

    def _unusable(self) -> None:
        """Handle unusable rows and cells, and ambiguous numbers."""
        self.p.questions += open_numbers(self.p.guesses, self.roles)
        if self._decided("unusable"):
            return
        found = unusable(self.p.guesses, self.roles)
        if found.reasons and found.worst <= FEW_ROWS:
            self.p.guesses["unusable"] = Guess("drop", 0.7, found.reasons)
            self.p.doubts.append(
                "Some rows or cells cannot be used and will be left out (unusable: drop): "
                + "; ".join(found.reasons)
                + "."
            )
        elif found.reasons:
            choices = (
                Guess("drop", 0.5, ("leave such rows out, counted in the report",)),
                Guess("error", 0.5, ("stop, naming the rows, so that they can be mended",)),
            )
            said = "; ".join(found.reasons)
            self.p.questions.append(
                Question("unusable", f"what to do with many rows that cannot be used: {said}", choices)
            )

    def _decided(self, key: str) -> bool:
        return key in self.p.guesses


def _mapping(proposal: Proposal, name: str) -> dict[str, Any]:
    """Return the guesses as the mapping's values."""
    roles = proposal.roles
    values: dict[str, Any] = {"name": name}
    files = {"items": roles.items or roles.events, "events": roles.events, "users": roles.users or roles.events}
    for section, table in files.items():
        if section != "users" or "users.user_id" in proposal.guesses:
            values[section] = {"file": table.path.name}
            if table.separator not in (None, ",") and not (
                table.separator == "\t" and table.path.name.removesuffix(".gz").endswith(".tsv")
            ):
                values[section]["separator"] = table.separator
            if table.header:
                values[section]["header"] = list(table.header)
            if forms := number_forms_of(proposal.guesses, section, table):
                values[section]["numbers"] = forms
    for key, guess in proposal.guesses.items():
        section, _, part = key.partition(".")
        value = list(guess.value) if isinstance(guess.value, tuple) else guess.value
        if not part:
            values[section] = value
        elif part.startswith("timestamp."):
            values[section]["timestamp"][part.partition(".")[2]] = value
        elif part == "timestamp":
            values[section]["timestamp"] = {"column": value}
        elif part == "numbers":
            values[section].setdefault("numbers", {}).update(value)
        elif part.startswith("labels."):
            values[section].setdefault("labels", {})[part.partition(".")[2]] = value
        elif section in values:
            values[section][part] = value
    head: dict[str, Any] = {key: values.pop(key) for key in ("name", "domain", "unusable") if key in values}
    return {**head, **values}


def _said_of(column: str, said: list[str]) -> bool:
    """Return True if the user's answers name the column, even in a rule."""
    return any(re.search(rf"(?<!\w){re.escape(column)}(?!\w)", value) for value in said)

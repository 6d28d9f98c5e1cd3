"""Route a path and a query to a page. User input never reaches the file system: pages come only from the runs opened at
start."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode

from taiji.core.errors import TaijiError
from taiji.core.number_format import brief_text
from taiji.inspector import copy_view, people, request_view, steps, user
from taiji.inspector.compare import compare
from taiji.inspector.markdown import to_html
from taiji.inspector.people import People
from taiji.inspector.run_view import RunFiles, run_state
from taiji.reporting.cards import DATA_CARD, MODEL_CARD
from taiji.reporting.recommendation_page import recommendation_values
from taiji.reporting.report import FILTERS, clock, curves, page_values, reading_view

if TYPE_CHECKING:
    from jinja2 import Environment

D = TypeVar("D")
MOST_FIELDS = 20
"""Largest number of query fields."""
HTML, TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"
STATIC = {
    "report.css": ("taiji.reporting", "templates/report.css", "text/css; charset=utf-8"),
    "inspector.css": ("taiji.inspector", "static/inspector.css", "text/css; charset=utf-8"),
    "inspector.js": ("taiji.inspector", "static/inspector.js", "text/javascript; charset=utf-8"),
}
CARDS = {"model": (MODEL_CARD, "Model card"), "data": (DATA_CARD, "Data card")}


@dataclass(frozen=True)
class Page:
    """Response to one request."""

    body: bytes
    status: int = 200
    kind: str = HTML
    headers: Mapping[str, str] = field(default_factory=dict)


class Missing(Exception):
    """Exception for a missing page, with an explanation."""


class Inspector:
    """Pages of one run, or of two runs for comparison.

    Args:
        folder: run directory.
        other: directory of a second run for comparison.
    """

    def __init__(self, folder: Path, other: Path | None = None) -> None:
        self._folders = [folder, *([other] if other else [])]
        self._lock, self._indexing = threading.Lock(), threading.Lock()
        self._runs = [RunFiles(path) for path in self._folders]
        self._people: tuple[RunFiles, People] | None = None

    @property
    def runs(self) -> list[RunFiles]:
        """Current runs. A run that has changed since it was opened is reopened."""
        with self._lock:
            for place, run in enumerate(self._runs):
                if run_state(run.folder) != run.state:
                    self._runs[place] = RunFiles(self._folders[place])
            return list(self._runs)

    def demand_configurations(self) -> None:
        """Read the configurations of the runs, because every page depends on them.

        Raises:
            ArtifactError: a configuration is damaged.
            ConfigError: a configuration is not valid.
        """
        for run in self.runs:
            _ = run.config

    def people(self, run: RunFiles) -> People:
        """Return the index of the users of a run."""
        with self._indexing:
            if self._people is None or self._people[0] is not run:
                self._people = run, People(run)
            return self._people[1]

    def warm(self) -> None:
        """Load all artefacts and build the index of users before they are requested; called in a background thread."""
        for run in self.runs:
            run.warm()
        self.people(self.runs[0])

    def page(self, path: str, query: str) -> Page:
        """Respond to a request. Invalid requests, and broken or unfinished runs, lead to a page with a message rather
        than an exception."""
        try:
            fields = dict(parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=MOST_FIELDS))
        except ValueError:
            text = f"An address may have at most {MOST_FIELDS} query fields."
            return self._html("message.html.j2", title="Too many fields", text=text, status=400)
        try:
            return self._route([part for part in path.split("/") if part], fields)
        except Missing as error:
            return self._html("message.html.j2", title="Page not found", text=str(error), status=404)
        except TaijiError as error:
            return self._html("message.html.j2", title="The run cannot be read", text=str(error), status=500)

    def _route(self, parts: list[str], fields: dict[str, str]) -> Page:
        match parts:
            case [] if not self._copies_only:
                return self._overview()
            case ["users"]:
                return self._users(fields)
            case ["users", quoted]:
                return self._user(unquote(quoted), fields)
            case ["requests"]:
                return self._html("requests.html.j2", rows=request_view.request_list(self.runs[0]))
            case ["requests", number]:
                return self._request(number, fields)
            case [] | ["copies"]:
                return self._html(
                    "copies.html.j2", view=copy_view.copy_list(self.runs[0], whole(fields.get("page"), 1))
                )
            case ["copies", number]:
                return self._copy(number)
            case ["alignment"]:
                return self._alignment(fields)
            case ["compare"]:
                return self._compare()
            case ["cards", name] if name in CARDS:
                return self._card(name)
            case [file] if file in (MODEL_CARD, DATA_CARD):  # the report links to these paths
                return self._card("model" if file == MODEL_CARD else "data")
            case ["report"]:
                return self._report("report", "report.html")
            case ["recommendation.html"]:
                return self._report("recommend_report", "recommendation.html")
            case ["static", name] if name in STATIC:
                package, file, kind = STATIC[name]
                return Page(files(package).joinpath(file).read_bytes(), kind=kind)
            case _:
                raise Missing("The page does not exist.")

    def _overview(self) -> Page:
        run = self.runs[0]
        metrics = run.metrics
        shown = page_values(metrics) if metrics else {}
        return self._html(
            "overview.html.j2",
            states=run.stages,
            total=clock(run.seconds),
            shown=shown,
            recommender=recommender_view(run),
            reading=reading_view(run.reading),
            cards=[(name, title) for name, (file, title) in CARDS.items() if (run.folder / file).is_file()],
        )

    def _users(self, fields: dict[str, str]) -> Page:
        run = self.runs[0]
        query, only, order = fields.get("q", "")[:200], fields.get("only", ""), fields.get("order", "most")
        hits = self.people(run).search(query, only, order, whole(fields.get("page"), 1))
        link = {"q": query, "only": only, "order": order}
        return self._html(
            "users.html.j2",
            hits=hits,
            query=query,
            only=only,
            order=order,
            onlys=people.ONLY,
            orders=people.ORDERS,
            link=lambda page: "/users?" + urlencode({**link, "page": page}),
        )

    def _user(self, user_id: str, fields: dict[str, str]) -> Page:
        run = self.runs[0]
        chosen = run.numbers.get(user_id)
        if chosen is None:
            raise Missing("The user does not exist in this run.")
        moments = user.moments_of(run, chosen)
        place = whole(fields.get("moment"), self._first_shown(moments))
        view = user.view(run, chosen, moments[place]) if 0 <= place < len(moments) else None
        clicks_only = fields.get("events", "clicks") != "all"
        page = whole(
            fields.get("page"),
            user.page_at(run, chosen, moments[place].as_of, clicks_only) if "moment" in fields and view else 1,
        )

        def link(**changed: Any) -> str:
            kept = {"moment": place if view else None, "events": None if clicks_only else "all", "page": None}
            query = {key: value for key, value in {**kept, **changed}.items() if value is not None}
            return f"{address(user_id)}?{urlencode(query)}"

        return self._html(
            "user.html.j2",
            about=user.about(run, chosen),
            moments=moments,
            place=place,
            view=view,
            beside=self._other_answers(moments[place]) if view else [],
            times=user.timeline(run, chosen, moments, clicks_only=clicks_only, page=page),
            link=link,
            when=user.when,
        )

    def _request(self, number: str, fields: dict[str, str]) -> Page:
        only, order = fields.get("only", "")[:200], fields.get("order", "way")
        view = request_view.request_view(self.runs[0], whole(number, -1), only, order, whole(fields.get("page"), 1))
        if view is None:
            raise Missing("The request was not traced in this run.")

        def link(page: int) -> str:
            return f"/requests/{view['number']}?" + urlencode({"only": only, "order": order, "page": page})

        return self._html("request.html.j2", view=view, link=link)

    def _copy(self, number: str) -> Page:
        view = copy_view.copy_view(self.runs[0], whole(number, -1))
        if view is None:
            raise Missing("This run has no copy for the item.")
        return self._html("copy.html.j2", view=view)

    @staticmethod
    def _first_shown(moments: list[user.Moment]) -> int:
        """Return the index of the prompt or feature row to show first; −1 if there is none.

        Test prompts come first, then rationale prompts, alignment prompts, feature rows and calibration prompts. Of
        several prompts or rows of one role, the last one is chosen.
        """
        order = ("test", "rationale", "alignment", "feature", "calibration")
        return min(range(len(moments)), key=lambda number: (order.index(moments[number].role), -number), default=-1)

    def _other_answers(self, moment: user.Moment) -> list[dict[str, Any]]:
        """Return the answers to the same prompt by the models of the other run."""
        if len(self.runs) < 2:
            return []
        other = self.runs[1]
        rows = [(model, row) for model in ("base", "sft", "aligned") for row in other.answers(model).of(moment.example)]
        return [{"model": model, "run": other.name, **user.said(other, row["completion"])} for model, row in rows]

    def _alignment(self, fields: dict[str, str]) -> Page:
        run, metrics = self.runs[0], self.runs[0].metrics
        if metrics is None:
            return self._html("alignment.html.j2", view=None, charts=[])
        view = steps.step_view(run, metrics, whole(fields.get("step"), None))
        shown = (
            ("rewards", "Rewards", "mean over the completions of each step"),
            ("weights", "Weights", "weights of the objectives, which sum to one"),
            ("indicator", "Indicators", "quantities that change the weights, if the rule has them"),
        )
        current = view["step"] if view else None
        return self._html(
            "alignment.html.j2",
            view=view,
            when=user.when,
            charts=[(title, note, curves(metrics, name, current)) for name, title, note in shown],
            rule=metrics.alignment.rule,
        )

    def _compare(self) -> Page:
        runs = self.runs
        if len(runs) < 2:
            raise Missing("Only one run is open. To compare two runs, start: taiji view RUN RUN2")
        return self._html("compare.html.j2", view=compare(runs[0], runs[1]))

    def _card(self, name: str) -> Page:
        file, title = CARDS[name]
        path = self.runs[0].published(file)
        if not path.is_file():
            raise Missing(f"This run has no {title.lower()} yet; the stage report writes it.")
        return self._html("card.html.j2", title=title, text=to_html(path.read_text(encoding="utf-8")))

    def _report(self, stage: str, name: str) -> Page:
        path = self.runs[0].published(name, stage)
        if not path.is_file():
            raise Missing("This run has no report yet.")
        policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox allow-same-origin allow-top-navigation-by-user-activation"
        return Page(path.read_bytes(), headers={"Content-Security-Policy": policy})

    @property
    def _copies_only(self) -> bool:
        """True if the run has only copies about a table of items, and no dataset with users."""
        return self.runs[0].done("copywriting") and not self.runs[0].done("data")

    def _html(self, template: str, status: int = 200, **values: Any) -> Page:
        runs = self._runs
        common = {
            "names": [run.name for run in runs],
            "template": template,
            "has_report": (runs[0].folder / "report.html").is_file(),
            "has_page": (runs[0].folder / "recommendation.html").is_file(),
            "recommends": runs[0].recommends,
            "has_copies": runs[0].done("copywriting"),
            "copies_only": self._copies_only,
            "enhances": runs[0].enhances,
        }
        return Page(self._templates.get_template(template).render(**common, **values).encode(), status)

    @cached_property
    def _templates(self) -> Environment:
        from jinja2 import ChoiceLoader, Environment, PackageLoader

        loader = ChoiceLoader([PackageLoader("taiji.inspector"), PackageLoader("taiji.reporting")])
        made = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        made.filters |= FILTERS | {"number": brief_text, "address": address}
        return made


def recommender_view(run: RunFiles) -> dict[str, Any] | None:
    """Return the values of the overview for a recommender, or None if it has not been evaluated."""
    found = run.recommendation
    if found is None:
        return None
    seconds = {state.name: state.seconds for state in run.stages if state.seconds is not None}
    return recommendation_values(found, run.closed_loop, seconds)


def whole(text: str | None, default: D) -> int | D:
    """Parse an integer of at most nine digits, or return the default."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else default


def address(user_id: object) -> str:
    """Return the path of a user's page: the original user id with special characters percent-encoded."""
    return "/users/" + quote(str(user_id), safe="")

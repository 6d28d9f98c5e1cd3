"""Rule-based writer: puts counts, recency, categories and prices of the history into sentences.

The writer needs no model, costs nothing, and is the baseline that every LLM teacher has to beat. Its wording comes from
the template file ``templates/<domain>/writer.j2``: sections of alternative sentences, one per line. A sentence is
skipped if the history lacks its facts (no prices, no second level). If the data have no categories, the template's
section ``[titles]``, if there is one, replaces the sections about categories. If the answer is in view, the rationale
concludes with the target's first category level (and the second, if it occurs in the history). Titles and deeper
categories are written only if they occur in the history.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from taiji.core.artifacts import value_hash
from taiji.core.errors import ConfigError
from taiji.core.sentences import listed
from taiji.data.dataset import Dataset
from taiji.reasoning.answers import field
from taiji.reasoning.prompts import shorten, template_file, true_items
from taiji.reasoning.settings import PromptSettings
from taiji.reasoning.teachers import rationale_frame

_SECTION = re.compile(r"^\[([a-z]+)\]\n", re.MULTILINE)
ORDER = ("opening", "detail", "recent", "prices", "conclusion")
WITHOUT_LEVELS = ("titles", "prices")
OPTIONAL = {"detail": 0.7, "recent": 0.8, "prices": 0.4}
"""Probability with which each optional section is used, so that k rationales differ."""
NEWEST = 3
"""Largest number of newest titles in one sentence."""
FOCUSES = 3
"""Largest number of categories to conclude with, for set answers."""
RULES = 2
"""Version number of the rules, increased whenever a change of the rules changes the texts."""
SEEN = 12
"""Largest number of newest interactions that the writer reads, about as many as a student's prompt shows."""


class RuleWriter:
    """Writer of rationales by rules; see the module docstring.

    Args:
        prompts: limits and the folder of templates.
        answer_in_view: True to conclude with the category of the true next item; False to conclude with the most
            frequent category of the history.
    """

    def __init__(self, prompts: PromptSettings, answer_in_view: bool = True) -> None:
        self.prompts, self.answer_in_view = prompts, answer_in_view
        self.name = "writer" if answer_in_view else "writer:blind"

    @property
    def version(self) -> str:
        """Version of the rules; it does not depend on the wording in the template file."""
        return value_hash([self.name, ORDER, OPTIONAL, SEEN, RULES])[:16]

    def write(self, dataset: Dataset, examples: pl.DataFrame, k: int, seed: int) -> pl.DataFrame:
        """See :class:`taiji.reasoning.teachers.Teacher`."""
        path = template_file(dataset.domain, "writer", self.prompts.templates)
        sections = _sentences(str(path), path.stat().st_mtime_ns)
        order = ORDER if dataset.levels or "titles" not in sections else WITHOUT_LEVELS
        texts = []
        for (user, as_of), items in zip(
            examples.select("user", "as_of").iter_rows(), true_items(examples, self.prompts)
        ):
            facts = history_facts(
                dataset, user, as_of, min(SEEN, self.prompts.history_limit), self.prompts.title_characters
            )
            facts.update(_focus(dataset, facts, items if self.answer_in_view else None))
            texts.append(
                [
                    _write(sections, order, facts, np.random.default_rng([seed, user, as_of, sample]))
                    for sample in range(k)
                ]
            )
        return rationale_frame(examples["example"].to_list(), texts, self.name)


def history_facts(dataset: Dataset, user: int, as_of: int, limit: int, title_characters: int) -> dict[str, Any]:
    """Return facts about the ``limit`` newest interactions strictly before ``as_of``, by name. Unknown facts are
    omitted."""
    items, _ = dataset.history.before(user, as_of, limit)
    levels = dict(zip(("l1", "l2"), dataset.levels))
    columns = dataset.items.select("title", *(pl.col(name).alias(level) for level, name in levels.items()))
    rows = columns[items.tolist()].rows(named=True) if len(items) else []
    known = dataset.prices.before(items, np.full(len(items), as_of))
    facts: dict[str, Any] = {"total": len(rows), "rows": rows}
    if not rows:
        return facts
    first = _top([r.get("l1") for r in rows])
    if first:
        facts["top_l1"], facts["top_l1_count"] = field(first[0]), first[1]
        second = _top([r.get("l2") for r in rows if r["l1"] == first[0]])
        if second and second[1] > 1:
            facts["top_l2"], facts["top_l2_count"] = field(second[0]), second[1]
    newest = rows[0]
    titles = [field(shorten(row["title"], title_characters)) for row in rows[:NEWEST]]
    facts["last_title"], facts["titles"] = titles[0], ", ".join(titles)
    facts |= {f"last_{level}": field(newest[level]) for level in levels if newest[level]}
    prices = sorted(known[~np.isnan(known)].tolist())
    if prices:
        facts["price_middle"], facts["price_high"] = f"{prices[len(prices) // 2]:.2f}", f"{prices[-1]:.2f}"
    return facts


def _top(values: list[str | None]) -> tuple[str, int] | None:
    """Return the most frequent value and its count; a tie goes to the newest value. None if there are no values."""
    counts = Counter(v for v in values if v)
    return max(counts.items(), key=lambda pair: pair[1]) if counts else None


def _focus(dataset: Dataset, facts: dict[str, Any], targets: Sequence[int] | None) -> dict[str, Any]:
    """Return the facts of the conclusion.

    ``focus`` is the category to conclude with; for several target items, their most frequent categories. ``fresh`` is
    True if none of these occur in the history.
    """
    shown = {(r.get("l1"), r.get("l2")) for r in facts["rows"]}
    if targets is None:
        return {"focus": facts["top_l1"], "fresh": False} if "top_l1" in facts else {}
    found = [focus for focus in (_focus_of(dataset, shown, target) for target in targets) if focus]
    if not found:
        return {}
    named = [name for name, _ in Counter(focus["focus"] for focus in found).most_common(FOCUSES)]
    return {"focus": listed(named), "fresh": all(focus["fresh"] for focus in found if focus["focus"] in named)}


def _focus_of(dataset: Dataset, shown: set[tuple[Any, Any]], target: int) -> dict[str, Any]:
    """Return the category to conclude with, for one target item."""
    first, second = ([dataset.items[name][target] for name in dataset.levels[:2]] + [None, None])[:2]
    if not first:
        return {}
    if second and (first, second) in shown:
        return {"focus": f"{field(first)} / {field(second)}", "fresh": False}
    return {"focus": field(first), "fresh": all(first != level for level, _ in shown)}


def _write(
    sections: dict[str, list[Any]], order: tuple[str, ...], facts: dict[str, Any], random: np.random.Generator
) -> str:
    from jinja2 import UndefinedError

    text = []
    for name in order:
        if random.random() >= OPTIONAL.get(name, 1.0):
            continue
        choices = sections["newfield" if name == "conclusion" and facts.get("fresh") else name]
        for place in random.permutation(len(choices)):
            try:
                text.append(choices[place].render(**facts))
                break
            except UndefinedError:
                continue
    return " ".join(text)


@lru_cache(maxsize=16)
def _sentences(path: str, modified: int) -> dict[str, list[Any]]:
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined)
    parts = _SECTION.split(Path(path).read_text(encoding="utf-8"))
    try:
        sections = {
            name: [environment.from_string(line) for line in text.splitlines() if line.strip()]
            for name, text in zip(parts[1::2], parts[2::2])
        }
    except TemplateError as error:
        raise ConfigError(
            "The writer's template is invalid.",
            where=path,
            expected="one Jinja2 sentence per line",
            found=str(error),
        ) from error
    missing = [name for name in (*ORDER, "newfield") if name not in sections]
    if missing:
        raise ConfigError(
            "The writer's template lacks sections.",
            where=path,
            expected=", ".join((*ORDER, "newfield")),
            found=f"no {', '.join(missing)}",
        )
    return sections

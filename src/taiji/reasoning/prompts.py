"""Prompts of the student and the teacher, rendered from template files within a token budget.

A template is a Jinja2 file with the sections ``[system]``, ``[user]`` and, optionally, ``[prefill]`` (the beginning of
the answer). The packaged templates are in ``templates/<domain>/`` and can be copied and edited. The variable ``form``
is an example of the answer format with the category levels of the data. Set answers have their own templates,
``student-set.j2`` and ``teacher-set.j2``, with one more variable: ``intents``, the largest number of intents per
answer. The student's template never receives the target. The teacher sees the same interactions as the student and,
with ``answer_in_view``, the target as well (RUPR, Taiji §2).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from taiji.core.errors import ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.item_text import DESCRIPTION
from taiji.language.chat import Message, begun, render
from taiji.language.token_ids import ids_of
from taiji.reasoning.answers import THINK, answer_form, field, format_answer, format_set
from taiji.reasoning.settings import PromptSettings

PACKAGED = Path(__file__).parent / "templates"
PROFILE_CHARACTERS = 300
_SECTION = re.compile(r"^\[(system|user|prefill)\]\n", re.MULTILINE)


@dataclass(frozen=True)
class Prompt:
    """Prompt, with the numbers of interactions that are shown and left out.

    Attributes:
        messages: messages for :func:`taiji.language.chat.render`.
        prefill: beginning of the answer (for the teacher; empty for the student).
        kept: number of interactions shown (the newest ones).
        dropped: number of older interactions left out because of ``history_limit`` or the token budget.
    """

    messages: list[Message]
    prefill: str
    kept: int
    dropped: int


def item_line(dataset: Dataset, item: int, title_characters: int = 80) -> str:
    """Return an item's text in the answer format, with all category levels: ``Item title: …; Category L1: …; L2:
    …``."""
    title, *levels = _item(dataset, item)
    return format_answer(shorten(title or "", title_characters), levels)


def item_lines(dataset: Dataset, title_characters: int = 80) -> list[str]:
    """Return :func:`item_line` of every item, in the order of the dense ids."""
    columns = [dataset.items[name].to_list() for name in ("title", *dataset.levels)]
    return [format_answer(shorten(title or "", title_characters), levels) for title, *levels in zip(*columns)]


def true_items(examples: pl.DataFrame, settings: PromptSettings) -> list[list[int]]:
    """Return the items that the answer of each example should name: its target, or its set of next items.

    Raises:
        InputError: the examples were chosen for single answers.
    """
    if settings.answer == "item":
        return [[target] for target in examples["target"]]
    if "targets" not in examples.columns:
        raise InputError(
            "The examples have no sets of next items.",
            where="column targets",
            expected="a list of items for each example, because reasoning.prompts.answer is `set`",
            found="only a target",
            fix="choose the examples again (stage examples) with reasoning.prompts.answer: set",
        )
    return [list(items) for items in examples["targets"]]


def true_answers(
    dataset: Dataset, examples: pl.DataFrame, settings: PromptSettings, orders: int = 1, most: int | None = None
) -> list[list[str]]:
    """Return the text of each example's true answer; a set is written in random orders.

    Each order depends only on the name of the example and the index of the order.

    Args:
        dataset: the log.
        examples: ``example``, ``target`` and, for sets, ``targets``.
        settings: settings that say whether an answer is an item or a set.
        orders: number of texts per set, each in a random order; a single item has one text.
        most: number of items per text, drawn separately for each order; None for all.

    Returns:
        a list of texts for each example.
    """
    texts = []
    for name, items in zip(examples["example"], true_items(examples, settings)):
        lines = [item_line(dataset, item, settings.title_characters) for item in items]
        if settings.answer == "item":
            texts.append(lines)
            continue
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        shuffles = [np.random.default_rng([key, order]).permutation(len(lines))[:most] for order in range(orders)]
        texts.append([format_set([lines[place] for place in shuffle]) for shuffle in shuffles])
    return texts


def student_messages(
    dataset: Dataset, user: int, as_of: int, settings: PromptSettings, tokenizer: Any
) -> list[Message]:
    """Return the messages of :func:`student_prompt`."""
    return student_prompt(dataset, user, as_of, settings, tokenizer).messages


def student_prompt(dataset: Dataset, user: int, as_of: int, settings: PromptSettings, tokenizer: Any) -> Prompt:
    """Return the student's prompt: the profile, and the interactions strictly before ``as_of``, newest first.

    Args:
        dataset: the log.
        user: dense user id.
        as_of: cutoff, microseconds since the epoch.
        settings: limits and templates.
        tokenizer: tokenizer that counts the tokens of the rendered prompt.

    Raises:
        ConfigError: the budget is too small even for the prompt without interactions.
    """
    context, dropped = _context(dataset, user, as_of, settings, tokenizer)
    return _prompt(dataset, "student", settings, context, dropped)


def teacher_prompt(
    dataset: Dataset,
    user: int,
    as_of: int,
    settings: PromptSettings,
    tokenizer: Any,
    target: int | Sequence[int] | None,
) -> Prompt:
    """Return the teacher's prompt: the student's interactions and, unless ``target`` is None, the true next item or
    items."""
    context, dropped = _context(dataset, user, as_of, settings, tokenizer)
    items = [] if target is None else [target] if isinstance(target, int) else target
    lines = [item_line(dataset, item, settings.title_characters) for item in items]
    shown = {"targets": lines} if settings.answer == "set" else {"target": lines[0] if lines else None}
    return _prompt(dataset, "teacher", settings, {**context, **shown}, dropped)


def prompt_as_asked(dataset: Dataset, user: int, as_of: int, settings: PromptSettings, kept: int) -> Prompt:
    """Rebuild a student prompt without a tokenizer, from the number of interactions that it showed (``kept``)."""
    profile, lines, total = _told(dataset, user, as_of, settings)
    return _prompt(
        dataset,
        "student",
        settings,
        {"profile": profile, "interactions": lines[:kept]},
        total - min(kept, len(lines)),
    )


def student_prompts(dataset: Dataset, examples: pl.DataFrame, settings: PromptSettings, tokenizer: Any) -> pl.DataFrame:
    """Render the student prompts of many examples.

    Args:
        dataset: the log.
        examples: with columns ``example``, ``user``, ``as_of``.
        settings: limits and templates.
        tokenizer: tokenizer that renders the prompts and counts their tokens.

    Returns:
        ``example``, ``prompt`` (rendered, without prefill), ``kept``, ``dropped``, in the order of the examples.
    """
    prompts = [
        student_prompt(dataset, u, t, settings, tokenizer) for u, t in examples.select("user", "as_of").iter_rows()
    ]
    return pl.DataFrame(
        {
            "example": examples["example"],
            "prompt": [render(tokenizer, p.messages) for p in prompts],
            "kept": pl.Series([p.kept for p in prompts], dtype=pl.UInt32),
            "dropped": pl.Series([p.dropped for p in prompts], dtype=pl.UInt32),
        }
    )


def opened(prompt: str) -> str:
    """Return a rendered student prompt followed by an opening `<think>`, as used for generation, training and
    scoring."""
    return begun(prompt, THINK)


def shorten(text: str, characters: int) -> str:
    """Cut a text at a word boundary, to at most ``characters`` characters."""
    text = " ".join(text.split())
    if len(text) <= characters:
        return text
    head = text[: characters + 1].rsplit(" ", 1)[0] if " " in text[: characters + 1] else text[:characters]
    return head[:characters].rstrip(" ,;:-")


def profile_line(dataset: Dataset, user: int) -> str:
    """Return the user's profile columns as ``name: value`` pairs; empty if the user has no profile."""
    row = dataset.users.row(user, named=True)
    pairs = [
        f"{name.replace('_', ' ')}: {field(str(value))}"
        for name, value in row.items()
        if name not in ("user", "user_id") and value is not None
    ]
    return shorten("; ".join(pairs), PROFILE_CHARACTERS)


def _item(dataset: Dataset, item: int) -> tuple[Any, ...]:
    return dataset.items.select("title", *dataset.levels).row(item)


def _told(dataset: Dataset, user: int, as_of: int, settings: PromptSettings) -> tuple[str, list[str], int]:
    """Return the profile, one line per interaction (newest first, at most ``history_limit``), and the number of all
    interactions before ``as_of``."""
    total = int(dataset.history.count_before([user], [as_of])[0])
    items, _ = dataset.history.before(user, as_of, settings.history_limit)
    prices = dataset.prices.before(items, np.full(len(items), as_of))
    return (
        profile_line(dataset, user),
        [_history_line(dataset, int(item), float(price), settings) for item, price in zip(items, prices)],
        total,
    )


def _context(
    dataset: Dataset, user: int, as_of: int, settings: PromptSettings, tokenizer: Any
) -> tuple[dict[str, Any], int]:
    """Return the template's variables and the number of interactions left out.

    The variables hold as many of the newest interactions as fit into the token budget of the student's prompt.
    """
    profile, lines, total = _told(dataset, user, as_of, settings)

    def count(kept: int) -> int:
        prompt = _prompt(dataset, "student", settings, {"profile": profile, "interactions": lines[:kept]}, 0)
        return len(ids_of(tokenizer, render(tokenizer, prompt.messages)))

    frame = count(0)
    if frame > settings.token_budget:
        raise ConfigError(
            "The token budget is too small for the instructions in the prompt.",
            where="reasoning.prompts.token_budget",
            expected=f"at least {frame} tokens",
            found=str(settings.token_budget),
            fix="raise reasoning.prompts.token_budget or shorten the template",
        )
    kept, above = 0, len(lines) + 1  # bisection for the largest number of interactions whose whole rendered prompt fits
    while above - kept > 1:
        middle = (kept + above) // 2
        kept, above = (middle, above) if count(middle) <= settings.token_budget else (kept, middle)
    return {"profile": profile, "interactions": lines[:kept]}, total - kept


def _history_line(dataset: Dataset, item: int, price: float, settings: PromptSettings) -> str:
    line = item_line(dataset, item, settings.title_characters) + (f"; price {price:.2f}" if np.isfinite(price) else "")
    if settings.description_characters and DESCRIPTION in dataset.items.columns:
        text = field(shorten(dataset.items[DESCRIPTION][item] or "", settings.description_characters))
        return f"{line}; description: {text}" if text else line
    return line


def _prompt(
    dataset: Dataset, role: str, settings: PromptSettings, variables: Mapping[str, Any], dropped: int
) -> Prompt:
    path = template_file(dataset.domain, role if settings.answer == "item" else f"{role}-set", settings.templates)
    if settings.answer == "set":
        variables = {**variables, "intents": settings.intents}
    texts = filled(path, {"form": answer_form(len(dataset.levels), settings.most), **variables})
    messages = [{"role": name, "content": texts[name]} for name in ("system", "user") if texts.get(name)]
    interactions: Sequence[str] = variables["interactions"]
    return Prompt(messages, texts.get("prefill", ""), len(interactions), dropped)


def filled(path: Path, variables: Mapping[str, Any]) -> dict[str, str]:
    """Return the sections of a template, rendered with the given variables.

    Raises:
        ConfigError: the template is invalid, or uses an unknown variable.
    """
    from jinja2 import TemplateError

    try:
        sections = _template(str(path), path.stat().st_mtime_ns)
        return {name: template.render(**variables).strip() for name, template in sections.items()}
    except TemplateError as error:
        raise ConfigError(
            "A prompt template is invalid.",
            where=str(path),
            expected=f"Jinja2 with the variables {', '.join(variables)}",
            found=str(error),
        ) from error


def template_file(domain: str, role: str, folder: Path | None) -> Path:
    """Return the template file of a role, from ``<folder>/<domain>/``, ``folder`` or the packaged templates, in this
    order.

    Raises:
        ConfigError: there is no such template.
    """
    places = [PACKAGED / domain] if folder is None else [folder / domain, folder, PACKAGED / domain]
    for place in places:
        if (place / f"{role}.j2").is_file():
            return place / f"{role}.j2"
    raise ConfigError(
        "There is no such prompt template.",
        where=str(places[0] / f"{role}.j2"),
        expected=f"a domain that has templates: {', '.join(domains(folder, role))}",
        found=f"domain {domain}",
        fix="choose one of these with data.domain, or write the file (reasoning.prompts.templates names your folder)",
    )


def domains(folder: Path | None, role: str) -> list[str]:
    """Return the domains that have a template for a role, either packaged or in the user's ``folder``."""
    places = [PACKAGED, *([folder] if folder is not None and folder.is_dir() else [])]
    return sorted({path.parent.name for place in places for path in place.glob(f"*/{role}.j2")})


@lru_cache(maxsize=32)
def _template(path: str, modified: int) -> dict[str, Any]:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=False, keep_trailing_newline=True)
    parts = _SECTION.split(Path(path).read_text(encoding="utf-8"))
    sections = dict(zip(parts[1::2], parts[2::2]))
    if "user" not in sections:
        raise ConfigError(
            "A prompt template has no [user] section.",
            where=path,
            expected="sections [system], [user] and optionally [prefill], each name on a line of its own",
            found=", ".join(f"[{name}]" for name in sections) or "no section",
        )
    return {name: environment.from_string(text) for name, text in sections.items()}

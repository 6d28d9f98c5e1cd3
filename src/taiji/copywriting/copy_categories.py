"""Categories of copy: one prompt file each, so that a new file is a new category.

``<category>.j2`` is the prompt (sections ``[system]``, ``[user]``, ``[prefill]``; variables ``facts``, ``comments``, ``examples``, ``longest``, ``forbidden``).
``<category>.txt`` beside it, where there is one, has example sentences with ``{title}``: the prompt shows them for their style, and the writer
``rules`` fills them in. Files of the user's folder come before the packaged ones, those of a domain before those for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from taiji.copywriting.evidence import Evidence
from taiji.copywriting.settings import CopywritingSettings
from taiji.core.errors import ConfigError
from taiji.language.chat import Message
from taiji.reasoning.prompts import filled

PACKAGED = Path(__file__).parent / "templates"
TITLE = "{title}"


@dataclass(frozen=True)
class Category:
    """A category of copy.

    Attributes:
        name: name of the category. prompt: its file. examples: sentences in its style, with :data:`TITLE`.
    """

    name: str
    prompt: Path
    examples: tuple[str, ...]


@dataclass(frozen=True)
class CopyPrompt:
    """Prompt for a copy about an item.

    Attributes:
        evidence: evidence about the item. category: category of the copy. messages: for :func:`taiji.language.chat.render`. prefill: how the copy begins, for a local model.
    """

    evidence: Evidence
    category: Category
    messages: list[Message]
    prefill: str


def copy_categories(settings: CopywritingSettings, domain: str) -> list[Category]:
    """Return the categories that are to be written, by name.

    Raises:
        ConfigError: one that is named has no file, or there is none at all.
    """
    found: dict[str, Path] = {}
    for folder in reversed(_places(settings.templates, domain)):
        found |= {path.stem: path for path in folder.glob("*.j2")}
    names = settings.categories or tuple(sorted(found))
    missing = [name for name in names if name not in found]
    if missing or not names:
        raise ConfigError(
            "A category of copy has no prompt file.",
            where="copywriting.categories",
            expected=f"of {', '.join(sorted(found)) or 'none'}",
            found=", ".join(missing) or "none",
            fix="write <category>.j2 into the folder of copywriting.templates",
        )
    return [Category(name, found[name], _examples(found[name])) for name in names]


def copy_prompt(evidence: Evidence, category: Category, settings: CopywritingSettings) -> CopyPrompt:
    """Return the prompt for a copy of a category.

    Raises:
        ConfigError: the template is broken, or says nothing to the user.
    """
    variables = {
        "facts": [f"{fact.name}: {fact.text}" for fact in evidence.catalogue],
        "comments": [fact.text for fact in evidence.comments[: settings.comments]],
        "examples": [line.replace(TITLE, "…") for line in category.examples],
        "longest": settings.limits.longest,
        "forbidden": ", ".join(settings.limits.forbidden),
    }
    texts = filled(category.prompt, variables)
    messages = [{"role": name, "content": texts[name]} for name in ("system", "user") if texts.get(name)]
    return CopyPrompt(evidence, category, messages, texts.get("prefill", ""))


def _places(folder: Path | None, domain: str) -> list[Path]:
    own = [] if folder is None else [folder.expanduser() / domain, folder.expanduser()]
    return [*own, PACKAGED / domain, PACKAGED]


def _examples(prompt: Path) -> tuple[str, ...]:
    """Return the example sentences beside a prompt file.

    Raises:
        ConfigError: one does not name the item.
    """
    path = prompt.with_suffix(".txt")
    if not path.is_file():
        return ()
    lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    wrong = [line for line in lines if TITLE not in line]
    if wrong:
        raise ConfigError(
            "An example sentence does not name the item.",
            where=str(path),
            expected=f"{TITLE} in every line",
            found=wrong[0],
        )
    return lines

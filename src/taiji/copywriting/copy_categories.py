"""Categories of copy. Each category is one prompt file, so a new file adds a category.

``<category>.j2`` is the prompt (sections ``[system]``, ``[user]``, ``[prefill]``; variables ``facts``, ``comments``,
``examples``, ``longest``, ``forbidden``). An optional ``<category>.txt`` next to it has example sentences with
``{title}``: the prompt shows them as examples of the style, and the writer ``rules`` fills in the title. Files in the
user's folder take precedence over packaged files, and files for one domain over files for all domains.
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
    """Category of copy.

    Attributes:
        name: name of the category.
        prompt: its prompt file.
        examples: sentences in its style that contain :data:`TITLE`.
    """

    name: str
    prompt: Path
    examples: tuple[str, ...]


@dataclass(frozen=True)
class CopyPrompt:
    """Prompt for copy about an item.

    Attributes:
        evidence: evidence about the item.
        category: category of the copy.
        messages: messages for :func:`taiji.language.chat.render`.
        prefill: beginning of the copy, for a local model.
    """

    evidence: Evidence
    category: Category
    messages: list[Message]
    prefill: str


def copy_categories(settings: CopywritingSettings, domain: str) -> list[Category]:
    """Return the categories to write: all of ``settings.categories`` in that order or, if it is empty, all categories
    sorted by name.

    Raises:
        ConfigError: a named category has no file, or there are no categories at all.
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
            expected=f"one of {', '.join(sorted(found)) or 'none'}",
            found=", ".join(missing) or "none",
            fix="write <category>.j2 in the folder of copywriting.templates",
        )
    return [Category(name, found[name], _examples(found[name])) for name in names]


def copy_prompt(evidence: Evidence, category: Category, settings: CopywritingSettings) -> CopyPrompt:
    """Return the prompt for copy in the given category.

    Raises:
        ConfigError: the template is invalid, or has an empty user message.
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
    """Return the example sentences next to a prompt file.

    Raises:
        ConfigError: a sentence does not contain the placeholder of the title.
    """
    path = prompt.with_suffix(".txt")
    if not path.is_file():
        return ()
    lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    wrong = [line for line in lines if TITLE not in line]
    if wrong:
        raise ConfigError(
            "An example sentence does not contain the placeholder of the item's title.",
            where=str(path),
            expected=f"{TITLE} in every line",
            found=wrong[0],
        )
    return lines

"""Print docs/reference.md: every module with the first paragraph of its docstring and its public names.

    python -m tools.reference_page > docs/reference.md

The sources are read without importing them. The site (`make docs`) shows the complete docstrings of the same modules.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "taiji"
ORDER = (
    "data",
    "metrics",
    "nn",
    "language",
    "world",
    "models",
    "reasoning",
    "features",
    "alignment",
    "experiments",
    "reporting",
    "serving",
    "inspector",
    "pipeline",
    "scale",
    "core",
)
ABOUT = """# Reference

Every module with its public classes and functions (`make pages` writes this page, a test compares it with the source). `make docs` builds a
site that also shows arguments, returned values and errors; `python -c "import taiji.data.splits as m; help(m)"` prints
them for one module. Settings have [a page of their own](configuration.md), commands [another](commands.md).
"""
LEFT_OUT = ("__init__", "settings", "cli")


@dataclass(frozen=True)
class Module:
    """Dotted name of a module, the first paragraph of its docstring, and its public classes and functions."""

    name: str
    about: str
    names: tuple[str, ...]


def first(docstring: str | None) -> str:
    """Return the first paragraph of a docstring as one line of Markdown."""
    paragraph = " ".join((docstring or "").split("\n\n")[0].split())
    paragraph = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", paragraph)
    return paragraph.replace("``", "`").replace("|", "\\|")


def described(path: Path) -> Module:
    """Read a module without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = tuple(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
    )
    dotted = ".".join(("taiji", *path.relative_to(PACKAGE).with_suffix("").parts))
    return Module(dotted, first(ast.get_docstring(tree)), names)


@cache
def packages() -> dict[str, list[Module]]:
    """Return the modules with public names by package.

    Packages are in the order in which data passes through them, and modules in alphabetical order.
    """
    rest = sorted(p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file() and p.name not in ORDER)
    paths: Iterable[Path] = [
        *sorted(PACKAGE.glob("*.py")),
        *(path for room in (*ORDER, *rest) for path in sorted((PACKAGE / room).rglob("*.py"))),
    ]
    found: dict[str, list[Module]] = {}
    for path in paths:
        module = described(path)
        if path.stem not in LEFT_OUT and not path.stem.startswith("_") and module.names:
            found.setdefault(module.name.rpartition(".")[0], []).append(module)
    return found


def page() -> str:
    """Return the page in Markdown."""
    parts = [ABOUT]
    for package, modules in packages().items():
        parts.append(f"\n## {package}\n\n")
        parts += [f"- `{m.name}`: {m.about} {', '.join(f'`{name}`' for name in m.names)}\n" for m in modules]
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")

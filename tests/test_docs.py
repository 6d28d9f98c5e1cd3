"""What the documentation says holds: links lead somewhere, commands exist, the generated page is up to date."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from taiji.reference import reference

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return [block for page in PAGES for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_modules_tests_and_benchmarks_named_in_the_papers_table_exist():
    text = (ROOT / "docs" / "papers.md").read_text()
    for path in re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    rooms = "|".join(p.name for p in (ROOT / "src" / "taiji").iterdir() if p.is_dir())
    for path in re.findall(rf"`((?:{rooms})/[\w/.]*)`", text):
        assert (ROOT / "src" / "taiji" / path).exists(), path


def test_the_configuration_page_is_what_the_settings_say():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference(), "run: taiji config --describe > docs/configuration.md"


def test_commands_in_the_pages_exist_with_their_options():
    seen = {}
    for line in "\n".join(blocks("bash")).splitlines():
        words = line.split("#")[0].split()
        if not words or words[0] != "taiji":
            continue
        if words[1] not in seen:
            done = subprocess.run([sys.executable, "-m", "taiji.cli", words[1], "--help"], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}: {done.stderr}"
            seen[words[1]] = done.stdout
        for option in (word for word in words[2:] if word.startswith("--")):
            assert option in seen[words[1]], f"{line}: no {option}"
    assert {"run"} <= set(seen)


def test_make_targets_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert f"\n{target}:" in makefile

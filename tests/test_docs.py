"""What the documentation says holds: links lead somewhere, generated pages are up to date, and every block runs."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.data.discovery import exports
from tests.pages import LANGUAGES, ROOT, blocks, pages
from tests.tiny import write_config, write_model, write_shop
from tools import reference_page, site_pages

from taiji import __version__, cli
from taiji.cli.settings_page import reference
from taiji.config import PRESETS, RENAMED_KEYS
from taiji.core.moved import MOVED, REMOVED_IN

PAGES = pages()
RUN = [
    page for page in PAGES if any(block.language in ("bash", "python") and not block.not_run for block in blocks(page))
]
SLOW = 300
"""Seconds a shell block may take before it counts as hanging."""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_navigation_holds_every_page_once():
    def leaves(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from leaves(inner)

    nav = list(leaves(yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)["nav"]))
    docs = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(nav) == sorted([*docs, *site_pages.MOVED.values()])


def anchors(text: str) -> set[str]:
    """Anchors of a page: those of its headings, as GitHub and the site make them, and those that it names."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line) for line in re.findall(r"^#+ (.*)$", outside, re.MULTILINE)]
    named = set(re.findall(r'<a id="([^"]+)">', outside))
    return named | {re.sub(r"[^\w\- ]", "", title.lower().strip()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_a_heading_find_it(page):
    for path, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text()):
        target = page.parent / path if path else page
        assert anchor in anchors(target.read_text()), f"{page.name} links to {path}#{anchor}"


def test_pages_of_the_site_have_its_links_and_titles():
    assert site_pages.rewritten("index.md", "[a](docs/data.md#files) ![b](docs/figures/b.svg)") == (
        "[a](data.md#files) ![b](figures/b.svg)"
    )
    assert site_pages.rewritten("results/gpu.md", "[a](../../CHANGELOG.md), [b](../../deploy/nginx.conf)") == (
        "[a](../changelog.md), [b](../files/deploy/nginx.conf)"
    )
    assert site_pages.rewritten("extending.md", "[`examples`](../examples/extending)") == "`examples`"
    code = "```python own.py\nx = {}[0](data.md)\n```"
    assert site_pages.rewritten("index.md", code) == code.replace("own.py", 'title="own.py"')
    module = "[`taiji.nn.experts`](../reference.md#taijinn) and [all](../reference.md)"
    assert site_pages.with_module_links(module) == "[`taiji.nn.experts`][taiji.nn.experts] and [all](../reference.md)"
    assert site_pages.linked_files("results/gpu.md", "[b](../../deploy/nginx.conf) [c](../data.md)") == {
        "deploy/nginx.conf"
    }


def test_the_site_has_a_page_for_every_package_with_public_names():
    pages = site_pages.package_pages()
    assert "::: taiji.data.sources.ratings\n" in pages["reference/taiji.data.sources.md"]


def test_the_page_of_migration_names_everything_that_is_renamed():
    text = (ROOT / "docs" / "migrating.md").read_text()
    moved = dict(line.split() for line in text.partition("```text\n")[2].partition("```")[0].splitlines())
    assert moved == MOVED
    assert f"removed in {REMOVED_IN}" in text
    for old, new in RENAMED_KEYS.items():
        assert f"| `{old}` | `{new}` |" in text
    for old, new in cli.RENAMED_COMMANDS.items():
        assert f"`taiji {old}`" in text and f"`taiji {new}`" in text


def test_the_changelog_has_the_version_that_the_package_says():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## ([\w.]+)", text, re.MULTILINE)
    assert versions[0] == "Unreleased" and versions[1] == __version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__


def test_the_workflow_and_the_hooks_call_what_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    called = {target for step in steps for target in re.findall(r"make ([\w-]+)", step)}
    assert called == {"test", "docs"} and called <= targets
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    development = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    for hook in hooks:
        tool = hook["entry"].split()[0].rpartition("/")[2]
        assert any(re.match(rf"{tool}\b", package) for package in development), tool


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    python = next((str(p) for p in (ROOT / ".venv-docs/bin/python",) if p.exists()), sys.executable)
    if subprocess.run(
        [python, "-c", "import mkdocs, material, mkdocstrings"], capture_output=True, check=False
    ).returncode:
        pytest.skip("the extra `docs` is not installed: make docs")
    done = subprocess.run(
        [python, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    built = (tmp_path / "site" / "reference" / "taiji.metrics.html").read_text()
    assert "Parameters:" in built and "Raises:" in built and "Returns:" in built
    for path in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)"', path.read_text())
        assert not loaded, f"{path.name} loads {loaded}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_and_tests_that_a_page_names_exist(page):
    named = re.findall(r"(?<![\w/.])((?:tests|benchmarks|src|tools|examples)/[\w/]+\.py)(?:::(\w+))?", page.read_text())
    for path, test in named:
        assert (ROOT / path).is_file(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"


SYSTEMS = [page for page in PAGES if page.parent == ROOT / "docs" / "systems"]


@pytest.mark.parametrize("page", [ROOT / "docs" / "papers.md", *SYSTEMS], ids=lambda p: p.stem)
def test_modules_tests_and_benchmarks_named_with_a_paper_exist(page):
    text = page.read_text()
    for path in re.findall(r"(?<![\w/])((?:tests|benchmarks)/[\w/]+(?:\.py|\.json|/))", text):
        assert (ROOT / path).exists(), path
    rooms = "|".join(p.name for p in (ROOT / "src" / "taiji").iterdir() if p.is_dir())
    for path in re.findall(rf"`((?:{rooms})/[\w/.]*)`", text):
        assert (ROOT / "src" / "taiji" / path).exists(), path


def test_the_configuration_page_is_what_the_settings_say():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference(), (
        "run: taiji config --describe > docs/configuration.md"
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_configuration_page_shows_every_value_of_a_preset_that_is_not_the_default(preset):
    """The values are read from the preset's file, not through the settings that the page is made from."""
    values = yaml.safe_load((ROOT / "src" / "taiji" / "presets" / f"{preset}.yaml").read_text())
    rows, section = {}, ""
    for line in (ROOT / "docs" / "configuration.md").read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("`")
        elif line.startswith("| `"):
            key, default, *more = re.split(r" ?(?<!\\)\| ", line.removeprefix("| "))
            rows[f"{section}.{key.strip('`')}"] = (default, more[0] if len(more) == 2 else "")

    def leaves(found, path=()):
        for key, value in found.items():
            if isinstance(value, dict):
                yield from leaves(value, (*path, key))
            else:
                yield ".".join((*path, key)), value

    for path, value in leaves(values):
        default, presets = rows[path]
        shown = dict(re.findall(r"(\w+) `([^`]*)`", presets))
        assert json.loads(shown.get(preset, default.strip("`"))) == value, (path, value, default, presets)


def test_the_reference_is_what_the_docstrings_say():
    assert (ROOT / "docs" / "reference.md").read_text() == reference_page.page(), "run: make pages"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_says_what_it_is(page):
    """A block without a language, or a command that is merely indented, would escape the runner."""
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}, line {block.line}: {block.language!r}"
        assert not block.not_run or len(block.not_run.split()) >= 3, f"{page.name}, line {block.line}: give the reason"
    assert len(re.findall(r"^```", page.read_text(), re.MULTILINE)) == 2 * len(blocks(page))
    assert not re.findall(r"^    (?:taiji|python|make|pip|curl|export) .*", page.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Folders the pages run in, with the files they take for granted, and commands that work on tiny sizes."""
    place = tmp_path_factory.mktemp("docs")
    commands = place / "bin"
    commands.mkdir()
    for name, line in {
        "taiji": f'exec {sys.executable} -m tests.documented "$@"',
        "python": f'exec {sys.executable} "$@"',
        "make": f'for target in "$@"; do grep -q "^$target:" {ROOT}/Makefile || {{ echo "no target $target"; exit 1; }}; done',
        "pip": f"for word in $(echo $* | grep -o '\\[.*\\]' | tr '[],' '   '); do grep -q \"^$word = \\[\" {ROOT}/pyproject.toml || {{ echo \"no extra $word\"; exit 1; }}; done",
    }.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (commands / name).chmod(0o755 | stat.S_IXUSR)
    model = write_model(place / "model")

    def folder(name: str) -> Path:
        cwd = place / name
        if not cwd.exists():
            (cwd / "path/to/my-shop").mkdir(parents=True)
            exports.german(cwd / "path/to/my-shop")
            write_shop(cwd / "path/to/small-shop")
            (cwd / "path/to/ml-latest-small").mkdir()
            write_films(cwd / "path/to/ml-latest-small")
            for config in ("my.yaml", "my-run.yaml"):
                write_config(cwd / config, cwd / "path/to/small-shop", model)
        return cwd

    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "HOME": str(place),
        "TAIJI_DOCUMENTED_MODEL": str(model),
        "OMP_NUM_THREADS": "1",
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return folder, environment


def write_films(folder: Path) -> None:
    """A folder in MovieLens' layout."""
    who, what, at, rng = exports.log()
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n"
        + "".join(f"{u + 1},{i + 1},{r}.0,{t}\n" for u, i, r, t in zip(who, what, rng.integers(1, 6, len(who)), at))
    )
    (folder / "movies.csv").write_text(
        "movieId,title,genres\n" + "".join(f"{i + 1},Film {i} (1999),Drama|Comedy\n" for i in range(exports.ITEMS))
    )


@pytest.mark.parametrize("page", RUN, ids=lambda p: p.stem)
def test_every_block_runs(page, bench, monkeypatch):
    """Tutorials about one's own data run the whole loop, and serving goes on from there; elsewhere `taiji run` stops
    after two stages."""
    folder, environment = bench
    whole = page.parent.name == "tutorials"
    cwd = folder("tutorials" if whole else page.stem)
    environment = {**environment, "TAIJI_DOCUMENTED": "whole" if whole else "begin"}
    monkeypatch.chdir(cwd)
    monkeypatch.syspath_prepend(str(cwd))
    space: dict = {"__name__": "__page__"}
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.not_run or block.language == "text":
            continue
        if block.name:
            Path(block.name).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.first + "\n", f"{where}, run first", "exec"), space)
            exec(compile(block.text, where, "exec"), space)
        elif block.language == "bash":
            if "serve" in block.text and not _can_serve():
                pytest.skip("the extra `serve` is not installed")
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=SLOW,
            )
            assert done.returncode == 0, f"{where}:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        elif block.language in ("yaml", "json"):
            yaml.safe_load(block.text) if block.language == "yaml" else json.loads(block.text)


def _can_serve() -> bool:
    from importlib.util import find_spec

    return all(find_spec(name) for name in ("fastapi", "uvicorn", "httpx"))


def test_blocks_that_do_not_run_here_are_at_least_right():
    """Python parses; `taiji` commands and options exist."""
    seen: dict[str, str] = {}
    for block in (block for page in PAGES for block in blocks(page) if block.not_run):
        if block.language == "python":
            ast.parse(block.text)
        for line in block.text.splitlines() if block.language == "bash" else ():
            words = line.split("#")[0].split()
            if words and words[0] == "taiji":
                if words[1] not in seen:
                    done = subprocess.run(
                        [sys.executable, "-m", "taiji.cli", words[1], "--help"],
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    assert done.returncode == 0, f"{line}: {done.stderr}"
                    seen[words[1]] = done.stdout
                assert all(option in seen[words[1]] for option in words[2:] if option.startswith("--")), line

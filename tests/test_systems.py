"""Pages of systems: each has one, its settings and modules exist, and its figures are those of the results."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from benchmarks.components.comparison import components
from tests.pages import ROOT, blocks, pages
from tools import reference_page

from taiji.cascade.assembly import OWN_KEYS, RERANKERS, make_fuser, make_retriever
from taiji.config import Config, load_config, setting_keys
from taiji.core.component import find_class
from taiji.pipeline.recommend_recipe import recommend_stages

FOLDER = ROOT / "docs" / "systems"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem != "index")
ELSEWHERE = "\n".join(page.read_text() for page in pages() if page.parent != FOLDER and page.name != "results.md")
SECTIONS = (
    "The problem",
    "What is the paper's, and what is ours",
    "In the code",
    "Switch it on",
    "Our figures",
    "When to use it, and when not",
)
HEAD = ("paper", "written from", "stage", "setting", "tests and benchmarks", "in our runs")
FIGURE = re.compile(r"(?<![\w.])[+−]?[\d,]*\.?\d+ (?:\[[^\]a-z]+\]|± \.?\d+)")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def table(text: str) -> list[list[str]]:
    """Return the cells of a page's first table, without its head."""
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert rows
    return [[cell.strip() for cell in row.strip().strip("|").split(" | ")] for row in rows[0].splitlines()[2:]]


def listed(path: Path) -> dict[str, list[str]]:
    """Return the rows of a list of systems by the file that each links to."""
    found = {}
    for row in table(path.read_text()):
        link = re.fullmatch(r"\[([^\]]+)\]\((?:systems/)?(\w+\.md)\)", row[0])
        assert link, row[0]
        found[link[2]] = [link[1], *row[1:]]
    return found


def head(page: Path) -> dict[str, str]:
    return {row[0]: row[1] for row in table(page.read_text())}


def test_every_system_has_its_page_and_its_row():
    papers, index = listed(ROOT / "docs" / "papers.md"), listed(FOLDER / "index.md")
    assert set(papers) == set(index) == {page.name for page in PAGES}
    assert f"The {len(papers)} published systems" in (FOLDER / "index.md").read_text()
    for page in PAGES:
        name, purpose, stage, verdict = index[page.name]
        assert papers[page.name][0] == name and page.read_text().startswith(f"# {name}: ")
        facts = head(page)
        assert (stage, verdict) == (facts["stage"], facts["in our runs"]) and purpose
        assert papers[page.name][1:] == [facts["paper"], facts["written from"]]


@each_page
def test_a_page_has_its_sections_in_order(page):
    text = page.read_text()
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == SECTIONS
    assert tuple(head(page)) == HEAD
    assert 30 <= len(text.splitlines()) <= 80
    assert "Not measured" in text


def configured(page: Path, folder: Path) -> list[Config]:
    """Return the configurations of a page's YAML blocks; wrong settings raise."""
    found = []
    for block in blocks(page):
        if block.language == "yaml":
            assert block.name, f"{page.name}, line {block.line}: a configuration is a file with a name"
            (folder / block.name).write_text(block.text)
            found.append(load_config(folder / block.name))
            recommend_stages(found[-1])
            if found[-1].recommend.rerank != "none":
                find_class(found[-1].recommend.rerank, RERANKERS, "recommend.rerank")
    return found


def known_keys(configs: list[Config]) -> set[str]:
    """Return all keys of these configurations, those of the components that they name under the component's own
    names."""
    keys = set(setting_keys())
    for config in configs:
        settings = config.recommend
        keys |= set(setting_keys(type(config)))
        made = [make_retriever(name, values) for name, values in settings.retrievers.items()]
        keys |= {
            key for part in (*made, make_fuser(settings)) for key in setting_keys(getattr(part, "Settings", Config))
        }
    return keys


@each_page
def test_settings_of_a_page_exist(page, tmp_path):
    """Those of its YAML blocks, those named with their section, and single ones written as `name: value`."""
    configs = configured(page, tmp_path)
    keys = known_keys(configs)
    prefixes = {".".join(key.split(".")[:place]) for key in keys for place in range(1, key.count(".") + 2)}
    leaves = {key.rpartition(".")[2] for key in prefixes} | set(OWN_KEYS)
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", text)
    sections = "|".join(name for name in Config.model_fields if name not in ("seed", "stages"))
    named = [m[0] for span in spans if (m := re.match(rf"(?:{sections})\.[a-z_][\w.]*", span)) and "/" not in span]
    assert not [key for key in named if key not in prefixes]
    single = [m[1] for span in spans if (m := re.match(r"([a-z_]+): ", span))]
    assert not [key for key in single if key not in leaves | set(Config.model_fields)]
    for span in re.findall(r"`([\w.]+: \w+)`", head(page)["setting"]):
        key, value = span.split(": ")
        if "." in key:
            load_config(overrides=[f"{key}={value}"])


@each_page
def test_modules_and_commands_of_a_page_exist(page):
    text = page.read_text()
    packages = reference_page.packages()
    links = re.findall(r"\[`(taiji[\w.]*)`\]\(\.\./reference\.md#(\w+)\)", text)
    assert links
    for module, anchor in links:
        package = module.rpartition(".")[0]
        assert module in {found.name for found in packages[package]} and anchor == package.replace(".", "")
    for module in re.findall(r"python -m (benchmarks\.\w+)", text):
        assert find_spec(module), module
    for name in re.findall(r"--only (\w+)", text):
        assert name in components()


@each_page
def test_figures_of_a_page_are_those_of_the_results(page):
    """A figure with its interval stands on a page of results or of a guide, word for word."""
    figures = FIGURE.findall(page.read_text())
    assert figures or page.stem in ("dualgr", "medcot", "onelive", "onemall", "s2gr", "mari")
    assert not [figure for figure in figures if figure not in ELSEWHERE]

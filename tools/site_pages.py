"""MkDocs hook (`make docs`) that adds what the site needs and docs/ does not contain, and adapts links to the site.

README, CONTRIBUTING and CHANGELOG become pages. Files of the repository to which pages link are copied to `files/`.
Each package gets a page of reference, which mkdocstrings fills from the docstrings. Links and code blocks are rewritten
from the form that GitHub reads to the form that MkDocs reads. The functions above :func:`on_config` need no MkDocs, so
the tests can use them in any environment.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tools import reference_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
MOVED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages outside docs/: path in the site by path in the repository."""
SHIM = "https://unpkg.com/iframe-worker/shim"
SHIM_HERE = "site/iframe-worker.js"
BESIDE = "files/"
REFERENCE = "reference.md"
LINK = re.compile(r"(?P<before>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MODULE_LINK = re.compile(r"\[`(?P<module>taiji[\w.]*)`\]\((?:[^)#\s]*/)?reference\.md#[^)\s]*\)")


def repository_path(page: str) -> str:
    """Return the path in the repository of a page of the site."""
    return next((path for path, moved in MOVED.items() if moved == page), f"docs/{page}")


def site_path(path: str) -> str:
    """Return the path in the site of a file of the repository."""
    return MOVED.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else BESIDE + path)


def linked_files(page: str, text: str) -> set[str]:
    """Return the files of the repository to which a page of the site links, without pages and without files in
    docs/."""
    targets = {
        posixpath.normpath(posixpath.join(posixpath.dirname(repository_path(page)), match["path"]))
        for match in LINK.finditer(FENCED.sub("", text))
    }
    return {path for path in targets if site_path(path).startswith(BESIDE) and (ROOT / path).is_file()}


def rewritten(page: str, text: str) -> str:
    """Return the text of a page with the links of the site, and with the names of code blocks as titles.

    Args:
        page: path of the page in the site.
        text: Markdown of the page, with links that are right in the repository.
    """
    here = posixpath.dirname(repository_path(page))

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, match["path"]))
        if (ROOT / path).is_dir():  # the site has no listings of folders
            return match["before"][1:-1]
        target = posixpath.relpath(site_path(path), posixpath.dirname(page) or ".")
        return f"{match['before']}({target}{match['anchor'] or ''})"

    parts, end = [], 0
    for block in FENCED.finditer(text):
        parts += [LINK.sub(link, text[end : block.start()]), re.sub(r"^```(\w+) (\S+)$", r'```\1 title="\2"', block[0], count=1, flags=re.M)]  # fmt: skip
        end = block.end()
    return "".join([*parts, LINK.sub(link, text[end:])])


def with_module_links(text: str) -> str:
    """Return the text of a page with links to the modules' own reference, where the text links a module's name to the
    list of modules."""
    return MODULE_LINK.sub(r"[`\g<module>`][\g<module>]", text)


def package_pages() -> dict[str, str]:
    """Return the pages of reference as Markdown by path in the site, one per package, with its public modules."""
    return {
        f"reference/{package}.md": f"# {package}\n\n" + "".join(f"::: {module.name}\n\n" for module in modules)
        for package, modules in reference_page.packages().items()
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Insert the pages of the packages after the list of modules in the navigation."""
    for section in config.nav or ():
        if isinstance(section, dict) and "Reference" in section:
            pages = [{path.removeprefix("reference/").removesuffix(".md"): path} for path in package_pages()]
            section["Reference"].insert(1, {"Python": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that are not in docs/."""
    from mkdocs.structure.files import File

    for path, moved in MOVED.items():
        head = "---\nhide: [navigation]\n---\n" if moved == "index.md" else ""
        files.append(File.generated(config, moved, content=head + (ROOT / path).read_text(encoding="utf-8")))
    linked = {path for file in files.documentation_pages() for path in linked_files(file.src_uri, file.content_string)}
    for path in sorted(linked):
        files.append(File.generated(config, BESIDE + path, abs_src_path=str(ROOT / path)))
    for path, text in package_pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links and code blocks of a page. Names of modules link to their reference, in the list of modules and on
    pages that link to it."""
    path = page.file.src_uri
    if path.startswith("reference/"):
        return markdown
    if path == REFERENCE:
        markdown = re.sub(r"^- `(taiji[\w.]*)`", r"- [`\1`][\1]", markdown, flags=re.MULTILINE)
    return rewritten(path, with_module_links(markdown))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load the worker of the search from the site itself, because the theme loads it from a server on the internet."""
    here = posixpath.dirname(page.file.dest_uri) or "."
    return output.replace(SHIM, posixpath.relpath(SHIM_HERE, here))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """Load the worker of the search from the site also on the page for addresses that do not exist."""
    return output_content.replace(SHIM, SHIM_HERE)

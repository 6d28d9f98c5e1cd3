"""Hook of MkDocs (`make docs`): pages and files of the site that do not lie in docs/ as they stand.

The README, CONTRIBUTING and CHANGELOG become pages; files of the repository that a page links to come along under
`files/`; each package gets a page of reference, in which mkdocstrings puts arguments, returns and raises; links and
blocks are rewritten from what GitHub reads to what MkDocs reads. Functions up to :func:`rewritten` need no MkDocs, so
that the tests can use them anywhere.
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
"""Pages outside docs/: path in the repository → path in the site."""
SHIM = "https://unpkg.com/iframe-worker/shim"
SHIM_HERE = "site/iframe-worker.js"
BESIDE = "files/"
REFERENCE = "reference.md"
LINK = re.compile(r"(?P<before>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MODULE_LINK = re.compile(r"\[`(?P<module>taiji[\w.]*)`\]\((?:[^)#\s]*/)?reference\.md#[^)\s]*\)")


def repository_path(page: str) -> str:
    """Return where a page of the site lies in the repository."""
    return next((path for path, moved in MOVED.items() if moved == page), f"docs/{page}")


def site_path(path: str) -> str:
    """Return where a file of the repository lies in the site."""
    return MOVED.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else BESIDE + path)


def linked_files(page: str, text: str) -> set[str]:
    """Return the files of the repository, outside docs/ and not pages, to which a page of the site links."""
    targets = {
        posixpath.normpath(posixpath.join(posixpath.dirname(repository_path(page)), match["path"]))
        for match in LINK.finditer(FENCED.sub("", text))
    }
    return {path for path in targets if site_path(path).startswith(BESIDE) and (ROOT / path).is_file()}


def rewritten(page: str, text: str) -> str:
    """Return a page's text with the site's links, and with names of blocks as titles.

    Args:
        page: The page's path in the site.
        text: Its Markdown, with links as they are right in the repository.
    """
    here = posixpath.dirname(repository_path(page))

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(here, match["path"]))
        if (ROOT / path).is_dir():  # a site has no listing of a folder
            return match["before"][1:-1]
        target = posixpath.relpath(site_path(path), posixpath.dirname(page) or ".")
        return f"{match['before']}({target}{match['anchor'] or ''})"

    parts, end = [], 0
    for block in FENCED.finditer(text):
        parts += [LINK.sub(link, text[end : block.start()]), re.sub(r"^```(\w+) (\S+)$", r'```\1 title="\2"', block[0], count=1, flags=re.M)]  # fmt: skip
        end = block.end()
    return "".join([*parts, LINK.sub(link, text[end:])])


def with_module_links(text: str) -> str:
    """Return a page's text with links of module names to the list of modules as links to the modules themselves."""
    return MODULE_LINK.sub(r"[`\g<module>`][\g<module>]", text)


def package_pages() -> dict[str, str]:
    """Return the pages of reference: path in the site → Markdown, a page for each package with its public modules."""
    return {
        f"reference/{package}.md": f"# {package}\n\n" + "".join(f"::: {module.name}\n\n" for module in modules)
        for package, modules in reference_page.packages().items()
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of packages behind the list of modules."""
    for section in config.nav or ():
        if isinstance(section, dict) and "Reference" in section:
            pages = [{path.removeprefix("reference/").removesuffix(".md"): path} for path in package_pages()]
            section["Reference"].insert(1, {"Python": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what does not lie in docs/."""
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
    """Rewrite links and blocks; names of modules become links to their reference, in the list of modules and where
    pages link to it."""
    path = page.file.src_uri
    if path.startswith("reference/"):
        return markdown
    if path == REFERENCE:
        markdown = re.sub(r"^- `(taiji[\w.]*)`", r"- [`\1`][\1]", markdown, flags=re.MULTILINE)
    return rewritten(path, with_module_links(markdown))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Take the worker of the search from the site itself: the theme names an address of the network for it."""
    here = posixpath.dirname(page.file.dest_uri) or "."
    return output.replace(SHIM, posixpath.relpath(SHIM_HERE, here))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """Do the same for the page of a missing address."""
    return output_content.replace(SHIM, SHIM_HERE)

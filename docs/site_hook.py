"""What the site has beside the pages in docs/, called by mkdocs (mkdocs.yml).

RESULTS.md and others at the top of the repository are pages too, written once. Links between pages
are those that work in the repository; what is no page leads to the repository's address. An entry
of the navigation that ends in / has all files of that folder.
"""

from __future__ import annotations

import configparser
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# By the path in the repository, that in the site.
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "RESULTS.md": "results.md",
    "results/labels.png": "results/labels.png",
    "results/few_labels.png": "results/few_labels.png",
}
_LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)([^)]*\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Entries of the navigation for whole folders."""
    config.nav = [each for each in map(_with_folders, config.nav or []) if each]
    return config


def _with_folders(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    ((title, content),) = entry.items()
    if isinstance(content, list):
        return {title: [each for each in map(_with_folders, content) if each]}
    if not content.endswith("/"):
        return entry
    folder = ROOT / "docs" / content
    files = sorted([*folder.glob("*.md"), *folder.glob("*.ipynb")])
    return {title: [content + file.name for file in files]} if files else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages and pictures from outside docs/."""
    for source, target in OUTSIDE.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of the repository as links of the site."""
    here = page.file.src_uri
    inverse = {target: source for source, target in OUTSIDE.items()}
    source = inverse.get(here, f"docs/{here}")

    def replaced(found: re.Match[str]) -> str:
        before, target, after = found.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        at_site = OUTSIDE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        if at_site and files.get_file_from_path(at_site):
            target = posixpath.relpath(at_site, posixpath.dirname(here) or ".")
        elif (ROOT / path).exists():
            target = f"{_repository()}/blob/HEAD/{path}"
        return before + target + after

    return _LINK.sub(replaced, markdown)


def _repository() -> str:
    """Its address, which is written in setup.cfg alone."""
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg", encoding="utf-8")
    return metadata["metadata"]["url"]

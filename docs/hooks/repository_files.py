"""Documents that live outside docs/ as pages of the site: runbook, benchmarks, changelog, contributing.

Links between them and docs/ are written for the repository, where they have to resolve too; here they are rewritten to
the pages of the site. A link to a file that is no page becomes its path.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "infra/RUNBOOK.md": "runbook.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Path in the repository -> path on the site."""
DECISIONS, MEASUREMENTS, MODEL_CARDS = "Decisions", "Measurements", "Model cards"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def pages() -> dict[str, str]:
    """PAGES, results of benchmarks and cards of the bundled models."""
    found = dict(PAGES)
    for folder, section in (("benchmarks", "measurements"), ("samif/assets", "models")):
        for path in sorted((ROOT / folder).glob("*.md")):
            found[f"{folder}/{path.name}"] = f"{section}/{path.name.lower()}"
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation's lists of decisions, measurements and model cards."""
    decisions = sorted(f"adr/{path.name}" for path in (ROOT / "docs" / "adr").glob("*.md"))
    measurements = ["scale.md", *(uri for uri in pages().values() if uri.startswith("measurements/"))]
    cards = [uri for uri in pages().values() if uri.startswith("models/")]
    lists = {DECISIONS: ["explanation/decisions.md", *decisions], MEASUREMENTS: measurements, MODEL_CARDS: cards}
    _fill(config.nav, lists)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents, and the list of decisions."""
    for path, uri in pages().items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=_rewritten(text, path, uri)))
    files.append(File.generated(config, "explanation/decisions.md", content=_decisions()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links that lead out of docs/."""
    if page.file.generated_by is not None:
        return markdown
    return _rewritten(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def _rewritten(text: str, path: str, uri: str) -> str:
    known = pages()

    def link(match: re.Match[str]) -> str:
        image, label, target = match.groups()
        name, _, anchor = target.partition("#")
        if image or not name or "://" in name:
            return match[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        if place.startswith("docs/"):
            page = place.removeprefix("docs/")
        elif place in known:
            page = known[place]
        else:
            return f"{label} (`{place}`)" if label.strip("`") != place else label
        return f"[{label}]({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{'#' * bool(anchor)}{anchor})"

    parts = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if index % 2 else LINK.sub(link, part) for index, part in enumerate(parts))


def _decisions() -> str:
    lines = ["# Decisions", "", "One record per decision: its context, what was decided, and the consequences.", ""]
    for path in sorted((ROOT / "docs" / "adr").glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}](../adr/{path.name})")
    return "\n".join(lines) + "\n"


def _fill(nav: list[object] | None, lists: dict[str, list[str]]) -> None:
    for entry in nav or []:
        if isinstance(entry, dict):
            for title, value in entry.items():
                if title in lists:
                    entry[title] = lists[title]
                elif isinstance(value, list):
                    _fill(value, lists)

"""The project's documents, and what they refer to: links, command lines, paths, modules and keys of params.yaml."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from docs.hooks import cli_reference, params_reference
from tests.support.infra_commands import check_make, check_samif

ROOT = Path(__file__).parents[2]
GENERATED = {cli_reference.PAGE, params_reference.PAGE, "explanation/decisions.md"}
"""Pages that only the built site has; documents below docs/ may link to them."""

OTHER_PROGRAMS = {
    ".",
    "cd",
    "curl",
    "export",
    "git",
    "kubectl",
    "mv",
    "openssl",
    "infra/test-services.sh",
    "pre-commit",
}
"""Programs that are not ours: their options are not looked at."""

PACKAGES = ("samif", "flows", "infra", "tests", "benchmarks", "recipes", "docs")


def documents() -> list[Path]:
    """Every Markdown document, sorted."""
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    for folder in ("docs", "benchmarks", "infra", "samif/assets"):
        found += (ROOT / folder).rglob("*.md")
    return sorted(found)


def broken_links(path: Path) -> list[str]:
    """Relative links and anchors of a document that lead nowhere."""
    broken = []
    for target in _links(path.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        if place.is_relative_to(ROOT / "docs") and place.relative_to(ROOT / "docs").as_posix() in GENERATED:
            continue
        if not place.exists():
            broken.append(f"{target}: there is no such file")
        elif not place.is_relative_to(ROOT):
            broken.append(f"{target}: outside the repository")
        elif anchor and anchor not in anchors(place.read_text(encoding="utf-8")):
            broken.append(f"{target}: there is no such heading")
    return broken


def _links(text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^()\s]+)\)|src=\"([^\"]+)\"", _without_fences(text)):
        link = target[0] or target[1]
        if not re.match(r"[a-z]+:", link):
            yield link


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as Markdown renderers make them."""
    titles = re.findall(r"^#+ (.+)$", _without_fences(text), re.MULTILINE)
    plain = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    words = (unicodedata.normalize("NFKD", title).lower().strip() for title in plain)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title)) for title in words}


def command_lines(text: str) -> list[str]:
    """Command lines of fenced shell blocks, continued lines joined, chains split."""
    fenced = re.findall(r"^ *```(?:sh|bash)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    return [part for line in lines for part in _parts(line)]


def _parts(line: str) -> Iterator[str]:
    lexer = shlex.shlex(line, posix=False, punctuation_chars="&;|")
    lexer.commenters, lexer.whitespace_split = "#", True
    words: list[str] = []
    for word in [*lexer, "&&"]:
        if set(word) <= set("&;|"):
            if words:
                yield " ".join(words)
            words = []
        else:
            words.append(word)


def python_blocks(text: str) -> list[str]:
    """Python code of fenced blocks."""
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def mentions(text: str) -> list[str]:
    """Code in running text that begins with one of our programs; it may leave arguments out."""
    return [code for code in codes(text) if re.match(r"(samif|make|dvc|python -m) [a-z]", code)]


def codes(text: str) -> list[str]:
    """Everything between backticks in running text."""
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", _without_fences(text))]


def _without_fences(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


def faults(line: str) -> list[str]:
    """What a command line has against it: unknown programs, commands, options, targets, modules."""
    words = shlex.split(line)
    while words and re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", words[0]):
        words = words[1:]
    if not words:
        return []
    program = words[0].rpartition(".venv/bin/")[2]
    if program == "samif":
        return check_samif(["samif", *words[1:]])
    if program == "make":
        return check_make(words)
    if program == "dvc":
        return _dvc(words[1:])
    if program == "python" and words[1:2] == ["-m"]:
        return _module(line, words[2])
    return [] if program in OTHER_PROGRAMS else [f"{line}: unknown program"]


def faults_of_mention(line: str) -> list[str]:
    """The same of code in running text, which may leave out arguments and the value of its last option."""
    allowed = ("Missing argument", "Missing option", "names no command")
    found = [fault for fault in faults(line) if not any(reason in fault for reason in allowed)]
    return found if found and faults(f"{line} 1") else []


def _dvc(words: list[str]) -> list[str]:
    from dvc.cli import DvcParserError, parse_args

    try:
        parse_args(words)
    except DvcParserError:
        return [f"dvc {' '.join(words)}: not understood"]
    return []


def _module(line: str, name: str) -> list[str]:
    place = ROOT / name.replace(".", "/")
    there = place.with_suffix(".py").exists() or (place / "__main__.py").exists()
    return [] if there or name == "pytest" else [f"{line}: there is no module {name}"]


def missing_names(text: str) -> list[str]:
    """Paths, dotted names and keys of params.yaml in running text that are not there; capitals are placeholders."""
    missing = []
    for code in codes(text):
        if re.fullmatch(rf"({'|'.join(PACKAGES)})/[\w./@-]*", code) and not re.search(r"[A-Z]{3,}", code):
            if not (ROOT / code).exists():
                missing.append(f"{code}: there is no such path")
        elif re.fullmatch(r"(samif|flows|infra|benchmarks|recipes)(\.\w+)+", code):
            if not _is_defined(code):
                missing.append(f"{code}: there is no such module or name")
        elif re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", code) and not is_key(code):
            missing.append(f"{code}: there is no such key in params.yaml")
    return missing


def _is_defined(name: str) -> bool:
    """A module, or a name that a module defines or imports."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        for module in (place.with_suffix(".py"), place / "__init__.py"):
            if module.exists():
                rest = parts[count:]
                return not rest or re.search(rf"\b{rest[0]}\b", module.read_text(encoding="utf-8")) is not None
    return False


def is_key(name: str) -> bool:
    """A key of params.yaml; what does not begin with one of its sections is taken for something else."""
    from pydantic import BaseModel

    from samif.config import Params

    model: type[BaseModel] | None = Params
    for part in name.split("."):
        if model is None or part not in model.model_fields:
            return model is Params
        model = params_reference.model_in(model.model_fields[part].annotation)
    return True

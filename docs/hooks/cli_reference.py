"""reference/cli.md, made from the typer application at every build."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.core import TyperCommand, TyperGroup

PAGE = "reference/cli.md"
INTRODUCTION = """# Command line

Exit codes: 0 success, 1 refused or failed with one sentence on standard error, 2 wrong usage, 130 interrupted by
Ctrl-C.
Commands with `--json` write one JSON document to standard output.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    files.append(File.generated(config, PAGE, content=cli_reference()))
    return files


def cli_reference() -> str:
    """Markdown: a heading per command, its usage, help text, arguments and options."""
    return "\n".join([INTRODUCTION, *_command(("samif",), application())])


def application() -> TyperGroup:
    """`samif` with all of its commands, which register themselves when their modules are imported."""
    import flows.cli

    for module in pkgutil.iter_modules(flows.cli.__path__):
        importlib.import_module(f"flows.cli.{module.name}")
    command = typer.main.get_command(flows.cli.app)
    assert isinstance(command, TyperGroup)
    return command


def _command(path: tuple[str, ...], command: TyperCommand | TyperGroup) -> Iterator[str]:
    name = " ".join(path)
    context = command.make_context(name, [], resilient_parsing=True)
    if isinstance(command, TyperGroup):
        yield from [f"## {name}\n\n{command.help}\n"] if len(path) > 1 else _options(command, context)
        for word in command.list_commands(context):
            part = command.get_command(context, word)
            if part is not None and not part.hidden:
                yield from _command((*path, word), part)
        return
    yield f"{'#' * len(path)} {name}\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    yield f"{_joined(command.help or '')}\n"
    yield from _options(command, context)


def _options(command: TyperCommand | TyperGroup, context: Any) -> Iterator[str]:
    """A table of arguments and options; of the application, those that precede a command."""
    yield f"| {'option before a command' if isinstance(command, TyperGroup) else 'argument or option'} | meaning |"
    yield "|---|---|"
    for part in command.get_params(context):
        record = part.get_help_record(context)
        if record is not None and record[0] != "--help":
            yield f"| `{_cell(record[0])}` | {_cell(record[1])} |"
    yield ""


def _joined(text: str) -> str:
    """Lines of a paragraph in one line each, so that Markdown does not take an indented one for code."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

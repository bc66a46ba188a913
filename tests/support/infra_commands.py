"""Whether a command line that stands in a document would be understood: nothing is run."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import typer
from typer.core import TyperCommand, TyperGroup

ROOT = Path(__file__).parents[2]


UsageError = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")


@cache
def _samif() -> TyperGroup:
    import flows.cli

    for module in pkgutil.iter_modules(flows.cli.__path__):
        importlib.import_module(f"flows.cli.{module.name}")
    command = typer.main.get_command(flows.cli.app)
    assert isinstance(command, TyperGroup)
    return command


def check_samif(words: Sequence[str]) -> list[str]:
    """What the command line has against `samif ...`: unknown commands and options, missing arguments, wrong values."""
    line, rest = " ".join(words), list(words[1:])
    command: TyperCommand | TyperGroup | None = _samif()
    while isinstance(command, TyperGroup):
        if not rest:
            return [f"{line}: names no command"]
        command = command.get_command(command.make_context("samif", [], resilient_parsing=True), rest[0])
        if command is None:
            return [f"{line}: there is no command '{rest[0]}'"]
        rest = rest[1:]
    try:
        command.make_context("samif", rest)
    except UsageError as error:
        return [f"{line}: {error.format_message()}"]
    return []


def check_make(words: Sequence[str]) -> list[str]:
    """What the Makefile has against `make ...`: targets and variables that are not there."""
    text = (ROOT / "Makefile").read_text()
    rules = re.findall(r"^([a-z][a-z -]*):", text, re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    found = []
    for word in words[1:]:
        name, is_variable, _ = word.partition("=")
        if is_variable and f"$({name})" not in text and f"$(filter remove,$({name}))" not in text:
            found.append(f"{' '.join(words)}: the Makefile does not read {name}")
        if not is_variable and name not in targets:
            found.append(f"{' '.join(words)}: there is no target '{name}'")
    return found

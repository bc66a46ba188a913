"""The command tree and what its commands share."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from flows.inference.image_files import Skipped

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Incremental few-shot instance segmentation: train, evaluate, register, serve and monitor.",
)

Workspace = Annotated[Path, typer.Option("--workspace", "-w", help="Folder with params.yaml.", show_default="here")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
LabelsOn = Annotated[
    Literal["auto", "upright", "stored"],
    typer.Option(help="What labels of images that an EXIF tag turns were drawn on: the upright or the stored pixels."),
]
Recursive = Annotated[bool, typer.Option("--recursive", help="Also take the images in sub-folders.")]
Checkpoint = Annotated[str | None, typer.Option(help="Checkpoint of an encoder that is not bundled.")]
SemanticCheckpoint = Annotated[str | None, typer.Option(help="Checkpoint of the semantic encoder, if there is one.")]
HERE = Path(".")


@app.callback()
def set_up(
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Log to standard error; SAMIF_LOG=debug|info|warning sets the level.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(help="Format of standard error; also SAMIF_LOG_FORMAT.", show_default="text"),
    ] = None,
) -> None:
    """What every command does first."""
    from flows.runtime.log_format import FORMAT_VARIABLE
    from flows.runtime.logs import set_up_logging

    if log_format is not None:
        os.environ[FORMAT_VARIABLE] = log_format  # stages inherit it
    set_up_logging(verbose)


def group(name: str, help_text: str) -> typer.Typer:
    """A group of commands under the main one."""
    part = typer.Typer(no_args_is_help=True, help=help_text)
    app.add_typer(part, name=name)
    return part


def whoami() -> str:
    """Login name of the person at the keyboard."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def console() -> Console:
    """Standard output for people; plain where it is no terminal. Text is printed as it is: names may have brackets and
    colons, which rich would take for markup; give a `style` instead."""
    return Console(highlight=False, markup=False, emoji=False)


def print_json(content: Any) -> None:
    """JSON on standard output; dataclasses become objects, paths text. Only ASCII where the terminal's encoding is not
    UTF-8, or a name has bytes that are not."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=_plain)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2, default=_plain)
    print(text)


def print_rows(
    headings: list[str], rows: list[list[str]], right: tuple[str, ...] = (), whole: tuple[str, ...] = ()
) -> None:
    """A table that fits a terminal: columns `right` hold numbers and columns `whole` short words, neither is broken;
    other cells wrap."""
    from rich import box
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            overflow="fold",
            no_wrap=heading in right or heading in whole,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_skipped(skipped: Sequence[Skipped]) -> None:
    """Files and folders that were passed over: their number and the first names for each reason."""
    from flows.inference.image_files import SUBFOLDER
    from samif.inference.coco_ids import shortened

    of_reason: dict[str, list[str]] = {}
    for item in skipped:
        of_reason.setdefault(item.reason, []).append(str(item.path))
    for reason, names in of_reason.items():
        hint = "; --recursive looks into them" if reason == SUBFOLDER else ""
        console().print(f"skipped {len(names)} ({reason}): {shortened(names)}{hint}", soft_wrap=True)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"cannot print {type(value).__name__} as JSON")

"""`samif errors list|accept|compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, group, print_json, print_rows
from flows.cli.data_import import FormatName

if TYPE_CHECKING:
    from flows.error_analysis.collect import Errors

errors_app = group("errors", "List errors on validation or reviewed images by cause; turn them into a session.")

OfModel = Annotated[
    str | None, typer.Option(help="A registered version instead: NAME@alias or NAME/VERSION, on the validation images.")
]
Kept = Annotated[
    Path | None, typer.Option(help="Folder of 'samif serve --keep': errors of the answers in it. Needs --reviewed.")
]
ReviewedLabels = Annotated[Path | None, typer.Option("--reviewed", help="File or folder of the corrected labels.")]
LabelFormat = Annotated[
    FormatName | None, typer.Option("--format", help="Format of --reviewed.", show_default="guessed")
]


@errors_app.command("list")
def list_(
    session: Annotated[
        str | None, typer.Option(help="Classifier: base, or a session.", show_default="the last session")
    ] = None,
    model: OfModel = None,
    kept: Kept = None,
    reviewed: ReviewedLabels = None,
    format_: LabelFormat = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Count false names, misses and unknowns by cause and class; write a page with a crop of each."""
    from flows.error_analysis.page import write_page
    from flows.workspace.layout import Layout
    from samif.evaluate.errors import CAUSES, DEFINITIONS

    errors, notes = _collect(workspace, session, model, kept, reviewed, format_)
    page = Layout(workspace.resolve()).reports / errors.page
    given = {"--of": session, "--model": model, "--kept": kept, "--reviewed": reviewed, "--format": format_}
    options = [str(part) for option, value in given.items() if value is not None for part in (option, value)]
    write_page(errors, page, options)
    if as_json:
        print_json(
            {
                "session": errors.name,
                "images": len(errors.dataset.images),
                "counts": [{"cause": c, "class": name, "errors": n} for c, name, n in errors.rows()],
                "errors": [
                    {"id": e.id, "cause": e.cause, "image": e.image.file_name, "name": e.name, "label": e.label,
                     "score": e.score, "segmentation": e.rle}
                    for e in errors.cases
                ],
                "definitions": DEFINITIONS,
                "notes": notes,
                "page": page,
            }
        )  # fmt: skip
        return
    print_rows(["cause", "class", "errors"], [[c, name, str(n)] for c, name, n in errors.rows()], right=("errors",))
    say = console()
    say.print(
        f"{len(errors.cases)} errors of {errors.name} on {len(errors.dataset.images)} {errors.images}", soft_wrap=True
    )
    for note in notes:
        say.print(note, soft_wrap=True)
    found = {case.cause for case in errors.cases}
    for cause in CAUSES:
        if cause in found:
            say.print(f"{cause}: {DEFINITIONS[cause]}", soft_wrap=True)
    say.print(f"ids and crops: {page}", soft_wrap=True)


@errors_app.command("accept")
def accept(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Errors, as the page and --json list them.")],
    session: Annotated[str, typer.Option(help="Name of the new session.")],
    use: Annotated[
        Literal["background", "shots"],
        typer.Option("--as", help="Hard negatives, or shots of new classes under the labels of unknown objects."),
    ] = "background",
    of: Annotated[
        str | None, typer.Option(help="Classifier whose errors they are.", show_default="the last session")
    ] = None,
    model: OfModel = None,
    kept: Kept = None,
    reviewed: ReviewedLabels = None,
    format_: LabelFormat = None,
    workspace: Workspace = HERE,
) -> None:
    """Add a session that learns from accepted errors; `samif run` then trains only this session.

    Errors on objects of known classes are refused with what to do instead: the rows of known classes never change.
    """
    from flows.error_analysis.accept import accept as accept_errors
    from flows.error_analysis.collect import VALIDATION
    from flows.workspace.layout import Layout

    errors, _ = _collect(workspace, of, model, kept, reviewed, format_)
    done = accept_errors(Layout(workspace.resolve()), errors, ids, session, use)
    say = console()
    if done.shots is None:
        say.print(f"session {session}: {done.objects} objects that are none of the classes; next: samif run")
    else:
        say.print(f"session {session}: {', '.join(done.classes)}, {done.shots} shots each; next: samif run")
    if errors.images == VALIDATION:
        say.print(
            f"their images, copied to {done.folder}, are validation images too: after the run 'samif errors compare' "
            "leaves them out, the evaluation does not",
            soft_wrap=True,
        )
    else:
        say.print(
            f"their images are copied to {done.folder}; after the run 'samif errors compare' says whether it helped",
            soft_wrap=True,
        )


@errors_app.command("compare")
def compare(
    session: Annotated[str | None, typer.Option(help="The session.", show_default="the last session")] = None,
    reviewed: Annotated[
        Path | None,
        typer.Option(help="File or folder of labels of other images.", show_default="the validation images"),
    ] = None,
    format_: LabelFormat = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Say whether a session helped: it against the classifier before it, on images that neither learnt from."""
    from flows.error_analysis.compare import compare_round
    from flows.error_analysis.page import write_round
    from flows.report.page import number, signed
    from flows.workspace.layout import Layout
    from samif.config import load_params

    layout = Layout(workspace.resolve())
    done = compare_round(layout, load_params(layout.params), session, reviewed, format_)
    comparison, rows = done.comparison, list(done.rows())
    page = layout.reports / f"compare-{done.session}.html"
    write_round(done, page)
    if as_json:
        print_json(
            {
                "session": done.session,
                "before": done.before,
                "images": comparison.images,
                "left_out": done.left_out,
                "rows": rows,
                "comparison": comparison,
                "page": page,
            }
        )
        return
    cells = [
        [r.what, number(r.before, 2), number(r.after, 2), f"{signed(r.low, 2)} to {signed(r.high, 2)}", r.outcome]
        for r in rows
    ]
    right = ("before", "after")
    print_rows(["", "before", "after", f"{comparison.confidence:.0%} interval of the change", "outcome"], cells, right)
    say = console()
    if comparison.added:
        say.print(f"new classes, not in these numbers: {', '.join(comparison.added)}", soft_wrap=True)
    out = f"; {done.left_out} that a session learnt from are left out" if done.left_out else ""
    say.print(f"{done.session} against {done.before} on {comparison.images} {done.images}{out}: {page}", soft_wrap=True)


def _collect(
    workspace: Path,
    session: str | None,
    model: str | None,
    kept: Path | None,
    reviewed: Path | None,
    format_: str | None,
) -> tuple[Errors, list[str]]:
    """The errors that the options name, and what is to be said about them."""
    from flows.error_analysis.collect import collect, of_version
    from flows.error_analysis.reviewed import collect_reviewed
    from flows.workspace.layout import Layout
    from samif.config import load_params
    from samif.inference.coco_ids import shortened

    if (kept is None) != (reviewed is None):
        raise typer.BadParameter("give --kept and --reviewed together, or neither")
    if sum(given is not None for given in (session, model, kept)) > 1:
        raise typer.BadParameter("give one of a session, --model, and --kept with --reviewed")
    layout = Layout(workspace.resolve())
    params = load_params(layout.params)
    if kept is not None and reviewed is not None:
        found = collect_reviewed(kept, reviewed, format_)
        notes = [f"answers of {', '.join(found.models)}"]
        if found.without_answer:
            names = shortened(found.without_answer)
            notes.append(f"{len(found.without_answer)} reviewed images have no answer in {kept}: {names}")
        if found.lost_labels:
            notes.append(f"{found.lost_labels} labels cannot be read; 'samif data import {reviewed}' says why")
        return found.errors, notes
    if model is None:
        return collect(layout, params, session), []
    from flows.cli.registry import open_registry
    from flows.comparison.scorer import Scorer

    registry = open_registry(workspace).registry
    name, number = registry.resolve(model)
    scorer = Scorer(layout, params, registry)
    return of_version(f"{name}/{number}", scorer.dataset, scorer.measure(f"{name}/{number}")), []

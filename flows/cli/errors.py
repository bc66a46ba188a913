"""`samif errors list|accept`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, group, print_json, print_rows

errors_app = group("errors", "List the errors on the validation images by cause; turn them into a session.")


@errors_app.command("list")
def list_(
    session: Annotated[
        str | None, typer.Option(help="Classifier: base, or a session.", show_default="the last session")
    ] = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Count false names, misses and unknowns by cause and class; write a page with a crop of each."""
    from flows.error_analysis.collect import collect
    from flows.error_analysis.page import write_page
    from flows.workspace.layout import Layout
    from samif.config import load_params
    from samif.evaluate.errors import CAUSES, DEFINITIONS

    layout = Layout(workspace.resolve())
    errors = collect(layout, load_params(layout.params), session)
    page = layout.reports / f"errors-{errors.name}.html"
    write_page(errors, page)
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
                "page": page,
            }
        )  # fmt: skip
        return
    print_rows(["cause", "class", "errors"], [[c, name, str(n)] for c, name, n in errors.rows()], right=("errors",))
    say = console()
    say.print(f"{len(errors.cases)} errors of {errors.name} on {len(errors.dataset.images)} validation images")
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
    workspace: Workspace = HERE,
) -> None:
    """Add a session that learns from accepted errors; `samif run` then trains only this session."""
    from flows.error_analysis.accept import accept as accept_errors
    from flows.error_analysis.collect import collect
    from flows.workspace.layout import Layout
    from samif.config import load_params

    layout = Layout(workspace.resolve())
    done = accept_errors(layout, collect(layout, load_params(layout.params), of), ids, session, use)
    say = console()
    if done.shots is None:
        say.print(f"session {session}: {done.objects} objects that are none of the classes; next: samif run")
    else:
        say.print(f"session {session}: {', '.join(done.classes)}, {done.shots} shots each; next: samif run")
    say.print(
        f"their images, copied to {done.folder}, are validation images too: the next evaluation is too favourable for "
        "them; judge the session on new images",
        soft_wrap=True,
    )

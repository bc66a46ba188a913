"""`samif init | run | why | doctor | session add|remove` and the hidden `stage` that dvc.yaml calls."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import HERE, AsJson, LabelsOn, Workspace, app, console, group, print_json, print_rows, whoami
from flows.workspace.layout import Layout
from samif.config import CocoSource, load_params
from samif.errors import ConfigError, ObjectMissing, SamifError

session_app = group("session", "Add and remove sessions.")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new workspace.")],
    train_images: Annotated[Path, typer.Option(help="Folder of training images.")],
    train_annotations: Annotated[Path, typer.Option(help="COCO instance file of the training images.")],
    val_images: Annotated[Path | None, typer.Option(help="Folder of validation images.")] = None,
    val_annotations: Annotated[Path | None, typer.Option(help="COCO instance file of the validation images.")] = None,
    session: Annotated[
        list[str] | None,
        typer.Option(help='NAME=CLASS,CLASS; repeat for several sessions. NAME="A, B",C where a name has a comma.'),
    ] = None,
    shots: Annotated[int, typer.Option(help="Labelled objects per new class.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the shot draw.")] = 0,
    encoder: Annotated[str, typer.Option(help="photo, tiny, mobile_sam, vit_b, vit_l or vit_h.")] = "photo",
    checkpoint: Annotated[
        str | None, typer.Option(help="Checkpoint of the encoder: file, https:// or s3:// address.")
    ] = None,
    checkpoint_sha256: Annotated[
        str | None, typer.Option(help="SHA-256 of the checkpoint; another file is refused.")
    ] = None,
    line: Annotated[str | None, typer.Option(help="Name of the line in the registry.", show_default="folder")] = None,
    labels_on: LabelsOn = "auto",
) -> None:
    """Create a workspace for your own images; classes of no session are base classes."""
    from flows.workspace.init import init_workspace

    if (val_images is None) != (val_annotations is None):
        raise typer.BadParameter("give --val-images and --val-annotations together, or neither")
    val = None
    if val_images is not None and val_annotations is not None:
        val = CocoSource(images=str(val_images), annotations=str(val_annotations))
    train = CocoSource(images=str(train_images), annotations=str(train_annotations))
    params = init_workspace(
        folder, train, val, [_session(text) for text in session or []], shots=shots, seed=seed,
        encoder=encoder, checkpoint=checkpoint, checkpoint_sha256=checkpoint_sha256, line=line,
        labels_on=labels_on,
    )  # fmt: skip
    names = ", ".join(f"{n} ({len(s.classes)})" for n, s in params.sessions.items()) or "none"
    out = console()
    out.print(f"workspace {folder}: {len(params.dataset.base_classes)} base classes, sessions: {names}", soft_wrap=True)
    if line is None and params.line != folder.resolve().name:
        out.print(f"line '{params.line}': small letters, digits, - and _ only", soft_wrap=True)
    out.print(f"next: cd {shlex.quote(str(folder))} && samif run", soft_wrap=True)


@app.command()
def run(
    workspace: Workspace = HERE,
    who: Annotated[
        str | None, typer.Option(help="Who requests the run, for the registry.", show_default="login name")
    ] = None,
    why: Annotated[str, typer.Option(help="Reason of the run, for the registry.")] = "",
    as_json: AsJson = False,
) -> None:
    """Run the stages whose inputs changed, register every classifier version, write the report."""
    from flows.pipeline.run import run as run_workspace
    from flows.workspace.run_request import request_of

    out = console()
    request = request_of(workspace, who or whoami(), why)
    record = run_workspace(workspace, request, (lambda _: None) if as_json else out.print)
    layout = Layout(workspace.resolve())
    summary = json.loads((layout.reports / "summary.json").read_text(encoding="utf-8"))
    if as_json:
        print_json({"run": record, "summary": summary})
        return

    from flows.report.publish import session_table  # brings torch: not before a refusal
    from flows.runtime.cost import Cost

    out.print()
    out.print(session_table(summary))
    if record["cost"] is not None:
        out.print(f"\ncost: {Cost.model_validate(record['cost']).line}", soft_wrap=True)
    out.print(f"\nreport: {layout.reports / 'index.html'}", soft_wrap=True)


@app.command()
def why(workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """List the stages that `samif run` would execute, and those of the last run, with reasons."""
    from flows.pipeline.explain import why as reasons_of
    from flows.pipeline.run import last_run
    from flows.runtime.cost import Cost

    if not Layout(workspace).params.exists():
        raise ObjectMissing(f"{workspace.resolve()} is not a workspace (no params.yaml); run 'samif init' to make one")
    now, last = reasons_of(workspace), last_run(workspace)
    if as_json:
        print_json({"now": now, "last_run": last})
        return
    out = console()
    due = [reason for reason in now if reason.will_run]
    out.print("a run now" + ("" if due else ": nothing to do"), style="bold")
    if due:
        print_rows(["stage", "because"], [[r.stage, "; ".join(r.reasons)] for r in due])
        spared = len(now) - len(due)
        out.print(f"up to date: {spared} other stage{'s' if spared != 1 else ''}")
    if last is not None:
        headline = f"\nlast run {last['started'][:19]} by {last['who']}: {last['outcome']}"
        out.print(headline, style="bold", soft_wrap=True)
        because = {r["stage"]: "; ".join(r["reasons"]) for r in last["reasons"]}
        rows = [[s["stage"], s["how"], f"{s['seconds']:.1f}", because.get(s["stage"], "")] for s in last["stages"]]
        if rows:
            print_rows(["stage", "how", "seconds", "because"], rows, right=("seconds",))
            if (cost := last.get("cost")) is not None:
                out.print(f"cost: {Cost.model_validate(cost).line}", soft_wrap=True)
        else:
            out.print("no stage ran")


@app.command()
def doctor(workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """Check this machine and this workspace; print a remedy for each failed check."""
    from flows.workspace.doctor import examine

    checks = examine(workspace)
    if as_json:
        print_json(checks)
    else:
        rows = [["ok" if c.ok else "MISSING", c.name, c.found if c.ok else f"{c.found}: {c.remedy}"] for c in checks]
        print_rows(["", "check", "found"], rows)
    bad = [c.name for c in checks if not c.ok]
    if bad:
        raise SamifError(f"{len(bad)} of {len(checks)} checks failed ({', '.join(bad)}); the table says what to do")


@session_app.command("add")
def session_add(
    definition: Annotated[
        str, typer.Argument(metavar="NAME=CLASS,CLASS", help="The session and its new classes; NAME with --background.")
    ],
    shots: Annotated[int, typer.Option(help="Labelled objects per new class.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the shot draw.")] = 0,
    images: Annotated[Path | None, typer.Option(help="Images of the new classes.", show_default="training")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Their COCO instance file.")] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Add the labelled objects as hard negatives.")
    ] = False,
    workspace: Workspace = HERE,
) -> None:
    """Append a session to params.yaml; `samif run` then trains only this session."""
    from flows.workspace.edit import add_background, add_session

    if (images is None) != (annotations is None):
        raise typer.BadParameter("give --images and --annotations together, or neither")
    source = None
    if images is not None and annotations is not None:
        source = CocoSource(images=str(images), annotations=str(annotations))
    if background:
        if source is None:
            raise typer.BadParameter("--background needs --images and --annotations of what was wrongly named")
        if "=" in definition:
            raise typer.BadParameter(f"'{definition}' names classes; with --background give a name alone")
        counted = add_background(workspace, definition, source)
        console().print(f"session {definition}: {counted} objects that are none of the classes; next: samif run")
        return
    name, classes = _session(definition)
    params = add_session(workspace, name, classes, shots, seed, source)
    added = params.sessions[name]
    names = ", ".join(added.classes)
    console().print(f"session {name} after {added.after}: {names}, {shots} shots each; next: samif run")


@session_app.command("remove")
def session_remove(name: Annotated[str, typer.Argument(help="The last session.")], workspace: Workspace = HERE) -> None:
    """Remove the last session from params.yaml; its version stays in the registry."""
    from flows.workspace.edit import remove_session

    remove_session(workspace, name)
    console().print(f"session {name} removed; registered versions stay; next: samif run")


@app.command(hidden=True)
def stage(
    name: str,
    session: Annotated[str | None, typer.Argument()] = None,
    revision: Annotated[int, typer.Option(help="Of the stage's code; dvc.yaml carries it.")] = 0,
    weights: Annotated[
        str, typer.Option(help="First digits of the shipped weights' digest; dvc.yaml carries it.")
    ] = "",
    workspace: Workspace = HERE,
) -> None:
    """Run one stage; dvc.yaml calls this."""
    from flows.pipeline.reproduce import end_with_run, write_failure
    from flows.runtime.log_format import add_context
    from flows.stages import keep_cost, run_stage
    from flows.workspace.dvc_yaml import REVISIONS, shipped_digest

    end_with_run()
    add_context(stage=name if session is None else f"{name}@{session}")
    layout = Layout(workspace.resolve())
    try:
        expected = REVISIONS.get(name.removesuffix("_base") if name == "evaluate_base" else name)
        if revision and revision != expected:
            raise ConfigError(
                f"dvc.yaml asks for revision {revision} of stage '{name}', this samif has {expected}; use 'samif run'"
            )
        params = load_params(layout.params)
        if weights and weights != (shipped := shipped_digest(params.encoder)):
            raise ConfigError(f"dvc.yaml asks for weights {weights}, this samif ships {shipped}; use 'samif run'")
        run_stage(name, session, layout, params)
        keep_cost(name, session, layout)
    except SamifError as error:
        if write_failure(error):
            raise typer.Exit(1) from None
        raise


def _session(text: str) -> tuple[str, str]:
    """Name and classes of NAME=CLASS,CLASS; which commas separate is decided by the classes of the annotation file."""
    name, equals, classes = text.partition("=")
    if not equals or not name.strip() or not classes.strip(" ,"):
        raise typer.BadParameter(f"'{text}' is not NAME=CLASS,CLASS")
    return name.strip(), classes

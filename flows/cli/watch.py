"""`samif watch reference | run | status | history`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, group, print_json, print_rows
from flows.cli.registry import Opened, open_registry
from samif.errors import SamifError

if TYPE_CHECKING:
    from flows.watch.history import State
    from flows.watch.watcher import Look, Subject
    from samif.watch.charts import Reading
    from samif.watch.rules import Due

watch_app = group(
    "watch", "Monitoring: evaluation of the live version, control charts over a stream of images, alarms."
)

STEADY_IMAGES = 300
"""Of a reference against which false alarms do not come in clumps (benchmarks/WATCH.md)."""

Model = Annotated[str | None, typer.Option(help="The version to watch.", show_default="LINE@champion")]
Images = Annotated[Path | None, typer.Option(help="Folder to which the camera writes.", show_default="no stream")]


@watch_app.command()
def reference(
    images: Annotated[
        Path | None, typer.Option(help="Ordinary images of the line.", show_default="the validation images")
    ] = None,
    model: Model = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Create the reference of a version and show the limits of every chart."""
    from flows.registry.model_files import find_model
    from flows.watch.history import History
    from flows.watch.reference import References
    from flows.watch.stream import Eye
    from flows.watch.watcher import levels_of, subject_of, watch_folder

    opened = open_registry(workspace)
    name, number = opened.registry.resolve(_ref(opened, model))
    exact = f"{name}/{number}"
    history = History(watch_folder(opened.layout))
    with history.writing():
        references = References(opened.layout, opened.params, opened.registry)
        if images is None:
            made = references.make(exact)
        else:
            made = references.make_from(exact, Eye(find_model(exact, None, opened.registry), opened.params), images)
    subject = subject_of(opened.layout, opened.params, opened.registry, exact)
    readings = levels_of(history.state(opened.params.watch.window), subject).readings(subject.normal)
    if as_json:
        content = {"model": exact, "reference": subject.reference, "source": made.source, "images": len(made.seen)}
        print_json(content | {"statistics": [_plain(reading) for reading in readings]})
        return
    _print_readings(readings, levels=False)
    params = opened.params.watch
    console().print(
        f"{exact}: normal by {len(made.seen)} images ({made.source}); an undisturbed stream of {params.horizon} "
        f"images raises an alarm with probability {params.false_alarm:g}",
        soft_wrap=True,
        markup=False,
    )
    if len(made.seen) < STEADY_IMAGES:
        console().print(
            f"that is so over many references: against this one of {len(made.seen)} it may be several times as often, "
            f"or never; --images with {STEADY_IMAGES} ordinary images of the line or more steadies it",
            markup=False,
        )


@watch_app.command()
def run(
    images: Images = None,
    once: Annotated[bool, typer.Option("--once", help="Process new images once, then exit (default).")] = False,
    every: Annotated[
        float | None, typer.Option(min=0.01, metavar="MINUTES", help="Repeat every so many minutes.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve Prometheus metrics on this port of 127.0.0.1.")
    ] = None,
    model: Model = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Evaluate the live version and new images; raise alarms. Never changes the live version."""
    from flows.runtime.progress import say
    from flows.watch.watcher import Watcher

    if once and every is not None:
        raise typer.BadParameter("give --once or --every, not both")
    if metrics_port is not None and every is None:
        raise typer.BadParameter("--metrics-port needs --every: after one look nobody is there to answer")
    opened = open_registry(workspace)
    folder = images.resolve() if images is not None else None
    watcher = Watcher(opened.layout, opened.params, opened.registry, _ref(opened, model), folder)
    if metrics_port is not None:
        say(f"metrics at http://127.0.0.1:{watcher.metrics.serve(metrics_port)}/metrics")
    with watcher.history.writing():
        if every is None:
            _print_look(watcher.look(), as_json)
            return
        while True:
            try:
                _print_look(watcher.look(), as_json)
            except SamifError as error:  # what fails now may work at the next look; the metrics count it
                watcher.metrics.failed_looks.inc()
                say(f"this look ended early: {error}")
            time.sleep(60.0 * every)


@watch_app.command()
def status(model: Model = None, workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """Show the level of every chart, active alarms and recommended actions."""
    from flows.watch.history import History
    from flows.watch.watcher import due_now, levels_of, subject_of, watch_folder

    opened = open_registry(workspace)
    subject = subject_of(opened.layout, opened.params, opened.registry, _ref(opened, model))
    state = History(watch_folder(opened.layout)).state(opened.params.watch.window)
    readings = levels_of(state, subject).readings(subject.normal)
    found = due_now(opened.layout, opened.params, state, subject)
    if as_json:
        print_json(_status(subject, state, readings, found))
        return
    _print_readings(readings, levels=True)
    out = console()
    for alarm in state.standing.values():
        out.print(f"ALARM since {alarm.time:%Y-%m-%d %H:%M}: {alarm.sentence}", style="bold red", markup=False)
    for item in found:
        out.print(f"due: {item.what}: {item.why}", style="bold", markup=False)
    seen = state.images if state.reference == subject.reference else 0
    tail = "no replay yet"
    if state.replay is not None:
        tail = f"replayed {state.replay.time:%Y-%m-%d %H:%M}, {_outcome(state.replay.complaints)}"
    alarms = f"{len(state.standing)} alarms" if state.standing else "no alarm"
    out.print(f"{subject.ref}: {alarms}, {seen} images seen, {tail}", soft_wrap=True, markup=False)


@watch_app.command()
def history(
    workspace: Workspace = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object per line.")] = False,
) -> None:
    """List processed images per day, evaluations, alarms and their end."""
    from flows.watch.history import History
    from flows.watch.history_table import history_rows
    from flows.watch.watcher import watch_folder

    kept = History(watch_folder(open_registry(workspace).layout))
    if as_json:
        for record in kept.read():
            print(record.model_dump_json())
        return
    rows = history_rows(kept.read())
    if not rows:
        console().print("nothing was watched yet; 'samif watch run --images FOLDER' begins")
        return
    print_rows(["when", "what", "which"], rows, whole=("when", "what"))


def _ref(opened: Opened, model: str | None) -> str:
    if model is not None:
        return model
    line = opened.params.line
    if "champion" not in opened.registry.aliases(line):
        raise SamifError(
            f"no version of '{line}' is live; promote one ('samif registry promote {line}/VERSION'), or name one with "
            "--model"
        )
    return f"{line}@champion"


def _print_look(look: Look, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "images": look.images,
                "unreadable": look.unreadable,
                "waiting": look.waiting,
                "replayed": look.replayed,
                "raised": look.raised,
                "cleared": look.cleared,
            }
        )
        return
    parts = [f"{look.images} new images"]
    parts += [f"{look.unreadable} files left out"] * bool(look.unreadable)
    parts += [f"{look.waiting} not whole yet, looked at again next time"] * bool(look.waiting)
    parts += ["the live version replayed"] * look.replayed
    parts += [f"{len(look.raised)} alarms raised" if look.raised else "no new alarm"]
    parts += [f"{len(look.cleared)} cleared"] * bool(look.cleared)
    now = datetime.now(UTC)
    console().print(f"{now:%Y-%m-%d %H:%M}: {', '.join(parts)}", soft_wrap=True, markup=False)


def _print_readings(readings: list[Reading], levels: bool) -> None:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = []
    for r in readings:
        watched = r.low is not None or r.high is not None
        says = "" if watched else "not watched"
        cells = [shown(r.normal), shown(r.low), shown(r.high)]
        rows.append([r.name, *([shown(r.level)] if levels else []), *cells, f"ALARM, too {r.side}" if r.side else says])
    headings = ["statistic", *(["now"] if levels else []), "normal", "at least", "at most", "says"]
    print_rows(headings, rows, right=("now", "normal", "at least", "at most"), whole=("says",))


def _status(subject: Subject, state: State, readings: list[Reading], found: list[Due]) -> dict[str, Any]:
    return {
        "model": subject.ref,
        "reference": subject.reference,
        "images": state.images if state.reference == subject.reference else 0,
        "unreadable": state.unreadable,
        "statistics": [_plain(reading) for reading in readings],
        "alarms": list(state.standing.values()),
        "due": found,
        "replay": state.replay,
    }


def _plain(reading: Reading) -> dict[str, Any]:
    return {
        "name": reading.name,
        "level": reading.level,
        "normal": reading.normal,
        "low": reading.low,
        "high": reading.high,
        "alarm": reading.side,
    }


def _outcome(complaints: tuple[str, ...]) -> str:
    return f"{len(complaints)} things differ" if complaints else "as registered"

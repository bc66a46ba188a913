"""`samif watch reference | run | status | history`."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, group, print_json, print_rows
from flows.cli.registry import open_registry
from samif.errors import ObjectMissing, SamifError

if TYPE_CHECKING:
    from flows.comparison.decide import Opened
    from flows.watch.history import State
    from flows.watch.watcher import PollResult, WatchedVersion
    from samif.watch.charts import Reading
    from samif.watch.rules import Recommendation

logger = logging.getLogger(__name__)

watch_app = group(
    "watch", "Monitoring: evaluation of the live version, control charts over a stream of images, alarms."
)

RELIABLE_IMAGES = 300
"""Reference size from which the rate of false alarms hardly depends on the reference (benchmarks/WATCH.md)."""

Model = Annotated[str | None, typer.Option(help="The version to watch.", show_default="LINE@champion")]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder to which the camera writes, or of 'samif serve --keep'.", show_default="no stream"),
]


@watch_app.command()
def reference(
    images: Annotated[
        Path | None,
        typer.Option(
            help="Ordinary images of the line: a folder, or that of 'samif serve --keep'.",
            show_default="the validation images",
        ),
    ] = None,
    model: Model = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Create the reference of a version and show the limits of every chart."""
    from flows.registry.model_files import find_model
    from flows.watch.history import History
    from flows.watch.reference import References
    from flows.watch.stream import StreamObserver
    from flows.watch.watcher import levels_of, watch_folder, watched_version

    opened = open_registry(workspace)
    name, number = opened.registry.resolve(_ref(opened, model))
    exact = f"{name}/{number}"
    history = History(watch_folder(opened.layout))
    with history.writing():
        references = References(opened.layout, opened.params, opened.registry)
        if images is None:
            made = references.from_validation(exact)
        else:
            observer = StreamObserver(find_model(exact, None, opened.registry), opened.params)
            made = references.from_folder(exact, observer, images)
    version = watched_version(opened.layout, opened.params, opened.registry, exact)
    readings = levels_of(history.state(opened.params.watch.window), version).readings(version.baseline)
    count = len(made.observations)
    if as_json:
        content = {"model": exact, "reference": version.reference, "source": made.source, "images": count}
        print_json(content | {"statistics": [_plain(reading) for reading in readings]})
        return
    _print_readings(readings, levels=False)
    params = opened.params.watch
    console().print(
        f"{exact}: reference of {count} images ({made.source}); an undisturbed stream of {params.horizon} images "
        f"raises an alarm with probability {params.false_alarm:g}",
        soft_wrap=True,
        markup=False,
    )
    if count < RELIABLE_IMAGES:
        console().print(
            f"this is an average over references: with one of {count} images the probability may be zero or several "
            f"times as high; give {RELIABLE_IMAGES} ordinary images of the line or more with --images",
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
        raise typer.BadParameter("--metrics-port needs --every: the metrics end with the command")
    opened = open_registry(workspace)
    folder = images.resolve() if images is not None else None
    watcher = Watcher(opened.layout, opened.params, opened.registry, _ref(opened, model), folder)
    if metrics_port is not None:
        say(f"metrics at http://127.0.0.1:{watcher.metrics.serve(metrics_port)}/metrics")
    with watcher.history.writing():
        if every is None:
            _print_result(watcher.poll(), as_json)
            return
        while True:
            try:
                _print_result(watcher.poll(), as_json)
            except SamifError as error:  # the command's top level: the next poll may succeed, and the metrics count it
                logger.warning("a poll failed", exc_info=True)
                watcher.metrics.failed_polls.inc()
                say(f"this poll failed: {error}")
            time.sleep(60.0 * every)


@watch_app.command()
def status(model: Model = None, workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """Show the level of every chart, active alarms and recommended actions."""
    from flows.watch.history import History
    from flows.watch.watcher import levels_of, recommendations, watch_folder, watched_version

    opened = open_registry(workspace)
    version = watched_version(opened.layout, opened.params, opened.registry, _ref(opened, model))
    state = History(watch_folder(opened.layout)).state(opened.params.watch.window)
    readings = levels_of(state, version).readings(version.baseline)
    recommended = recommendations(opened.layout, opened.params, state, version)
    if as_json:
        print_json(_status(version, state, readings, recommended))
        return
    _print_readings(readings, levels=True)
    out = console()
    for alarm in state.active.values():
        out.print(f"ALARM since {alarm.time:%Y-%m-%d %H:%M}: {alarm.sentence}", style="bold red", markup=False)
    for item in recommended:
        out.print(f"recommended: {item.action}: {item.reason}", style="bold", markup=False)
    count = state.images if state.reference == version.reference else 0
    tail = "no replay yet"
    if state.replay is not None:
        tail = f"replayed {state.replay.time:%Y-%m-%d %H:%M}, {_outcome(state.replay.differences)}"
    alarms = f"{len(state.active)} active alarms" if state.active else "no active alarm"
    out.print(f"{version.ref}: {alarms}, {count} images observed, {tail}", soft_wrap=True, markup=False)


@watch_app.command()
def history(
    workspace: Workspace = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object per line.")] = False,
) -> None:
    """List processed images per day, evaluations, alarms and their end."""
    from flows.watch.history import History
    from flows.watch.history_table import history_rows
    from flows.watch.watcher import watch_folder

    stored = History(watch_folder(open_registry(workspace).layout))
    if as_json:
        for record in stored.read():
            print(record.model_dump_json())
        return
    rows = history_rows(stored.read())
    if not rows:
        console().print("the history is empty; 'samif watch run --images FOLDER' begins it")
        return
    print_rows(["time", "event", "details"], rows, whole=("time", "event"))


def _ref(opened: Opened, model: str | None) -> str:
    if model is not None:
        return model
    line = opened.params.line
    if "champion" not in opened.registry.aliases(line):
        raise ObjectMissing(
            f"no version of '{line}' is live; promote one ('samif registry promote {line}/VERSION'), or name one with "
            "--model"
        )
    return f"{line}@champion"


def _print_result(result: PollResult, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "images": result.images,
                "unreadable": result.unreadable,
                "incomplete": result.incomplete,
                "removed": result.removed,
                "replayed": result.replayed,
                "raised": result.raised,
                "cleared": result.cleared,
            }
        )
        return
    parts = [f"{result.images} new images"]
    parts += [f"{result.unreadable} unreadable files"] * bool(result.unreadable)
    parts += [f"{result.incomplete} incomplete files, read again at the next poll"] * bool(result.incomplete)
    parts += [f"{result.removed} files removed before they were read"] * bool(result.removed)
    parts += ["the live version replayed"] * result.replayed
    parts += [f"{len(result.raised)} alarms raised" if result.raised else "no new alarm"]
    parts += [f"{len(result.cleared)} cleared"] * bool(result.cleared)
    now = datetime.now(UTC)
    console().print(f"{now:%Y-%m-%d %H:%M}: {', '.join(parts)}", soft_wrap=True, markup=False)


def _print_readings(readings: list[Reading], levels: bool) -> None:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = []
    for r in readings:
        state = "" if r.low is not None or r.high is not None else "not monitored"
        cells = [shown(r.expected), shown(r.low), shown(r.high)]
        rows.append([r.name, *([shown(r.level)] if levels else []), *cells, f"ALARM, {r.side}" if r.side else state])
    headings = ["statistic", *(["level"] if levels else []), "expected", "low", "high", "state"]
    print_rows(headings, rows, right=("level", "expected", "low", "high"), whole=("state",))


def _status(
    version: WatchedVersion, state: State, readings: list[Reading], recommended: list[Recommendation]
) -> dict[str, Any]:
    return {
        "model": version.ref,
        "reference": version.reference,
        "images": state.images if state.reference == version.reference else 0,
        "unreadable": state.unreadable,
        "statistics": [_plain(reading) for reading in readings],
        "alarms": list(state.active.values()),
        "recommendations": recommended,
        "replay": state.replay,
    }


def _plain(reading: Reading) -> dict[str, Any]:
    return {
        "name": reading.name,
        "level": reading.level,
        "expected": reading.expected,
        "low": reading.low,
        "high": reading.high,
        "alarm": reading.side,
    }


def _outcome(differences: tuple[str, ...]) -> str:
    return f"{len(differences)} differences" if differences else "as registered"

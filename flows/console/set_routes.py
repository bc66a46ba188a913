"""Folders of images: lists, small copies, the order in which to label, and sessions that learn from the labels."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Body, Depends, Query, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask

from flows.console.access import Person, Routes
from flows.console.label_sets import LABELS, PREVIEW_SIDE, THUMBNAIL_SIDE, LabelSet
from flows.console.state import At, Place
from flows.console.texts import ClassName, FileName, Line
from flows.workspace.edit import add_background, add_session
from samif.config import CocoSource, ReadRules
from samif.config.learning import Name
from samif.errors import ConfigError, DataError
from samif.io import files

routes = Routes()


def _set(place: At, set_id: str) -> LabelSet:
    return place.sets.find(set_id)


Of = Annotated[LabelSet, Depends(_set)]
ImageName = Annotated[FileName, Query(alias="name")]
FormatName = Literal["coco", "yolo", "labelme", "voc", "via", "cvat", "label-studio", "masks"]
_MOST_LOST = 20
"""Sentences about an export: a header is short."""
_DAY = {"Cache-Control": "private, max-age=86400"}


@routes.get("/workspaces/{workspace}/sets", "viewer")
def sets(place: At) -> list[dict[str, Any]]:
    """The folders of images, with how much of each is labelled."""
    listed = []
    for found in place.sets.listed():
        try:
            count: int | None = len(place.sets.names(found))
        except DataError:
            count = None
        counts = found.labels.counts()
        objects = sum(objects for _, objects in counts.values())
        listed.append(
            {"id": found.id, "folder": str(found.folder), "images": count, "labelled": len(counts), "objects": objects}
        )
    return listed


@routes.get("/workspaces/{workspace}/sets/{set_id}/images", "viewer")
def images(place: At, of: Of) -> dict[str, Any]:
    """The images: those without labels first, in the order of `samif suggest` once it was computed."""
    counts = of.labels.counts()
    order = place.orders.of(of.id)
    ranks = {name: rank for rank, (name, _) in enumerate(order.images)}
    reasons = dict(order.images)
    names = sorted(place.sets.names(of), key=lambda n: (n in counts, ranks.get(n, len(ranks)), n))
    listed = [
        {
            "name": name, "labelled": name in counts, "objects": counts[name][1] if name in counts else 0,
            "why": reasons.get(name) if name not in counts else None,
        }
        for name in names
    ]  # fmt: skip
    purpose = next((name for name, draft in place.sets.drafts.items() if draft is of), None)
    return {
        "images": listed, "order": order.state, "error": order.error, "classes": classes_of(place, of),
        "purpose": purpose,
    }  # fmt: skip


@routes.post("/workspaces/{workspace}/sets/{set_id}/order", "labeller")
def order(place: At, of: Of, account: Person) -> dict[str, Any]:
    """Start to order the images as `samif suggest` does; the list tells when it is done."""
    place.actions.add(account, "order images", set=of.id)
    place.orders.start(of.id, place.layout, of.folder, [of.folder / name for name in of.labels.counts()])
    return {"order": place.orders.of(of.id).state}


@routes.get("/workspaces/{workspace}/sets/{set_id}/thumbnail", "viewer", response_class=Response)
def thumbnail(place: At, of: Of, name: ImageName) -> Response:
    """A small JPEG of an image."""
    return Response(place.sets.small(of, name, THUMBNAIL_SIDE), media_type="image/jpeg", headers=_DAY)


@routes.get("/workspaces/{workspace}/sets/{set_id}/preview", "viewer", response_class=Response)
def preview(place: At, of: Of, name: ImageName, side: Annotated[int, Query(ge=64, le=8192)] = PREVIEW_SIDE) -> Response:
    """A JPEG of an image for the editor."""
    return Response(place.sets.small(of, name, side), media_type="image/jpeg", headers=_DAY)


@routes.get("/workspaces/{workspace}/sets/{set_id}/export", "viewer", response_class=FileResponse)
def export(
    of: Of,
    format_: Annotated[FormatName, Query(alias="format")] = "coco",
) -> FileResponse:
    """The labels in a format that `samif data import` reads, as a ZIP archive; the header `X-Samif-Lost` lists what the
    format cannot hold, as JSON."""
    from samif.dataset.check import kinds, raise_on_errors
    from samif.dataset.coco import read_coco
    from samif.dataset.formats import export_labels

    if not of.labels.path.exists():
        raise DataError(f"no image of {of.id} is labelled yet; label one first")
    folder = Path(tempfile.mkdtemp(prefix="samif-export-"))
    try:
        dataset, findings = read_coco(of.folder, of.labels.path, ReadRules())
        raise_on_errors(findings)
        out = folder / "labels"
        target = out / "instances.json" if format_ == "coco" else out
        lost = [f"{kind.what}: {kind.count}; {kind.remedy}" for kind in kinds(findings)]
        lost += export_labels(dataset, target, format_)
        archive = Path(shutil.make_archive(str(folder / of.id), "zip", out))
    except BaseException:
        shutil.rmtree(folder)
        raise
    return FileResponse(
        archive, filename=f"{of.id}-{format_}.zip", media_type="application/zip",
        headers={"X-Samif-Lost": json.dumps(lost[:_MOST_LOST])}, background=BackgroundTask(shutil.rmtree, folder),
    )  # fmt: skip


class NewSession(BaseModel):
    """A session that learns from the labels of a folder; `background`: from all of them, as hard negatives. `run`
    starts it at once."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    classes: list[ClassName] = Field(default=[], max_length=500)
    shots: Annotated[int, Field(ge=1, le=10_000)] = 10
    background: bool = False
    run: bool = False
    why: Line = ""


@routes.post("/workspaces/{workspace}/sets/{set_id}/session", "operator")
def teach(place: At, of: Of, account: Person, session: Annotated[NewSession, Body()]) -> dict[str, Any]:
    """Add a session to params.yaml, as `samif session add` does, and start the run if that is asked for."""
    if not of.labels.path.exists():
        raise DataError(f"no image of {of.id} is labelled yet; label one first")
    taught = place.layout.root / LABELS / "taught" / f"{session.name}.json"
    if session.name in place.params.sessions:
        raise ConfigError(f"there is already a session '{session.name}'; choose another name")
    files.commit(taught, of.labels.path.read_bytes())  # the session pins its labels, and labelling goes on
    source = CocoSource(images=str(of.folder), annotations=str(taught))
    with ExitStack() as undo:
        undo.callback(taught.unlink)
        if session.background:
            add_background(place.layout.root, session.name, source)
        else:
            add_session(place.layout.root, session.name, session.classes, session.shots, source=source)
        undo.pop_all()
    place.actions.add(account, "add session", session=session.name, classes=session.classes, shots=session.shots,
                      set=of.id, background=session.background)  # fmt: skip
    if session.run:
        place.actions.add(account, "run", why=session.why)
        place.runs.start(account.name, session.why)
    return {"session": session.name}


def classes_of(place: Place, of: LabelSet) -> list[dict[str, Any]]:
    """Names to choose from: those of the folder's labels with their numbers, and those of the workspace."""
    counts = of.labels.classes()
    params = place.params
    sessions = [name for session in params.sessions.values() for name in session.classes]
    known = dict.fromkeys([*params.dataset.base_classes, *sessions])
    names = dict.fromkeys([*counts, *known])
    return [{"name": name, "objects": counts.get(name, 0), "known": name in known} for name in names]

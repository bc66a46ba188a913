"""The queue of errors on the validation images, and sessions that learn from accepted ones."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Body, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from flows.console.access import Person, Routes
from flows.console.state import At, Place
from flows.console.texts import Line
from flows.error_analysis.accept import accept as accept_errors
from flows.error_analysis.accept import uses_of
from flows.error_analysis.collect import Errors, collect, find_case
from flows.error_analysis.page import crop_jpeg
from samif.config.learning import Name
from samif.evaluate.errors import DEFINITIONS

routes = Routes()


class Accepted(BaseModel):
    """Errors for a new session; `run` starts it at once."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=2000)]
    name: Name
    use: Literal["background", "shots"] = "background"
    of: Name | None = None
    run: bool = False
    why: Line = ""


@routes.get("/workspaces/{workspace}/errors", "viewer")
def errors(place: At, session: Annotated[Name | None, Query()] = None) -> dict[str, Any]:
    """The errors of a classifier by cause, by default of the last session."""
    found = _errors(place, session)
    return {
        "session": found.name,
        "images": len(found.dataset.images),
        "definitions": DEFINITIONS,
        "counts": [{"cause": cause, "class": name, "errors": n} for cause, name, n in found.rows()],
        "errors": [
            {
                "id": e.id, "cause": e.cause, "image": e.image.file_name, "name": e.name, "label": e.label,
                "score": e.score, "uses": uses_of(e.cause),
            }
            for e in found.cases
        ],
    }  # fmt: skip


@routes.get("/workspaces/{workspace}/errors/{error_id}/crop", "viewer", response_class=Response)
def crop(place: At, error_id: str, session: Annotated[Name | None, Query()] = None) -> Response:
    """The surroundings of an error with its mask, as a JPEG."""
    found = _errors(place, session)
    content = crop_jpeg(found.dataset, find_case(found, error_id))
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


@routes.post("/workspaces/{workspace}/errors/accept", "operator")
def accept(place: At, account: Person, wanted: Annotated[Accepted, Body()]) -> dict[str, Any]:
    """Add a session that learns from errors, as `samif errors accept` does, and start the run if that is asked for."""
    done = accept_errors(place.layout, _errors(place, wanted.of), wanted.ids, wanted.name, wanted.use)
    place.actions.add(account, "accept errors", session=wanted.name, use=wanted.use, errors=wanted.ids)
    if wanted.run:
        place.actions.add(account, "run", why=wanted.why)
        place.runs.start(account.name, wanted.why)
    return {
        "session": wanted.name, "objects": done.objects, "classes": list(done.classes), "shots": done.shots,
        "run": wanted.run,
    }  # fmt: skip


def _errors(place: Place, session: str | None) -> Errors:
    return collect(place.layout, place.params, session)

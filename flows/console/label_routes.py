"""One image: make it ready, outline objects by clicks, find everything, read and save its labels."""

from __future__ import annotations

import time
from typing import Annotated, Any

import numpy as np
from fastapi import Body
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from flows.console.access import Person, Routes
from flows.console.engine import Named
from flows.console.label_file import Conflict, ImageFacts, LabelledObject, SavedImage
from flows.console.outlines import rings_of
from flows.console.set_routes import ImageName, Of
from flows.console.state import At
from flows.console.texts import ClassName
from flows.http.errors import HttpError
from samif.dataset.segmentation import BadSegmentation, read_mask
from samif.errors import DataError
from samif.inference.interactive import Click, Prompts
from samif.inference.segment import UNKNOWN
from samif.masks.rle import Rle, areas, decode_whole, encode_whole

routes = Routes()
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Pixel = Annotated[int, Field(ge=0, le=1_000_000)]
_SET = "/workspaces/{workspace}/sets/{set_id}"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Code(_Body):
    """A COCO run-length code."""

    size: tuple[Pixel, Pixel]
    counts: Annotated[str, Field(max_length=20_000_000)]


class ObjectIn(_Body):
    """An object to save."""

    name: ClassName
    rle: Code
    id: Annotated[int, Field(ge=1)] | None = None


class LabelsIn(_Body):
    """The labels of an image, and the revision that they started from."""

    revision: Annotated[int, Field(ge=0)]
    objects: Annotated[list[ObjectIn], Field(max_length=5000)]


class ClickIn(_Body):
    """A click in image pixels."""

    x: Number
    y: Number
    foreground: bool


class PromptIn(_Body):
    """Clicks and a box for one object, the mask so far, and the part of the image to look at; see `Engine.outline`."""

    clicks: Annotated[list[ClickIn], Field(max_length=200)] = []
    box: tuple[Number, Number, Number, Number] | None = None
    before: Code | None = None
    part: tuple[Pixel, Pixel, Pixel, Pixel] | None = None
    sharpen: bool = False


class NeverIn(_Body):
    """A mask that is never to be named, and the name that it has, if any."""

    rle: Code
    name: ClassName = "object"


class StrokeIn(_Body):
    """An area drawn by hand, as polygons of [x1, y1, x2, y2, ...], added to a mask or taken from it."""

    polygon: Annotated[list[Number], Field(min_length=6, max_length=20_000)]
    add: bool
    before: Code | None = None


@routes.post(f"{_SET}/ready", "labeller")
def ready(place: At, of: Of, name: ImageName) -> dict[str, Any]:
    """Embed an image, if it is not embedded yet."""
    started = time.perf_counter()
    facts = place.sets.facts(of, name)
    where = place.engine.embed(place.sets.path(of, name), facts.sha256)
    return {"where": where, "seconds": round(time.perf_counter() - started, 3)}


@routes.get(f"{_SET}/labels", "viewer")
def labels(place: At, of: Of, name: ImageName) -> dict[str, Any]:
    """The labels of an image with their revision."""
    return _shown(place.sets.facts(of, name), of.labels.image(name))


@routes.put(f"{_SET}/labels", "labeller", response_model=None)
def save(
    place: At, of: Of, account: Person, name: ImageName, content: Annotated[LabelsIn, Body()]
) -> dict[str, Any] | JSONResponse:
    """Replace the labels of an image, unless somebody saved others since; then 409 and what was saved."""
    facts = place.sets.facts(of, name)
    if unnamed := [o.name for o in content.objects if o.name == UNKNOWN]:
        raise DataError(f"{len(unnamed)} objects have the name '{UNKNOWN}', which stands for none; name or delete them")
    objects = [LabelledObject(o.name, _rle(o.rle), o.id) for o in content.objects]
    try:
        saved = of.labels.save(facts, content.revision, objects, account.name)
    except Conflict as conflict:
        error = HttpError(409, "conflict", f"{conflict.saved.by} saved this image meanwhile; look at it and save again")
        return JSONResponse(error.content | {"saved": _shown(facts, conflict.saved)}, 409)
    place.actions.add(account, "save labels", set=of.id, image=name, revision=saved.revision, objects=len(objects))
    return _shown(facts, saved)


@routes.post(f"{_SET}/outline", "labeller")
def outline(place: At, of: Of, name: ImageName, prompt: Annotated[PromptIn, Body()]) -> dict[str, Any]:
    """The outline of the object under the clicks, with its names."""
    started = time.perf_counter()
    facts = place.sets.facts(of, name)
    clicks = tuple(Click(c.x, c.y, c.foreground) for c in prompt.clicks)
    if not clicks and prompt.box is None:
        raise DataError("there is no click and no box; give one")
    if outside := [c for c in clicks if not (0 <= c.x < facts.width and 0 <= c.y < facts.height)]:
        raise DataError(f"the click at ({outside[0].x:g}, {outside[0].y:g}) is not on the image; click inside of it")
    if prompt.part is not None:
        x, y, width, height = prompt.part
        if width < 1 or height < 1 or x + width > facts.width or y + height > facts.height:
            raise DataError("the part is not within the image; leave it out")
    before = None if prompt.before is None else _mask(prompt.before, facts)
    found = place.engine.outline(
        place.sets.path(of, name), facts.sha256, Prompts(clicks, prompt.box), before, prompt.part, prompt.sharpen
    )  # fmt: skip
    return {
        "rle": found.rle,
        "rings": rings_of(found.rle, found.mask),
        "area": int(areas([found.rle])[0]),
        "iou": round(found.iou, 3),
        "names": _names(found.names),
        "part": found.part,
        "ms": round(1000 * (time.perf_counter() - started), 1),
    }


@routes.post(f"{_SET}/stroke", "labeller")
def stroke(place: At, of: Of, name: ImageName, drawn: Annotated[StrokeIn, Body()]) -> dict[str, Any]:
    """A mask with an area added or taken, with its names: parts and holes by hand."""
    facts = place.sets.facts(of, name)
    if len(drawn.polygon) % 2:
        raise DataError("the polygon has an odd number of coordinates; give x and y of every point")
    try:
        area = decode_whole(read_mask([drawn.polygon], facts.width, facts.height).rle)
    except BadSegmentation as error:
        raise DataError(f"the area {error.what}; draw a larger one within the image") from None
    mask = decode_whole(_mask(drawn.before, facts)) if drawn.before else np.zeros_like(area)
    mask = mask | area if drawn.add else mask & ~area
    rle = encode_whole(mask)
    names = place.engine.names(place.sets.path(of, name), facts.sha256, rle)
    return {"rle": rle, "rings": rings_of(rle, mask), "area": int(areas([rle])[0]), "names": _names(names)}


@routes.post(f"{_SET}/drafts", "labeller")
def drafts(place: At, of: Of, name: ImageName) -> list[dict[str, Any]]:
    """Everything that is found in an image, with names where they are probable: a draft to correct."""
    facts = place.sets.facts(of, name)
    found = place.engine.drafts(place.sets.path(of, name), facts.sha256)
    return [
        {"name": draft.name, "rle": draft.rle, "rings": rings_of(draft.rle), "score": round(draft.score, 3)}
        for draft in found
    ]


@routes.post(f"{_SET}/never", "labeller")
def never(place: At, of: Of, account: Person, name: ImageName, found: Annotated[NeverIn, Body()]) -> dict[str, Any]:
    """Make a mask a background sample: a copy of the image with this mask goes to the set `never-name`."""
    facts = place.sets.facts(of, name)
    rle = _mask(found.rle, facts)
    place.drafts.add("background", place.sets.path(of, name), [LabelledObject(found.name, rle)], account.name)
    place.actions.add(account, "never name", set=of.id, image=name)
    return {"objects": 1}


def _shown(facts: ImageFacts, saved: SavedImage) -> dict[str, Any]:
    return {
        "name": facts.name,
        "width": facts.width,
        "height": facts.height,
        "revision": saved.revision,
        "by": saved.by,
        "at": saved.at,
        "objects": [{"id": o.id, "name": o.name, "rle": o.rle, "rings": rings_of(o.rle)} for o in saved.objects],
    }


def _rle(code: Code) -> Rle:
    return {"size": list(code.size), "counts": code.counts}


def _mask(code: Code, facts: ImageFacts) -> Rle:
    try:
        return read_mask(_rle(code), facts.width, facts.height).rle
    except BadSegmentation as error:
        raise DataError(f"the mask so far {error.what}; {error.remedy}") from None


def _names(names: tuple[Named, ...]) -> list[dict[str, Any]]:
    return [{"name": n.name, "probability": round(n.probability, 4)} for n in names]

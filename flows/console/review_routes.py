"""The review: what to look at, what was decided, and the sessions that learn from it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Body, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from flows.console.access import Person, Routes
from flows.console.accounts import Account
from flows.console.decisions import Decision
from flows.console.label_file import LabelledObject
from flows.console.outlines import rings_of
from flows.console.review import Item, crop
from flows.console.set_routes import classes_of
from flows.console.state import At, Place
from flows.console.texts import ClassName, Line
from flows.error_analysis.accept import Use
from flows.http.errors import HttpError
from samif.config.learning import Name
from samif.errors import DataError
from samif.inference.segment import UNKNOWN

routes = Routes()
_ITEM = "/workspaces/{workspace}/review/{item_id}"
_USES: tuple[Use, ...] = ("shots", "background")


class NewSession(BaseModel):
    """A session that learns from what was decided; `run` starts it at once."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    use: Literal["background", "shots"]
    classes: list[ClassName] = Field(default=[], max_length=500)
    shots: Annotated[int, Field(ge=1, le=10_000)] | None = None
    run: bool = False
    why: Line = ""


@routes.get("/workspaces/{workspace}/review", "viewer")
def queue(
    place: At, session: Annotated[Name | None, Query()] = None, decided: Annotated[bool, Query()] = False
) -> dict[str, Any]:
    """What waits for a decision, or with `decided` what has one; and what the next sessions would learn."""
    items, problems = place.review.items(session)
    known = place.decisions.all()
    listed = [(item, known.get(item.id)) for item in items if (item.id in known) == decided]
    return {
        "items": [_shown(item) | ({"decided": done.model_dump()} if done else {}) for item, done in listed],
        "waiting": sum(item.id not in known for item in items),
        "problems": problems,
        "drafts": {use: _draft(place, use) for use in _USES},
    }


@routes.get(f"{_ITEM}/crop", "viewer", response_class=Response)
def show(place: At, item_id: str) -> Response:
    """An item's object in its surroundings, as a JPEG."""
    content = crop(place.review.item(item_id))
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


@routes.get(f"{_ITEM}/draft", "viewer")
def draft(place: At, item_id: str) -> dict[str, Any] | None:
    """The mask of an item, to be corrected; none where it has none."""
    item = place.review.item(item_id)
    if item.rle is None:
        return None
    name = item.accepted or item.label or item.name or ""
    name = "" if name == UNKNOWN else name
    return {"name": name, "rle": item.rle, "rings": rings_of(item.rle), "score": item.score or 1.0}


@routes.post(f"{_ITEM}/decision", "labeller")
def decide(place: At, account: Person, item_id: str, decision: Annotated[Decision, Body(embed=True)]) -> dict[str, Any]:
    """Accept an item (its object is learnt as it is; an alarm was seen), have its image fixed in the editor, or never
    name it (its object becomes a background sample; of an alarm everything that is named in its image)."""
    item = place.review.item(item_id)
    if decision not in item.decisions:
        raise DataError(f"this cannot be decided as '{decision}'; choose from {', '.join(item.decisions)}")
    place.decisions.add(item.id, decision, account.name)
    try:
        done = _carried_out(place, account, item, decision)
    except BaseException:
        place.decisions.remove(item.id)
        raise
    place.actions.add(account, "review", item=item.id, decision=decision, image=item.shown)
    return done


@routes.delete(f"{_ITEM}/decision", "labeller")
def put_back(place: At, account: Person, item_id: str) -> dict[str, Any]:
    """Put an item back into the queue; objects that it brought stay in the label set."""
    item = place.review.item(item_id)
    place.decisions.remove(item.id)
    place.actions.add(account, "review again", item=item.id)
    return _shown(item)


@routes.post("/workspaces/{workspace}/review/session", "operator")
def teach(place: At, account: Person, wanted: Annotated[NewSession, Body()]) -> dict[str, Any]:
    """Add a session that learns from what was decided, and start the run if that is asked for."""
    done = place.drafts.teach(wanted.use, wanted.name, wanted.classes, wanted.shots)
    place.actions.add(account, "add session", session=wanted.name, use=wanted.use, objects=done.objects)
    if wanted.run:
        place.actions.add(account, "run", why=wanted.why)
        place.runs.start(account.name, wanted.why)
    return asdict(done) | {"session": wanted.name, "run": wanted.run}


def _carried_out(place: Place, account: Account, item: Item, decision: Decision) -> dict[str, Any]:
    if item.image is None or (decision == "accept" and item.kind == "alarm"):
        return {}
    if decision == "fix":
        return {"set": place.drafts.of("shots").id, "image": place.drafts.take_image("shots", item.image)}
    if decision == "accept":
        assert item.rle is not None and item.accepted is not None  # of a decision that the item allows
        place.drafts.add("shots", item.image, [LabelledObject(item.accepted, item.rle)], account.name)
        return {"objects": 1}
    name = next((n for n in (item.name, item.label) if n and n != UNKNOWN), "object")
    objects = [LabelledObject(name, item.rle)] if item.rle else _named(place, item)
    if not objects:
        raise HttpError(409, "nothing", "nothing is named in this image, so there is nothing to learn from; accept it")
    place.drafts.add("background", item.image, objects, account.name)
    return {"objects": len(objects)}


def _named(place: Place, item: Item) -> list[LabelledObject]:
    """Everything that the workspace's classifier names in the image of an item."""
    assert item.image is not None
    target = place.drafts.of("background")
    name = place.drafts.take_image("background", item.image)
    facts = place.sets.facts(target, name)
    drafts = place.engine.drafts(place.sets.path(target, name), facts.sha256)
    return [LabelledObject(draft.name, draft.rle) for draft in drafts if draft.name]


def _draft(place: Place, use: Use) -> dict[str, Any]:
    """The set of a use: its images, and the classes of its objects."""
    found = place.drafts.of(use)
    counts = found.labels.counts()
    classes = [c for c in classes_of(place, found) if c["objects"]]
    return {
        "set": found.id, "images": len(place.drafts.images(use)), "labelled": len(counts),
        "objects": sum(n for _, n in counts.values()), "classes": classes,
    }  # fmt: skip


def _shown(item: Item) -> dict[str, Any]:
    return {
        "id": item.id, "kind": item.kind, "cause": item.cause, "image": item.shown, "name": item.name,
        "label": item.label, "score": item.score, "sentence": item.sentence, "at": item.at, "over": item.over,
        "side": item.side, "level": item.level, "limit": item.limit,
        "accepted": item.accepted, "decisions": item.decisions, "crop": item.image is not None,
    }  # fmt: skip

"""Answers to clients as models, from which the OpenAPI document is made."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from flows.artifacts.kept_answers import Instance
from flows.serve.model_slot import ModelSlot
from flows.serve.versions import Version
from samif.inference.segment import UNKNOWN, Instances

CanaryState = Literal["running", "rolled back", "off"]


class Model(BaseModel):
    """The version that made an answer; `digests` are SHA-256 of card, classifier, decoder and encoder."""

    name: str
    version: int | None
    digests: dict[str, str]


class Timings(BaseModel):
    """Seconds per part."""

    receive: float
    decode: float
    wait: float
    encode: float
    segment: float


class Answer(BaseModel):
    """The instances of an image and what found them."""

    model: Model
    width: int
    height: int
    instances: list[Instance]
    timings: Timings


class Problem(BaseModel):
    """Why there is no answer."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """An error, whatever its status."""

    error: Problem


class FailureSeen(BaseModel):
    """A version that could not be put into service."""

    version: str
    why: str
    at: datetime


class SlotView(BaseModel):
    """What a replica serves under a reference; `behind` where the alias names something else, `note` where it was
    moved past the journal, `unconfirmed` where the registry has not answered yet and the version is the one that was
    served here last (then `since` is null)."""

    ref: str
    live: Model | None
    previous: Model | None
    since: datetime | None
    swaps: int
    behind: bool
    failure: FailureSeen | None
    registry: str | None
    note: str | None = None
    unconfirmed: str | None = None


class CheckView(BaseModel):
    """The mean of a check's observations (0..1), and the bound that it must not exceed."""

    mean: float
    bound: float
    observations: int


class CanaryView(BaseModel):
    """The canary of a replica: whether it is `running`, `rolled back` or `off`, and why; requests and checks are those
    of all replicas, as far as this one knows."""

    slot: SlotView
    percent: float
    state: CanaryState
    model: Model | None
    why: str | None
    requests: int
    checks: dict[str, CheckView]


class ReplicaView(BaseModel):
    """A replica: what it serves, its shadow deployment, how often each part was read from a file, how many answers were
    kept, and why they are not at the moment. `id` is unique; `started` is in Unix seconds."""

    id: str
    pid: int
    started: float
    replica: str
    champion: SlotView
    challenger: SlotView | None
    canary: CanaryView | None
    loads: dict[str, int]
    shadow: dict[str, int]
    kept: dict[str, int]
    keep_problem: str | None


class Replicas(BaseModel):
    """All replicas of this machine."""

    replicas: list[ReplicaView]


class ShadowView(BaseModel):
    """The shadow's counts over all replicas; `folder` holds images of disagreement."""

    ref: str | None
    folder: str | None
    counts: dict[str, int]
    replicas: list[SlotView]


class CanaryStatus(BaseModel):
    """The canary as each replica sees it."""

    replicas: list[CanaryView]


class Status(BaseModel):
    """State of the service in one word."""

    status: str


def model_of(version: Version) -> dict[str, Any]:
    """A version as in `Model`."""
    digests = {part: value for part, value in version.digests.items() if part not in ("precision", "tiles")}
    return {"name": version.name, "version": version.number, "digests": digests}


def slot_view(slot: ModelSlot) -> SlotView:
    """What a slot shows of itself."""
    state, failure = slot.state, slot.failure
    return SlotView(
        ref=slot.ref,
        live=Model(**model_of(state.live)) if state.live else None,
        previous=Model(**model_of(state.previous)) if state.previous else None,
        since=state.since,
        swaps=state.swaps,
        behind=slot.behind,
        failure=FailureSeen(version=failure.version, why=failure.why, at=failure.at) if failure else None,
        registry=slot.registry_error,
        note=slot.note,
        unconfirmed=slot.unconfirmed,
    )


def instances_of(instances: Instances) -> list[dict[str, Any]]:
    """Instances as in `Instance`: the numbers that `samif predict` writes."""
    return [
        {
            "segmentation": instances.masks[row],
            "bbox": [float(v) for v in instances.boxes[row]],
            "label": instances.labels[row],
            "score": round(float(instances.scores[row]), 6),
            "unknown": instances.labels[row] == UNKNOWN,
        }
        for row in range(len(instances))
    ]

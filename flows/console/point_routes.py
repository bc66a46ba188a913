"""The operating point: names against false names as a curve, and its limit in params.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body
from pydantic import Field

from flows.console.access import Person, Routes
from flows.console.state import At
from flows.workspace.edit import set_value
from samif.config import BASE
from samif.errors import ObjectMissing
from samif.evaluate.model import Evaluation

routes = Routes()


@routes.get("/workspaces/{workspace}/point", "viewer")
def point(place: At) -> dict[str, Any]:
    """The curve of the newest classifier on the validation images, and the limit that params.yaml sets."""
    params = place.params
    name = next(reversed(params.sessions), BASE)
    content = {"session": name, "limit": params.train_base.false_names, "naming": None}
    try:
        evaluation = Evaluation.load(place.layout.evaluation(name) / "evaluation.json")
    except ObjectMissing:
        return content
    return content | {"naming": None if evaluation.naming is None else evaluation.naming.model_dump(mode="json")}


@routes.put("/workspaces/{workspace}/point", "operator")
def move(
    place: At,
    account: Person,
    limit: Annotated[float, Body(embed=True), Field(gt=0.0, le=1e6, allow_inf_nan=False)],
) -> dict[str, Any]:
    """Set the most false names per 1,000 images; the next run chooses the scores by it."""
    before = place.params.train_base.false_names
    set_value(place.layout.root, "train_base", "false_names", float(limit))
    place.actions.add(account, "move operating point", before=before, limit=limit)
    return point(place)

"""Ownership of lines: a line's name in a registry belongs to one workspace and its clones (docs/adr/0022).

The owner is written as tags of the registered model `<line>-decoder` when that model is created. A name can be created
once only, so of two workspaces that claim a line at the same moment one owns it and the other is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from flows.registry.absent import check_line
from flows.registry.mlflow_store import MlflowStore, make_once
from samif.config import Params, digest
from samif.errors import ConfigError

WORKSPACE, BASE_CLASSES, FOUNDED = "workspace", "base_classes", "founded"


class ForeignLineError(ConfigError):
    """The line belongs to another workspace."""


def claim(store: MlflowStore, params: Params, who: str) -> None:
    """Claim the line for this workspace where it has no owner yet, before anything is registered in it.

    Raises:
        ForeignLineError: it is another workspace's.
        IntegrityError: a registered model of the line was renamed or deleted.
        ServiceUnavailable: the registry does not answer.
    """
    model = _model(params)
    # the base classes last: where claiming is interrupted before them, the line has no owner yet
    mine = {FOUNDED: f"by {who} on {datetime.now(UTC):%Y-%m-%d}"} | _mark(params)

    def mark() -> None:
        check_line(store, params.line)
        if store.find_model(model) is None:
            make_once(store.client.create_registered_model, model, mine)
        found = store.model(model).tags
        if BASE_CLASSES not in found:  # the model was created by hand
            for key, value in mine.items():
                store.client.set_registered_model_tag(model, key, value)
            found = store.model(model).tags  # of two that claim it at once, the overwritten one is refused
        _compare(store, params, found)

    store.written(mark)


def check(store: MlflowStore, params: Params) -> None:
    """Refuse a line that another workspace owns. Changes nothing; a line without an owner passes.

    Raises:
        ForeignLineError: it is another workspace's.
        IntegrityError: a registered model of the line was renamed or deleted.
        ServiceUnavailable: the registry does not answer.
    """
    with store.reading():
        check_line(store, params.line)
        model = store.find_model(_model(params))
        if model is not None and BASE_CLASSES in model.tags:
            _compare(store, params, model.tags)


def check_promotion(store: MlflowStore, params: Params, classifier: str) -> None:
    """Refuse to promote a version of another line, or of a line that belongs to another workspace.

    Args:
        params: of the workspace whose gates and images decide.
        classifier: name of the registered model whose version is to go live.

    Raises:
        ForeignLineError: the classifier is not of the line in params.yaml, or that line is another workspace's.
        ServiceUnavailable: the registry does not answer.
    """
    if classifier != f"{params.line}-classifier":
        raise ForeignLineError(
            f"{classifier} is not of line '{params.line}' of this workspace, whose gates and images would decide; "
            "promote it from a workspace of its own line"
        )
    check(store, params)


def _model(params: Params) -> str:
    return f"{params.line}-decoder"


def _mark(params: Params) -> dict[str, str]:
    return {WORKSPACE: params.workspace or "-", BASE_CLASSES: digest({"names": sorted(params.dataset.base_classes)})}


def _compare(store: MlflowStore, params: Params, found: Mapping[str, str]) -> None:
    mine = _mark(params)
    named = f"line '{params.line}' in the registry at {store.shown}"
    if found.get(WORKSPACE) != mine[WORKSPACE]:
        theirs = found.get(WORKSPACE, "-")
        same = f"'workspace: {theirs}'" if theirs != "-" else "no 'workspace'"
        raise ForeignLineError(
            f"{named} belongs to another workspace (founded {found.get(FOUNDED, 'long ago')}); give 'line' in "
            f"params.yaml another name, or, to go on with that very line, have {same} there"
        )
    if found[BASE_CLASSES] != mine[BASE_CLASSES]:
        raise ForeignLineError(
            f"{named} was founded {found.get(FOUNDED, 'long ago')} with other base classes; restore "
            "'dataset.base_classes' in params.yaml, or give 'line' another name"
        )

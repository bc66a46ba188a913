"""What was deleted or renamed on MLflow's pages: how it is found, and the sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from samif.errors import IntegrityError, ObjectMissing, SamifError

if TYPE_CHECKING:
    from flows.registry.mlflow_store import MlflowStore

T = TypeVar("T")

PARTS = ("decoder", "classifier", "journal")
"""Registered models of a line."""
_RESTORE = "rename it back there, or restore the registry from a backup"


def found(get: Callable[[str], T], name: str) -> T | None:
    """What MLflow has, or none where it was deleted. Call inside `reading` or `writing`."""
    from mlflow.exceptions import MlflowException

    try:
        return get(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def no_model(store: MlflowStore, name: str) -> SamifError:
    """The error where there is no registered model `name`. Call inside `reading` or `writing`."""
    there = sorted(item.name for item in store.client.search_registered_models())
    line, _, part = name.rpartition("-")
    others = [f"{line}-{other}" for other in PARTS if f"{line}-{other}" in there]
    listed = ", ".join(there) or "nothing"
    if others and part in PARTS:
        return ObjectMissing(
            f"the registry at {store.shown} has {' and '.join(others)} and no '{name}' (it has: {listed}): it was "
            f"renamed or deleted in MLflow; {_RESTORE}"
        )
    return ObjectMissing(f"the registry at {store.shown} has no '{name}' (it has: {listed}); check the name")


def check_line(store: MlflowStore, line: str) -> None:
    """Refuse to register in a line of which a registered model was renamed or deleted: another one would be made in its
    place, with numbers that the journal and older versions mean otherwise. Call inside `reading` or `writing`.

    Raises:
        IntegrityError: one is missing.
    """
    classifiers = store.find_versions(f"{line}-classifier")
    # versions that were made by hand need no decoder
    needs_decoder = any("decoder_version" in version.tags for version in classifiers.values())
    for part, user, needed in (("classifier", "journal", True), ("decoder", "classifier", needs_decoder)):
        if not needed or store.find_model(f"{line}-{part}") is not None:
            continue
        if store.find_model(f"{line}-{user}") is not None:
            raise IntegrityError(
                f"the registry at {store.shown} has {line}-{user} and no '{line}-{part}': it was renamed or deleted in "
                f"MLflow; {_RESTORE}"
            )


def gone(version: Any, what: str) -> ObjectMissing:
    """The error where the run or the model of a version was removed for good."""
    name = f"{version.name}/{version.version}"
    return ObjectMissing(
        f"the {what} of {name} was deleted in MLflow, and its files with it; use another version, or delete {name} "
        "there and run 'samif run' again to register it anew"
    )

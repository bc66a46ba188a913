"""Aliases that somebody moved on MLflow's pages, past the journal."""

from __future__ import annotations

from flows.registry.journal import Journal
from flows.registry.live_state import Live, fold
from flows.registry.mlflow_store import MlflowStore
from flows.registry.promotion import CHAMPION


def hand_move(store: MlflowStore, line: str) -> str | None:
    """One sentence where the alias does not stand where the journal says, else None. Changes nothing.

    Raises:
        IntegrityError: the journal was tampered with.
        ServiceUnavailable: the registry does not answer.
    """
    with store.reading():
        live = fold(Journal(store, line).read().entries)
        model = store.find_model(f"{line}-classifier")
        deleted = live.version is not None and live.version not in store.find_versions(f"{line}-classifier")
    at = None if model is None else model.aliases.get(CHAMPION)
    return describe_hand_move(line, live, None if at is None else int(at), deleted)


def describe_hand_move(line: str, live: Live, at: int | None, deleted: bool = False) -> str | None:
    """The same of a state that was read already; `at` is the version that the alias names, `deleted` says that the live
    version is no longer in the registry.

    An unfinished decision is no move by hand: the next command carries it out.
    """
    if live.unfinished is not None or (at == live.version and not deleted):
        return None
    if deleted:
        back = "" if live.previous is None else f"'samif registry rollback {line}' restores {live.previous}, or "
        return (
            f"{line}-classifier/{live.version}, live by the journal, was deleted in MLflow: {back}promote another "
            "version with 'samif registry promote'"
        )
    stands = "was removed" if at is None else f"stands at {at}"
    says = "that nothing is live" if live.version is None else f"{live.version}"
    keep = "" if at is None else f"'samif registry adopt {line}' keeps it, "
    return (
        f"alias '{CHAMPION}' of {line}-classifier {stands}, not by the journal, which says {says}: {keep}"
        f"'samif registry repair {line}' puts it back"
    )

"""What an operator asks for, the evidence on which it is decided, and the entry of the journal that says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from flows.registry.journal import Chain, Journal, JournalEntry, Kind
from flows.runtime.process import this_process
from samif.errors import ConfigError
from samif.versions.verdict import Verdict


@dataclass(frozen=True)
class Evidence:
    """A verdict on a candidate against the version that is live, and the MLflow run that holds it."""

    verdict: Verdict
    run: str | None = None


@dataclass(frozen=True)
class Request:
    """A request of an operator.

    Attributes:
        approve: person who approves the verdict, if any.
        verdict: first digits of the verdict that was reviewed; any other is refused. Empty accepts any.
        always_ask: an approval is needed even where every check has passed.
        force: override failed checks and missing approval; never a version that is not what its card says.
        adopt: the alias was moved to the version by hand; it stays there meanwhile.
    """

    who: str
    why: str = ""
    approve: str | None = None
    verdict: str = ""
    always_ask: bool = False
    force: bool = False
    adopt: bool = False


def write_entry(journal: Journal, chain: Chain, kind: Kind, request: Request, **facts: Any) -> Chain:
    """Append an entry upon the head of `chain`; the chain afterwards. Call inside the store's `writing`.

    Args:
        facts: the other fields of the entry.

    Raises:
        ConfigError: who or why are too long.
        LostRaceError: another process appended first.
    """
    try:
        entry = JournalEntry(
            number=len(chain.entries) + 1,
            after=chain.head,
            id=uuid4().hex,
            kind=kind,
            time=datetime.now(UTC),
            who=request.who,
            why=request.why,
            process=this_process(),
            **facts,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"the journal cannot take '{first['loc'][0]}': {first['msg'].lower()}") from None
    return journal.append(entry)

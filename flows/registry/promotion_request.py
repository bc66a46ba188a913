"""What an operator asks for, the evidence on which it is decided, and the entry of the journal that says so."""

from __future__ import annotations

from dataclasses import dataclass

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
        canary: what was measured of the version as a canary, for the journal.
    """

    who: str
    why: str = ""
    approve: str | None = None
    verdict: str = ""
    always_ask: bool = False
    force: bool = False
    adopt: bool = False
    canary: dict[str, float] | None = None

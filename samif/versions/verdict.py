"""The answer of the gates: one check per question, and the outcome of all of them."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from samif.config import Strict, digest

Outcome = Literal["passed", "unclear", "failed"]


class Check(Strict):
    """One question of the policy; `subject` is a group, a class or a part of the version."""

    name: Literal[
        "verified", "lock", "images", "decoder", "rows", "classes", "floor", "drop", "false positives", "names"
    ]
    subject: str
    outcome: Literal["passed", "unclear", "failed", "skipped"]
    reason: str


class Verdict(Strict):
    """The answer for one candidate against one live version (none before the first promotion)."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    candidate: str
    candidate_card: str
    champion: str | None
    champion_card: str | None
    policy: str
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        found = {check.outcome for check in self.checks}
        return "failed" if "failed" in found else "unclear" if "unclear" in found else "passed"

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical content: what an approval is bound to."""
        return digest(self)

    def reasons(self, *outcomes: str) -> list[str]:
        """The reasons of the checks with one of these outcomes."""
        return [check.reason for check in self.checks if check.outcome in outcomes]

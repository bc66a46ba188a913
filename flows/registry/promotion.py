"""Promotion and rollback: decided in the journal, then carried out on the alias, then read back.

The journal decides, and the alias is set to what it says. A decision is appended after the very entry that it was based
on, so of two operators at once one decides and the other has to decide again. The next command completes what a crash
left undone: carrying out is idempotent (docs/adr/0007).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flows.registry.journal import Chain, Journal, JournalEntry, Kind, LostRaceError
from flows.registry.live_state import Live, fold
from flows.registry.mlflow_store import MlflowStore
from flows.registry.ownership import check_promotion
from flows.registry.promotion_request import Evidence, Request
from flows.registry.roles import check_approver, check_promoter, may_approve
from flows.runtime.process import this_process
from samif.config import Params
from samif.errors import ConfigError, GateFailed, IntegrityError, ObjectMissing, ServiceUnavailable
from samif.versions.verdict import Verdict

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
LEASE_SECONDS = 15.0
"""How long a process on another machine may take to carry out its decision before others do it."""
POLL_SECONDS = 0.25
ATTEMPTS = 10


_SAMIF = Request("samif")


class Promotions:
    """Promotion and rollback of one line.

    Args:
        params: of the requesting workspace; only a workspace of the line may promote.
        say: called with one sentence for whatever was found unfinished or inconsistent, and repaired.
        lease: see LEASE_SECONDS.
    """

    def __init__(
        self,
        store: MlflowStore,
        line: str,
        params: Params,
        say: Callable[[str], None] = lambda _: None,
        lease: float = LEASE_SECONDS,
    ) -> None:
        self._store, self._params, self._say, self._lease = store, params, say, lease
        self._journal = Journal(store, line)
        self.model = f"{line}-classifier"

    def state(self) -> tuple[Chain, Live, int | None]:
        """Journal, what it says, and where the alias stands; changes nothing.

        Raises:
            IntegrityError: the journal was tampered with.
            ServiceUnavailable: the registry does not answer.
        """
        with self._store.reading():
            chain = self._journal.read()
            return chain, fold(chain.entries), self._aliases().get(CHAMPION)

    def promote(self, version: int, request: Request, evidence_on: Callable[[int | None], Evidence]) -> Live:
        """Put `version` live.

        Args:
            evidence_on: gives the verdict against the live version (its number, or none); called again when another
                version went live meanwhile.

        Returns:
            The state afterwards.

        Raises:
            ForeignLineError: the line is not that of the workspace, or belongs to another workspace.
            GateFailed: refused by verification or gates, an approval is missing, who asks or approves may not, or the
                version was rolled back as a canary.
            ConfigError: the version is live already, or who or why are too long.
            IntegrityError: the journal was tampered with.
            ServiceUnavailable: other promotions were faster, several times.
        """
        check_promoter(self._params.gates, request.who, request.force)
        check_promotion(self._store, self._params, self.model)
        approved = ""
        for _ in range(ATTEMPTS):
            with self._store.writing():
                self._store.version(self.model, version)
                chain, live = self._settle(None if request.adopt else _SAMIF)
            if live.version == version:
                raise ConfigError(f"{self.model}/{version} is live already; see 'samif registry history'")
            if version in live.pruned:
                raise ObjectMissing(
                    f"{self.model}/{version} is being removed by 'samif registry prune'; promote another version"
                )
            evidence = evidence_on(live.version)
            if request.approve and approved not in ("", evidence.verdict.digest):
                raise GateFailed(
                    f"{self.model}/{live.version} went live meanwhile, so the approval by {request.approve} is void; "
                    "look at 'samif registry compare' again"
                )
            approved = evidence.verdict.digest
            approver, overrode = self._allow(version, evidence.verdict, live, request)
            facts = {
                "was": live.version,
                "version": version,
                "card": evidence.verdict.candidate_card,
                "verdict": evidence.verdict.digest,
                "outcome": evidence.verdict.outcome,
                "evidence": evidence.run,
                "approved_by": approver,
                "canary": request.canary,
            }
            try:
                with self._store.writing():
                    chain = self._unmoved(chain)
                    if request.approve and not _approval(live, evidence.verdict):
                        chain = self._write(chain, "approve", request, **facts)
                    chain = self._write(chain, "promote", request, forced=bool(overrode), overrode=overrode, **facts)
                    return self._carried_out(chain.entries[-1])
            except LostRaceError:
                continue
        raise ServiceUnavailable(f"the live version of {self.model} kept changing; look at its history and try again")

    def repair(self, request: Request) -> tuple[int | None, Live]:
        """Put the alias back to what the journal says; where it stood, and the state.

        Raises:
            ForeignLineError: the line is not that of the workspace, or belongs to another workspace.
            IntegrityError: the journal was tampered with.
        """
        check_promotion(self._store, self._params, self.model)
        with self._store.writing():
            at = self._aliases().get(CHAMPION)
            return at, self._settle(request)[1]

    def rollback(self, request: Request, check: Callable[[int], str | None]) -> Live:
        """Put live again what was live before; no gates, but the version must be what its card says.

        Args:
            check: gives the digest of a version's card; raises IntegrityError where the version is not what it says.

        Raises:
            ObjectMissing: nothing was live before.
            IntegrityError: the journal was tampered with.
        """
        for _ in range(ATTEMPTS):
            with self._store.writing():
                chain, live = self._settle()
            if live.previous is None:
                raise ObjectMissing(
                    f"nothing was live before {self.model}/{live.version}; promote another version instead"
                    if live.version is not None
                    else f"no version of {self.model} is live; promote one first"
                )
            card = check(live.previous)
            try:
                with self._store.writing():
                    chain = self._unmoved(chain)
                    facts = {"was": live.version, "version": live.previous, "card": card}
                    chain = self._write(chain, "rollback", request, **facts)
                    return self._carried_out(chain.entries[-1])
            except LostRaceError:
                continue
        raise ServiceUnavailable(f"the live version of {self.model} kept changing; look at its history and try again")

    def _allow(
        self, version: int, verdict: Verdict, live: Live, request: Request
    ) -> tuple[str | None, tuple[str, ...]]:
        """Who approved, and what force had to override; GateFailed where the promotion is refused."""
        name = f"{self.model}/{version}"
        if not verdict.digest.startswith(request.verdict):
            raise GateFailed(
                f"the verdict on {name} is now {verdict.digest[:12]}, not {request.verdict[:12]}: the live version, "
                "the policy or the evidence has changed since; look at 'samif registry compare' again"
            )
        unverified = [c.reason for c in verdict.checks if c.name == "verified" and c.outcome == "failed"]
        if unverified:
            raise IntegrityError(
                f"{name} is not what its card says ({unverified[0]}); register it again, force is no help"
            )
        failed = verdict.reasons("failed")
        if (refusal := live.refusal(version)) is not None:
            failed.append(f"it was rolled back as a canary on {refusal.time:%Y-%m-%d} ({refusal.why})")
        if failed and not request.force:
            raise GateFailed(f"{name} is refused: {_few(failed)}; see 'samif registry compare'")
        gates = self._params.gates
        if request.approve:
            check_approver(gates, request.approve, request.who, name)
        approver = request.approve or _approval(live, verdict, lambda by: may_approve(gates, by, request.who))
        if approver is None and (verdict.outcome == "unclear" or request.always_ask) and not request.force:
            unclear = verdict.reasons("unclear")
            about = f" about this: {_few(unclear)}" if unclear else ""
            void = next((entry for entry in reversed(live.approvals) if entry.version == version), None)
            stale = f" (the approval by {void.approved_by} is void: the evidence has changed since)" if void else ""
            raise GateFailed(
                f"{name} needs a person's approval{about}{stale}; look at 'samif registry compare', then give "
                f"--approve PERSON --verdict {verdict.digest[:12]}"
            )
        if not request.force:
            return approver, ()
        unapproved = [] if approver else [*verdict.reasons("unclear"), *(["no approval"] if request.always_ask else [])]
        return approver, tuple(reason[:300] for reason in (*failed, *unapproved)[:20])

    def _unmoved(self, chain: Chain) -> Chain:
        found = self._journal.read()
        if found.head != chain.head:
            raise LostRaceError
        return found

    def _write(self, chain: Chain, kind: Kind, request: Request, **facts: Any) -> Chain:
        return self._journal.write(chain, kind, request.who, request.why, this_process(), **facts)

    def _carried_out(self, decision: JournalEntry) -> Live:
        chain, live = self._settle()
        if any(entry.kind == "void" and entry.closes == decision.id for entry in chain.entries):
            raise ObjectMissing(f"{self.model}/{decision.version} was deleted meanwhile; {live.version} stays live")
        return live

    def _settle(self, repair: Request | None = _SAMIF) -> tuple[Chain, Live]:
        """Carry out what is undone and put the alias where the journal says, which is journalled as asked for by
        `repair`; none leaves an alias that was moved by hand. Call inside `writing`."""
        waited = False
        for _ in range(ATTEMPTS):
            chain = self._journal.read()
            live = fold(chain.entries)
            try:
                if live.unfinished is None:
                    if repair is None or self._repaired(chain, live, repair):
                        return chain, live
                elif not waited and self._may_be_at_work(live.unfinished):
                    self._wait(chain)
                    waited = True
                else:
                    self._carry_out(chain, live, live.unfinished)
            except LostRaceError:
                continue
        raise ServiceUnavailable(f"the journal of {self.model} kept moving; look at its history and try again")

    def _repaired(self, chain: Chain, live: Live, request: Request) -> bool:
        """True if the alias is what the journal says; else repair it, journal that, and report it."""
        aliases = self._aliases()
        at = aliases.get(CHAMPION)
        if at == live.version or (at is None and live.version not in self._store.find_versions(self.model)):
            self._point(live, aliases)
            return True
        if not live.terms and at is not None:
            self._write(chain, "adopt", Request("samif", "it was live before the journal began"), version=at)
            return False
        self._point(live, aliases)
        stood = "was removed" if at is None else f"stood at {at}"
        self._say(f"alias '{CHAMPION}' of {self.model} {stood}, not by the journal; put back to {live.version}")
        self._write(chain, "repair", request, was=at, version=live.version)
        return False

    def _carry_out(self, chain: Chain, live: Live, decision: JournalEntry) -> None:
        mine = decision.process == this_process()
        operator = Request(decision.who) if mine else Request("samif", f"carried out for {decision.who}")
        if decision.version not in self._store.find_versions(self.model):
            self._point(live, self._aliases())
            gone = Request("samif", f"{self.model}/{decision.version} is no longer there")
            self._write(chain, "void", gone, was=live.version, version=live.version, closes=decision.id)
            self._say(f"the {decision.kind} of version {decision.version} by {decision.who} is void: it is gone")
            return
        wanted = live.decided
        self._point(wanted, self._aliases())
        found = self._aliases()
        if found.get(CHAMPION) != wanted.version:
            raise ServiceUnavailable(
                f"alias '{CHAMPION}' of {self.model} reads {found.get(CHAMPION)} after it was set to {wanted.version}; "
                "somebody else is moving it: run the same command again"
            )
        self._write(chain, "done", operator, was=live.version, version=wanted.version, closes=decision.id)
        if not mine:
            self._say(
                f"the {decision.kind} of {self.model}/{decision.version} by {decision.who} had broken off and was "
                "carried out"
            )

    def _point(self, live: Live, aliases: dict[str, int]) -> None:
        """Aliases as the state says. `previous` first: while `champion` still stands, nothing is lost."""
        client = self._store.client
        for alias, version in ((PREVIOUS, live.previous), (CHAMPION, live.version)):
            if aliases.get(alias) == version:
                continue
            if version is not None and version in self._store.find_versions(self.model):
                client.set_registered_model_alias(self.model, alias, str(version))
            elif alias in aliases:
                client.delete_registered_model_alias(self.model, alias)
        if live.version is not None and aliases.get(CHALLENGER) == live.version:
            client.delete_registered_model_alias(self.model, CHALLENGER)

    def _aliases(self) -> dict[str, int]:
        return {alias: int(number) for alias, number in self._store.model(self.model).aliases.items()}

    def _may_be_at_work(self, decision: JournalEntry) -> bool:
        """Whether another running process may be carrying it out; two at once would move the alias back and forth."""
        return decision.process != this_process() and not decision.process.is_gone

    def _wait(self, chain: Chain) -> None:
        deadline = time.monotonic() + self._lease
        while time.monotonic() < deadline and self._journal.read().head == chain.head:
            time.sleep(POLL_SECONDS)


def _approval(live: Live, verdict: Verdict, counts: Callable[[str], bool] = lambda _: True) -> str | None:
    """Who approved exactly this verdict on exactly this card since the last change, among those that count."""
    given = (e for e in live.approvals if (e.card, e.verdict) == (verdict.candidate_card, verdict.digest))
    return next((e.approved_by for e in given if e.approved_by is not None and counts(e.approved_by)), None)


def _few(reasons: list[str]) -> str:
    return "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")

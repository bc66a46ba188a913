"""What the registry keeps of a canary, promotion from one, and who may promote and approve: in each of three ways."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.registry.canary import CanaryRecords
from flows.registry.mlflow_store import MlflowStore
from flows.registry.promotion import Promotions
from flows.registry.promotion_request import Request
from flows.registry.registry import Registry
from samif.config.registry import GatesParams
from samif.errors import GateFailed, IntegrityError, SamifError
from samif.watch.canary import ENOUGH, CanaryEvidence
from samif.watch.paired import latency, outcome
from tests.flows.console.conftest import client
from tests.flows.registry.test_promotion import PARAMS, empty, kinds, on, opened
from tests.support.tagged_line import ROWS, TaggedLine

__all__ = ["empty"]
REF = "demo@challenger"
AT = "/api/workspaces/1/versions"


@pytest.fixture
def store(tmp_path: Path, empty: Path) -> MlflowStore:
    made = opened(empty, tmp_path)
    with made.writing():
        made.client.set_registered_model_alias("demo-classifier", "challenger", "2")
    return made


@pytest.fixture(scope="module")
def grown(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> TaggedLine:
    line = TaggedLine(tmp_path_factory.mktemp("canaries") / "ws", migrated)
    line.grow()
    return line


def good(requests: int) -> CanaryEvidence:
    """What so many requests say of a version that is equal to the champion."""
    found = CanaryEvidence()
    for _ in range(requests):
        found = found.after(outcome(False) | latency(1.0, 1.0), 1)
    return found


def aliases(store: MlflowStore) -> dict[str, int]:
    with store.reading():
        return {alias: int(at) for alias, at in store.model("demo-classifier").aliases.items()}


def samif(root: Path, *words: str) -> str:
    import flows.cli.promotion  # noqa: F401

    ran = CliRunner().invoke(app, ["registry", *words, "--workspace", str(root)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.stdout


# The records


def test_evidence_of_all_replicas_counts_and_none_is_lost(store: MlflowStore) -> None:
    records = CanaryRecords(store, "demo")
    assert records.read(2).evidence == {} and records.read(2).attempt == 0
    records.publish(2, 0, "one", good(3))
    records.publish(2, 0, "two", good(4))
    records.publish(2, 0, "one", good(5))
    found = records.read(2)
    assert {who: seen.requests for who, seen in found.evidence.items()} == {"one": 5, "two": 4}
    assert found.evidence["one"] == good(5) and found.refused is None
    assert records.read(3).evidence == {}


def test_a_rollback_is_journalled_once_and_takes_the_alias(store: MlflowStore) -> None:
    Promotions(store, "demo", PARAMS).promote(1, Request("ann"), on(1))
    entries = []

    def decide() -> None:
        own = CanaryRecords(MlflowStore(None, store.database.parent.parent), "demo")  # type: ignore[union-attr]
        entries.append(own.roll_back(2, 0, REF, "errors: it failed", {"requests": 7.0}))

    replicas = [threading.Thread(target=decide) for _ in range(4)]
    for replica in replicas:
        replica.start()
    for replica in replicas:
        replica.join()
    assert len({entry.id for entry in entries}) == 1
    chain, live, alias = Promotions(store, "demo", PARAMS).state()
    assert [e.kind for e in chain.entries] == ["promote", "done", "refuse"]
    assert (live.version, alias, aliases(store)) == (1, 1, {"champion": 1})
    refused = CanaryRecords(store, "demo").read(2).refused
    assert refused is not None and (refused.who, refused.why, refused.canary) == (
        "samif",
        "errors: it failed",
        {"requests": 7.0},
    )
    assert live.refusal(2) == refused and live.refusal(1) is None


@pytest.mark.parametrize("ref", ["demo@challenger", "demo@candidate", "demo/2", "demo@champion"])
def test_only_the_aliases_of_the_canary_are_taken(store: MlflowStore, ref: str) -> None:
    with store.writing():
        for alias, version in (("candidate", "2"), ("champion", "2"), ("other", "2"), ("previous", "1")):
            store.client.set_registered_model_alias("demo-classifier", alias, version)
    CanaryRecords(store, "demo").roll_back(2, 0, ref, "slow", {})
    left = {"champion": 2, "other": 2, "previous": 1} | ({} if ref == "demo@candidate" else {"candidate": 2})
    assert aliases(store) == left


def test_an_alias_that_has_moved_on_stays(store: MlflowStore) -> None:
    with store.writing():
        store.client.set_registered_model_alias("demo-classifier", "challenger", "3")
    CanaryRecords(store, "demo").roll_back(2, 0, REF, "slow", {})
    assert aliases(store) == {"challenger": 3}


def test_a_refused_version_may_be_tried_again_on_request_with_new_evidence(store: MlflowStore) -> None:
    records = CanaryRecords(store, "demo")
    assert records.retry(REF, "ann") is None and kinds(Promotions(store, "demo", PARAMS)) == []
    records.publish(2, 0, "one", good(9))
    records.roll_back(2, 0, REF, "slow", {})
    assert aliases(store) == {}
    assert records.retry(REF, "ann") == 2
    found = records.read(2)
    assert (found.attempt, found.refused, found.evidence, aliases(store)) == (1, None, {}, {"challenger": 2})
    assert records.roll_back(2, 0, REF, "a replica of the first attempt", {}) is None
    assert records.roll_back(2, 1, REF, "slow again", {}) is not None
    assert kinds(Promotions(store, "demo", PARAMS)) == ["refuse", "retry", "refuse"]
    with store.writing():
        store.client.set_registered_model_alias("demo-classifier", "challenger", "3")
    assert records.retry(REF, "ann") is None  # version 3 was never refused
    assert records.retry("demo/2", "ann") == 2 and aliases(store) == {"challenger": 3}


@pytest.mark.parametrize("text", ["", "{}x", '{"requests": "many"}', '{"checks": {"errors": {"log_stakes": [1]}}}'])
def test_a_damaged_tag_is_named(store: MlflowStore, text: str) -> None:
    with store.writing():
        store.client.set_model_version_tag("demo-classifier", "2", "canary.0.one", text or " ")
        store.client.set_model_version_tag("demo-classifier", "2", "canary.of.mine", "not ours")
    with pytest.raises(IntegrityError, match=r"the tag 'canary\.0\.one' of a version cannot be read; delete it"):
        CanaryRecords(store, "demo").read(2)


# Promotion


def test_a_refused_canary_is_promoted_by_force_only(store: MlflowStore) -> None:
    CanaryRecords(store, "demo").roll_back(2, 0, REF, "names changed", {})
    promotions = Promotions(store, "demo", PARAMS)
    with pytest.raises(GateFailed, match=r"/2 is refused: it was rolled back as a canary on .* \(names changed\)"):
        promotions.promote(2, Request("ann"), on(2))
    assert promotions.promote(3, Request("ann"), on(3)).version == 3
    term = promotions.promote(2, Request("ann", force=True), on(2)).terms[-1]
    assert "rolled back as a canary" in term.decision.overrode[0]
    CanaryRecords(store, "demo").retry("demo/2", "ann")
    promotions.promote(3, Request("ann"), on(3))
    assert not promotions.promote(2, Request("ann"), on(2)).terms[-1].decision.forced


def test_one_command_promotes_from_a_canary(grown: TaggedLine, tmp_path: Path) -> None:
    line = grown.copy(tmp_path / "ws")
    root, records = line.layout.root, Registry(None, tmp_path / "ws").canaries("demo")
    samif(root, "promote", "demo/1")
    with pytest.raises(SamifError, match="no version of demo-classifier was a canary; start one with"):
        samif(root, "promote", "demo", "--from-canary")
    records.publish(2, 0, "one", good(ENOUGH // 2))
    sentence = f"demo-classifier/2 was compared with the champion on {ENOUGH // 2} requests as a canary, {ENOUGH} are"
    for ref in ("demo", "demo/2"):
        with pytest.raises(SamifError, match=sentence):
            samif(root, "promote", ref, "--from-canary")
    records.publish(2, 0, "two", good(ENOUGH))
    assert f"version 2: canary: {3 * ENOUGH // 2} requests, no check" in samif(root, "list")
    done = json.loads(samif(root, "promote", "demo", "--from-canary", "--why", "it held", "--json"))
    assert (done["live"], done["term"]["why"]) == (2, "it held")
    assert done["term"]["canary"]["requests"] == 150.0 and done["term"]["canary"]["errors"] == 0.0
    records.publish(3, 0, "one", good(ENOUGH))
    with pytest.raises(SamifError, match="is refused: base: AP fell"):  # the gates are the usual ones
        samif(root, "promote", "demo", "--from-canary")
    records.publish(4, 0, "one", good(ENOUGH))
    records.roll_back(4, 0, REF, "slow requests: too many", {"requests": 150.0})
    with pytest.raises(SamifError, match=r"/4 was rolled back as a canary on .* \(slow requests: too many\); register"):
        samif(root, "promote", "demo", "--from-canary")
    assert "canary 4 was rolled back: slow requests: too many" in samif(root, "history", "demo")
    told = json.loads(samif(root, "history", "demo", "--json"))
    assert [entry["version"] for entry in told["canaries"]] == [4]
    assert "version 4: canary rolled back: slow requests: too many (after 100 requests)" in samif(root, "list")
    rows = client([root], []).get(AT).json()["versions"]
    assert rows[0]["canary"].startswith("canary rolled back: slow requests") and rows[-1]["canary"] is None


def test_registering_again_gives_a_refused_version_no_alias(grown: TaggedLine, tmp_path: Path) -> None:
    line = grown.copy(tmp_path / "ws")
    records = line.registry.canaries("demo")
    records.roll_back(4, 0, REF, "slow", {})
    assert "challenger" not in line.registry.aliases("demo")
    line.registry.register_classifier(
        "demo", line.cards["s2"], _files(line), 1, line.cards["s1"]
    )  # as a second `samif run`
    assert "challenger" not in line.registry.aliases("demo")


def _files(line: TaggedLine) -> dict[str, Path]:
    folder = line.layout.root / "made" / "s2"
    files = {name: folder / name for name in ("classifier.safetensors", "evaluation.json", "session.json")}
    return files | {"params.yaml": line.layout.params, "dvc.lock": line.layout.lock}


# Who may promote and approve

ROLES: dict[str, Any] = {"approval": "always", "promoters": ["Operator", "dora"], "approvers": ["approver", "carl "]}


@pytest.fixture(scope="module")
def guarded(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> TaggedLine:
    line = TaggedLine(tmp_path_factory.mktemp("roles") / "ws", migrated, approver="another", **ROLES)
    line.add("base", bolt=ROWS["bolt"], gear=ROWS["gear"])
    return line


@pytest.mark.parametrize(
    ("who", "approve", "force", "sentence"),
    [
        ("eve", "carl", False, r"eve may not promote \(gates.promoters names Operator, dora\); ask one of them"),
        ("approver", None, False, "approver may not promote"),
        ("operator", "eve", False, r"eve may not approve \(gates.approvers names approver, carl \); ask one of them"),
        ("operator", "dora", False, "dora may not approve"),
        ("operator", None, False, "needs a person's approval"),
        ("operator", "OPERATOR ", False, "requests the promotion of .* and may not approve it too"),
        ("dora", None, True, r"dora may not override gates \(gates.approvers names"),
    ],
)
def test_roles_on_the_command_line(
    guarded: TaggedLine, who: str, approve: str | None, force: bool, sentence: str
) -> None:
    words = ["promote", "demo/1", "--who", who, *(["--approve", approve] if approve else [])]
    with pytest.raises(GateFailed, match=sentence):
        samif(guarded.layout.root, *words, *(["--force"] if force else []))
    assert kinds(guarded.registry.promotions("demo", guarded.params)) == []  # type: ignore[arg-type]


def test_roles_over_http(guarded: TaggedLine, tmp_path: Path) -> None:
    root = guarded.copy(tmp_path / "ws").layout.root
    operator, approver = client([root], [], "operator"), client([root], [], "approver")
    refused = approver.post(f"{AT}/promote", json={"version": 1, "approve": True})
    assert refused.status_code == 409 and "approver may not promote" in refused.json()["error"]["message"]
    refused = operator.post(f"{AT}/promote", json={"version": 1})
    assert refused.status_code == 409 and "needs a person's approval" in refused.json()["error"]["message"]
    assert operator.get(AT).json()["live"] is None


def test_roles_in_the_console_where_one_asks_and_another_approves(guarded: TaggedLine, tmp_path: Path) -> None:
    line = guarded.copy(tmp_path / "ws")
    root = line.layout.root
    operator, approver = client([root], [], "operator"), client([root], [], "approver")

    def approved(asker: Any) -> tuple[int, str]:
        asked = asker.post(f"{AT}/requests", json={"version": 1, "verdict": ""}).json()
        answer = approver.post(f"{AT}/requests/{asked['id']}/approve")
        return answer.status_code, answer.text

    status, text = approved(approver)  # who asks must be one of the promoters
    assert status == 409 and "approver may not promote" in text
    set_gates(line, approvers=["carl"])
    status, text = approved(operator)  # the role of the console alone is not enough
    assert status == 409 and "approver may not approve" in text
    set_gates(line, approvers=["approver"])
    assert approved(operator)[0] == 200
    assert operator.get(AT).json()["history"][0]["approved_by"] == "approver"


def set_gates(line: TaggedLine, **changes: Any) -> None:
    line._write_params(None, ROLES | {"approver": "another"} | changes)


def test_an_approval_of_before_counts_only_from_who_may_give_it(store: MlflowStore) -> None:
    def promotions(**gates: Any) -> Promotions:
        return Promotions(store, "demo", PARAMS.model_copy(update={"gates": GatesParams(**gates)}))

    promotions().promote(1, Request("ann"), on(1))
    with store.writing():  # an approval that nobody has used yet
        journal = promotions()._journal
        head = journal.read()
        facts = {"version": 2, "card": f"{2:064d}", "verdict": on(2, "unclear")(1).verdict.digest}
        journal.write(head, "approve", "ann", "", approved_by="carl", was=1, **facts)
    for gates in ({"approvers": ["dora"]}, {"approver": "another", "approvers": ["ann"]}):
        with pytest.raises(GateFailed, match="needs a person's approval"):
            promotions(**gates).promote(2, Request("ann"), on(2, "unclear"))
    with pytest.raises(GateFailed, match="needs a person's approval"):
        promotions(approver="another").promote(2, Request("carl"), on(2, "unclear"))
    assert promotions(approvers=["Carl"]).promote(2, Request("ann"), on(2, "unclear")).version == 2


def test_without_lists_everybody_may(store: MlflowStore) -> None:
    assert GatesParams().model_dump().keys() & {"promoters", "approvers"} == set()
    Promotions(store, "demo", PARAMS).promote(1, Request("anyone", approve="anyone"), on(1, "unclear"))

"""Versions over the API: the same gates, journal and refusals as on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.comparison.decide import open_registry
from tests.flows.console.conftest import client
from tests.support.tagged_line import ROWS, TaggedLine

AT = "/api/workspaces/1/versions"


@pytest.fixture(scope="module")
def grown(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> TaggedLine:
    line = TaggedLine(tmp_path_factory.mktemp("versions") / "ws", migrated, approval="always", approver="another")
    line.grow()
    return line


@pytest.fixture
def line(grown: TaggedLine, tmp_path: Path) -> TaggedLine:
    return grown.copy(tmp_path / "ws")


def test_a_line_without_versions(migrated: Path, tmp_path: Path) -> None:
    fresh = TaggedLine(tmp_path / "ws", migrated)
    found = client([fresh.layout.root], []).get(AT).json()
    assert (found["versions"], found["live"], found["history"]) == ([], None, [])


def test_an_operator_asks_and_an_approver_promotes(line: TaggedLine) -> None:
    root = line.layout.root
    operator, approver = client([root], [], "operator"), client([root], [], "approver")
    refused = operator.post(f"{AT}/promote", json={"version": 2, "why": "hooks"})
    assert refused.status_code == 409 and "needs a person's approval" in refused.json()["error"]["message"]
    asked = operator.post(f"{AT}/requests", json={"version": 2, "why": "hooks", "verdict": ""}).json()
    assert operator.get(AT).json()["requests"] == [asked]
    own = operator.post(f"{AT}/promote", json={"version": 2, "approve": True})
    assert own.status_code == 409 and "may not approve" in own.json()["error"]["message"]
    assert approver.post(f"{AT}/requests/{asked['id']}/approve").json()["live"] == 2
    found = operator.get(AT).json()
    (term,) = found["history"]
    assert (found["live"], found["requests"]) == (2, [])
    assert (term["who"], term["approved_by"], term["why"]) == ("operator", "approver", "hooks")
    chain, live, alias = open_registry(root).promotions("demo-classifier").state()
    assert (live.version, alias) == (2, 2) and [e.kind for e in chain.entries] == ["approve", "promote", "done"]
    actions = [a["action"] for a in approver.get("/api/workspaces/1/actions").json()]
    assert actions == ["promote", "ask for promotion", "promotion refused"]


def test_nobody_approves_an_own_request_where_the_policy_says_so(line: TaggedLine) -> None:
    approver = client([line.layout.root], [], "approver")
    asked = approver.post(f"{AT}/requests", json={"version": 2, "verdict": ""}).json()
    for answer in (
        approver.post(f"{AT}/requests/{asked['id']}/approve"),
        approver.post(f"{AT}/promote", json={"version": 2, "approve": True}),
    ):
        assert answer.status_code == 409 and "ask another person" in answer.json()["error"]["message"]
    assert approver.get(AT).json()["live"] is None
    assert approver.delete(f"{AT}/requests/{asked['id']}").json() == {"version": 2}
    assert approver.post(f"{AT}/requests/{asked['id']}/approve").status_code == 404


def test_the_gate_refuses_with_its_sentence_and_rollback_restores(line: TaggedLine) -> None:
    root = line.layout.root
    operator, approver = client([root], [], "operator"), client([root], [], "approver")

    def approved(version: int) -> int:
        asked = operator.post(f"{AT}/requests", json={"version": version, "verdict": ""}).json()
        answer = approver.post(f"{AT}/requests/{asked['id']}/approve")
        return answer.status_code

    assert approved(2) == 200
    compared = operator.post(f"{AT}/compare", json={"before": 2, "after": 3}).json()
    assert compared["outcome"] == "failed" and "AP fell" in compared["headline"]
    refused = operator.post(f"{AT}/promote", json={"version": 3, "verdict": compared["digest"]})
    sentence = refused.json()["error"]["message"]
    assert refused.status_code == 409 and "is refused" in sentence and "AP fell" in sentence
    assert approved(3) == 409
    page = operator.get(f"{AT}/page", params={"before": 2, "after": 3})
    assert page.status_code == 200 and "sandbox" in page.headers["content-security-policy"]
    assert operator.get(f"{AT}/page", params={"before": 1, "after": 3}).status_code == 404
    stale = operator.post(f"{AT}/promote", json={"version": 4, "verdict": compared["digest"]})
    assert stale.status_code == 409 and "is now" in stale.json()["error"]["message"]
    assert approved(4) == 200
    back = operator.post(f"{AT}/rollback", json={"why": "too many bolts missed"}).json()
    assert back["live"] == 2
    history = operator.get(AT).json()["history"]
    assert [(t["version"], t["how"]) for t in history] == [(2, "rolled back"), (4, "promoted"), (2, "promoted")]
    assert operator.post(f"{AT}/rollback", json={}).status_code == 404
    assert operator.post(f"{AT}/compare", json={"before": 2, "after": 9}).status_code == 404
    assert operator.post(f"{AT}/compare", json={"before": 2, "after": 2}).status_code == 422


def test_anyone_may_approve_by_default(migrated: Path, tmp_path: Path) -> None:
    fresh = TaggedLine(tmp_path / "ws", migrated, approval="always")
    fresh.add("base", bolt=ROWS["bolt"], gear=ROWS["gear"])
    approver = client([fresh.layout.root], [], "approver")
    assert approver.post(f"{AT}/promote", json={"version": 1, "approve": True}).json()["live"] == 1

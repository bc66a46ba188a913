"""Every route has a role, and lets nobody else in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from flows.console.access import ANYBODY, HEADER, ROLE_KEY
from flows.console.accounts import ROLES
from tests.flows.console.conftest import TOKENS, client, headers

FREE = {("POST", "/api/session"), ("DELETE", "/api/session")}
EXPECTED = {
    ("PUT", "labels"): "labeller",
    ("POST", "outline"): "labeller",
    ("POST", "session"): "operator",
    ("POST", "run"): "operator",
    ("DELETE", "run"): "operator",
    ("POST", "promote"): "operator",
    ("POST", "rollback"): "operator",
    ("POST", "approve"): "approver",
    ("POST", "decision"): "labeller",
    ("POST", "never"): "labeller",
    ("POST", "import"): "labeller",
    ("PUT", "point"): "operator",
    ("GET", "versions"): "viewer",
}
"""Least roles of what changes something that others rely on, by method and last part of the path."""


@pytest.fixture
def opened(root: Path) -> TestClient:
    return client([root], [root.parent / "photos" / "images"])


def routes(app: FastAPI) -> Iterator[tuple[str, str, str]]:
    """Method, path and least role of every route of the API."""
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation[ROLE_KEY]


def test_every_route_names_a_role(opened: TestClient) -> None:
    table = list(routes(opened.app))  # type: ignore[arg-type]
    assert {(method, path) for method, path, role in table if role == ANYBODY} == FREE
    assert {role for *_, role in table} == {ANYBODY, *ROLES}
    found = {(method, path.rpartition("/")[2]): role for method, path, role in table if role != ANYBODY}
    assert {key: found[key] for key in EXPECTED} == EXPECTED
    named = {path for _, path, _ in table}
    mounted = {r.path for r in opened.app.routes if isinstance(r, APIRoute)}  # type: ignore[attr-defined]
    assert named >= mounted


def test_wrong_roles_and_strangers_are_refused_on_every_route(opened: TestClient) -> None:
    """Before anything of the request is looked at: the workspace of the addresses does not exist."""
    tried = 0
    for method, path, least in routes(opened.app):  # type: ignore[arg-type]
        if least == ANYBODY:
            continue
        address = path
        for part in ("workspace", "set_id", "item_id", "request_id", "name"):
            address = address.replace(f"{{{part}}}", "1" if part == "workspace" else "x")
        for role in ROLES[: ROLES.index(least)]:
            answer = opened.request(method, address, headers=headers(role))
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "role"), (method, path, role)
            assert least in answer.json()["error"]["message"]
        for token in ("", "nonsense-0123456789", TOKENS[least][:-1]):
            answer = opened.request(method, address, headers={"Authorization": f"Bearer {token}", HEADER: "1"})
            assert answer.status_code == 401, (method, path, token)
        if method != "GET":
            answer = opened.request(method, address, headers={"Authorization": f"Bearer {TOKENS[least]}", HEADER: ""})
            assert answer.status_code not in (401, 403)
            bare = {"Authorization": f"Bearer {TOKENS[least]}"}
            answer = TestClient(opened.app).request(method, address, headers=bare)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin"), (method, path)
        tried += 1
    assert tried >= 34


def test_a_token_is_kept_in_a_cookie_that_scripts_cannot_read(opened: TestClient) -> None:
    browser = TestClient(opened.app, base_url="http://127.0.0.1:8092", headers={HEADER: "1"})
    assert browser.get("/api/me").status_code == 401
    assert browser.post("/api/session", json={"token": "wrong-0123456789abcdef"}).status_code == 401
    entered = browser.post("/api/session", json={"token": TOKENS["labeller"]})
    assert entered.status_code == 204
    assert all(word in entered.headers["set-cookie"].lower() for word in ("httponly", "samesite=strict", "8092"))
    assert browser.get("/api/me").json()["roles"] == ["viewer", "labeller"]
    assert browser.delete("/api/session").status_code == 204
    assert browser.get("/api/me").status_code == 401


def test_answers_forbid_what_comes_from_outside(opened: TestClient) -> None:
    for address in ("/", "/js/main.js", "/api/me", "/api/nothing"):
        answer = opened.get(address)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_long_bodies_are_refused_before_they_are_read(opened: TestClient) -> None:
    opened.headers["content-type"] = "application/json"
    address = "/api/workspaces/1/run"
    announced = opened.post(address, headers={"content-length": str(10**9)}, content=b"{}")
    assert announced.status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(70):
            yield b" " * 1_000_000

    assert opened.post(address, content=endless()).status_code == 413

"""A workspace whose stages have run, with unlabelled images beside it, and a console over it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from flows.console.accounts import ROLES, Account, Accounts
from flows.console.app import build_app
from flows.console.state import open_console
from flows.http.auth import digest_of
from tests.support.small_line import Line, draw, write_small

TOKENS = {role: f"{role}-0123456789abcdef" for role in ROLES}


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Run once; tests take copies."""
    root = tmp_path_factory.mktemp("console")
    line = write_small(root)
    draw(root / "photos", 5)
    line.run("dataset", "embed", "pretrain_decoder", "propose", "train_base", "evaluate_base")
    return line


@pytest.fixture
def root(ran: Line, tmp_path: Path) -> Path:
    """A copy of the workspace with the images of `photos` beside it."""
    for name in ("ws", "photos"):
        shutil.copytree(ran.layout.root.parent / name, tmp_path / name)
    return tmp_path / "ws"


def client(roots: list[Path], images: list[Path], role: str = "approver", shadow: Path | None = None) -> TestClient:
    """A client with the token of a role; `ROLE` is the person's name too."""
    accounts = Accounts([Account(r, r, digest_of(token)) for r, token in TOKENS.items()])
    app = build_app(open_console(roots, images, shadow), accounts)
    return TestClient(app, headers=headers(role), raise_server_exceptions=False)


def headers(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}", "X-Samif-Console": "1"}

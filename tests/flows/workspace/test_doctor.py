"""What `samif doctor` looks at, on this machine and on workspaces that are not well."""

from __future__ import annotations

import socket
from pathlib import Path

from flows.workspace import doctor
from flows.workspace.doctor import Check, examine
from flows.workspace.params_edit import new_text
from samif.config import EncoderParams


def rows(root: Path) -> dict[str, Check]:
    return {check.name: check for check in examine(root)}


def workspace(root: Path, uri: str) -> Path:
    text = new_text("x", ["a"], EncoderParams(), {}).replace("tracking_uri: null", f"tracking_uri: {uri}")
    (root / "params.yaml").write_text(text)
    return root


def test_outside_a_workspace_only_the_machine_is_looked_at(tmp_path: Path) -> None:
    found = rows(tmp_path)
    assert found["python"].ok and found["torch"].ok and found["fonts"].ok
    assert "registry" not in found
    assert all(check.remedy for check in found.values() if not check.ok)


def test_a_registry_that_does_not_answer_and_a_store_in_the_way(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound but not listening: nobody answers here
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / ".samif").mkdir()
        (tmp_path / ".samif" / "embeddings").write_text("a file where a folder should be")
        found = rows(workspace(tmp_path, uri))
    assert not found["registry"].ok
    assert "tracking_uri" in found["registry"].remedy
    assert not found["embedding store"].ok
    assert found["workspace"].ok


def test_broken_params_are_a_row_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("line: X\n")
    assert not rows(tmp_path)["params.yaml"].ok
    refused = rows(workspace(tmp_path, "http://ann:hunter2@127.0.0.1"))["params.yaml"]
    assert not refused.ok and "'registry.tracking_uri'" in refused.found and "hunter2" not in refused.found
    assert not any(tmp_path.glob(".samif"))


def test_a_missing_package_says_how_to_get_it() -> None:
    check = doctor._package("samif_no_such_package")
    assert not check.ok
    assert "make env" in check.remedy

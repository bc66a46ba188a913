"""`samif console` as a process: its token, its refusals, TLS, and runs that it starts."""

from __future__ import annotations

import signal
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from filelock import FileLock

from flows.console.runs import Runs, _progress
from flows.console.server import Address, serve
from flows.console.state import open_console
from samif.errors import ConfigError
from tests.support.console import refusal, samif
from tests.support.console_page import running_console
from tests.support.small_line import write_small

HEADER = {"X-Samif-Console": "1"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("server")).layout.root


def test_the_token_is_in_the_address_and_gone_at_the_end(root: Path) -> None:
    with running_console("-w", root, cwd=root) as console:
        (made,) = (root / ".samif" / "console").glob("*.token")
        token = console.address.partition("#token=")[2]
        assert made.read_text().strip() == token and made.stat().st_mode & 0o077 == 0
        me = httpx.get(f"{console.origin}/api/me", headers={"Authorization": f"Bearer {token}"}).json()
        assert me["role"] == "approver" and me["workspaces"][0]["line"] == "demo"
        assert httpx.get(f"{console.origin}/api/me").status_code == 401
        busy = refusal(samif(root, "console", "--port", console.origin.rpartition(":")[2]), "choose another --port")
        assert "127.0.0.1" in busy
    assert not made.exists()


def test_refusals_are_one_sentence(root: Path, tmp_path: Path) -> None:
    refusal(samif(root, "console", "--host", "0.0.0.0", "--port", "0"), "unencrypted", "--tls-certificate")
    opened, here = open_console([root], []), Address("127.0.0.1", 0)
    for refuse, words in (
        (lambda: open_console([tmp_path], []), "is not a workspace"),
        (lambda: open_console([root], [tmp_path / "nowhere"]), "nowhere is not a folder"),
        (lambda: open_console([root, root / "."], []), "named twice"),
        (lambda: Address("127.0.0.1", 0, Path("x.pem")), "--tls-key"),
        (lambda: Address("127.0.0.1", 0, Path("x.pem"), Path("y.pem")), "cannot be read"),
        (lambda: serve(opened, here, tmp_path / "none", "ann", print), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            refuse()


@pytest.mark.slow
def test_tls_files_are_used(root: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    words = ("--tls-certificate", certificate, "--tls-key", key)
    with running_console("-w", root, *words, cwd=root) as console:
        assert console.origin.startswith("https://")
        token = console.address.partition("#token=")[2]
        with httpx.Client(verify=ssl.create_default_context(cafile=certificate), base_url=console.origin) as client:
            entered = client.post("/api/session", json={"token": token}, headers=HEADER)
            assert entered.status_code == 204 and "secure" in entered.headers["set-cookie"].lower()
            assert client.get("/api/me").status_code == 200


@pytest.mark.slow
def test_a_killed_console_leaves_its_port_and_token_to_the_next(root: Path) -> None:
    with running_console("-w", root, cwd=root) as console:
        console.process.send_signal(signal.SIGKILL)
        console.process.wait()
        port = console.origin.rpartition(":")[2]
    with running_console("-w", root, "--port", port, cwd=root) as again:
        token = again.address.partition("#token=")[2]
        assert httpx.get(f"{again.origin}/api/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_run_that_cannot_start_tells_why(root: Path) -> None:
    runs = Runs(root, root / ".samif" / "console")
    assert runs.status()["state"] is None and runs.cancel() is False
    with FileLock(root / ".samif" / "lock"):
        runs.start("ann", "a reason with 'quotes'")
        deadline = time.monotonic() + 60
        while runs.status()["state"] == "running" and time.monotonic() < deadline:
            time.sleep(0.1)
    status = runs.status()
    assert (status["state"], status["who"]) == ("failed", "ann")
    assert "another samif command is at work" in status["error"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["stage embed", "embed: 3/12 images, 1.5/s, 6 s left"], ("embed", 3, 12, 1.5, 6)),
        (["embed: 3/12 images", "stage propose"], None),
        (["propose train: 12/12 images in 4.0 s, 3.0/s"], ("propose train", 12, 12, None, None)),
        (["what: ever"], None),
    ],
)
def test_progress_is_read_from_the_lines(lines: list[str], expected: tuple[object, ...] | None) -> None:
    found = _progress(lines)
    assert (found and tuple(found[k] for k in ("work", "done", "total", "rate", "left"))) == expected

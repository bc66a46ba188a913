"""A whole stack with a small line on it that was run, a receiver and a service: for tests of who is let in, and of what
shows of the secrets."""

from __future__ import annotations

import base64
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, TypeVar
from urllib.parse import quote

import psutil
from ruamel.yaml import YAML

from flows.workspace.params_edit import new_text
from infra.services.stack import BUCKET, SECRET, Stack
from samif.config import EncoderParams, SessionParams
from samif.dataset.draw.parts import BASE_PARTS
from tests.support.services import CommandLines, free_port, interrupt, ten_free_ports

T = TypeVar("T")
LINE = "watched"
_SAMIF = (sys.executable, "-c", "from flows.cli import main; main()")
_SECONDS = 600.0
_SMALL: dict[str, dict[str, object]] = {
    "pretrain_decoder": {"steps": 2, "images_per_step": 2},
    "propose": {"points": 24},
    "embed": {"shard_images": 4, "store": f"s3://{BUCKET}/embeddings"},
}
_DVC = f"""\
[core]
    no_scm = True
    analytics = False
    check_update = False
    remote = bucket
['remote "bucket"']
    url = s3://{BUCKET}/dvc
"""


@dataclass(frozen=True)
class Site:
    """Everything of it lies in `folder`, home and temporary files of the commands included; `variables` are those of
    the file that `make services` writes."""

    folder: Path
    stack: Stack
    variables: Mapping[str, str]
    lines: CommandLines
    webhook_secret: str

    @property
    def root(self) -> Path:
        return self.folder / LINE

    def samif(self, *words: str) -> str:
        """What a command prints; fails the test where it fails."""
        said = self._said(words[0])
        with said.open("ab") as out:
            done = subprocess.run([*_SAMIF, *words], **self._as(out, {}), timeout=_SECONDS)
        text = said.read_text()
        assert done.returncode == 0, text
        return text

    @contextmanager
    def listening(self, ready: str, *words: str, **variables: str) -> Iterator[tuple[re.Match[str], psutil.Process]]:
        """A command that goes on until it is interrupted: what `ready` found in its first words, and the process."""
        said = self._said(words[0])
        with said.open("ab") as out:
            process = subprocess.Popen([*_SAMIF, *words], **self._as(out, variables), start_new_session=True)
        try:
            yield until(lambda: re.search(ready, said.read_text()), process), psutil.Process(process.pid)
        finally:
            interrupt(process)

    def _said(self, name: str) -> Path:
        (self.folder / "said").mkdir(exist_ok=True)
        return self.folder / "said" / name

    def _as(self, out: IO[bytes], variables: Mapping[str, str]) -> dict[str, Any]:
        """How a command is started: with the environment file read, and no other variables of this kind."""
        foreign = ("AWS_", "MLFLOW_", "PG", "RAY_", "SAMIF_")
        places = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"), "PYTHONUNBUFFERED": "1"}
        for place in ("home", "tmp"):
            (self.folder / place).mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment |= {**self.variables, **places, **variables}
        return {"cwd": self.root, "env": environment, "stdout": out, "stderr": subprocess.STDOUT}

    def make_line(self) -> None:
        """The workspace, not yet run."""
        (self.root / ".dvc").mkdir(parents=True)
        (self.root / ".dvc" / "config").write_text(_DVC)
        (self.root / ".dvcignore").write_text("/.samif\n/reports\n")
        sessions = {"s1": SessionParams(after="base", classes=["wing_nut"], shots=2)}
        yaml = YAML()
        params = yaml.load(new_text(LINE, list(BASE_PARTS), EncoderParams(), sessions))
        params["dataset"]["drawn"] = {"base_images": 24, "mixed_images": 12, "val_images": 4, "size": 160}
        for section, changes in _SMALL.items():
            params[section].update(changes)
        params["registry"] = {"tracking_uri": self.variables["MLFLOW_TRACKING_URI"]}
        yaml.dump(params, self.root / "params.yaml")

    def secrets(self) -> dict[str, str]:
        """Name -> value of all that the stack and the commands on it keep to themselves."""
        found = self.stack.state.secrets.model_dump() | {name: self.variables[name] for name in SECRET}
        keys = re.findall(r"\[(\S+)\]\s+key = (\S+)", (self.stack.folder / "ceph" / "keyring").read_text())
        return found | {f"ceph {who}": key for who, key in keys} | {"webhook": self.webhook_secret}


@contextmanager
def site() -> Iterator[Site]:
    """The stack, up, and a line that is still to be run."""
    # Not pytest's own folder: PostgreSQL runs as a user who may not enter that, and Ray's sockets need short names.
    with TemporaryDirectory(prefix="samif-site-") as name:
        Path(name).chmod(0o755)
        stack = Stack(Path(name) / "services")
        try:
            with CommandLines() as lines:
                made = Site(
                    Path(name),
                    stack,
                    stack.up(ten_free_ports()),
                    lines,
                    "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
                )
                made.make_line()
                yield made
        finally:
            stack.down(remove_data=True)


@contextmanager
def receiving(site: Site) -> Iterator[str]:
    """`samif trigger serve`; its address."""
    words = ("trigger", "serve", "--port", "0")
    with site.listening(r"listening at (\S+); Ctrl-C", *words, SAMIF_WEBHOOK_SECRET=site.webhook_secret) as (found, _):
        yield found[1]


@dataclass(frozen=True)
class Serving:
    """A service with a token of its own making, and the folder of its Ray."""

    url: str
    token_file: Path
    ray: Path


@contextmanager
def serving(site: Site) -> Iterator[Serving]:
    """`samif serve` of the newest version, on a Ray of its own."""
    port = free_port()
    words = ("serve", f"{LINE}@challenger", "--port", str(port), "--threads", "1")
    with site.listening(r"the bearer token is in (\S+)", *words) as (found, process):
        rays = [child for child in process.children(recursive=True) if child.name() == "raylet"]
        folder = re.search(rb"/tmp/samif-\w+", Path(f"/proc/{rays[0].pid}/cmdline").read_bytes())
        assert folder is not None
        yield Serving(f"http://127.0.0.1:{port}", Path(found[1]), Path(folder[0].decode()))


def until(find: Callable[[], T | None], process: subprocess.Popen[bytes] | None = None) -> T:
    """Whatever `find` gives once that is something, while the process runs."""
    deadline = time.monotonic() + _SECONDS
    while not (found := find()):
        assert time.monotonic() < deadline and (process is None or process.poll() is None), "it never came to that"
        time.sleep(0.1)
    return found


def forms(secret: str) -> set[bytes]:
    """What a secret looks like: as it is, quoted for an address, and inside the base64 of any text around it."""
    raw = secret.encode()
    found = {raw, quote(secret, safe="").encode()}
    for before in range(3):  # bytes before it decide how it falls into groups of three
        coded = base64.b64encode(b"\0" * before + raw)
        own = coded[-(-8 * before // 6) : 8 * (before + len(raw)) // 6]
        found |= {own, own.translate(bytes.maketrans(b"+/", b"-_"))}
    return found

"""An MLflow server on loopback: versions in a database, artifacts in a bucket, basic auth where there is a password."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests

from infra.services.daemon import Daemon, Launcher, environment_without
from infra.services.files import write_private

ADMINISTRATOR = "samif"

_AUTH_INI = """\
[mlflow]
default_permission = READ
database_uri = {database}
admin_username = {name}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
"""


@dataclass(frozen=True)
class Auth:
    """Accounts of the server.

    Attributes:
        database: `postgresql://` of the accounts.
        password: of the administrator, set when the server first starts.
        signing_key: of the server's forms.
    """

    database: str
    password: str
    signing_key: str


@dataclass(frozen=True)
class MlflowServer:
    """One server.

    Attributes:
        folder: its working folder.
        port: on 127.0.0.1.
        backend: `postgresql://...` or `sqlite:///...`.
        artifacts: a folder, or `s3://...` with server and keys in `variables`.
        auth: none lets everybody on this machine do everything: for tests.
    """

    folder: Path
    port: int
    backend: str
    artifacts: str
    variables: Mapping[str, str] = field(default_factory=dict)
    auth: Auth | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, launcher: Launcher) -> Daemon:
        """Start the server; `wait_until_ready` waits for it. Addresses with passwords go through the environment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1"]
        environment = {
            **environment_without("MLFLOW_", "AWS_"),
            "MLFLOW_BACKEND_STORE_URI": self.backend,
            "MLFLOW_ARTIFACTS_DESTINATION": self.artifacts,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **self.variables,
        }
        if self.auth is not None:
            command += ["--app-name", "basic-auth"]
            settings = self.folder / "auth.ini"
            database = self.auth.database.replace("%", "%%")  # as configparser wants it
            write_private(settings, _AUTH_INI.format(database=database, name=ADMINISTRATOR))
            environment |= {
                "MLFLOW_AUTH_CONFIG_PATH": str(settings),
                "MLFLOW_AUTH_ADMIN_PASSWORD": self.auth.password,
                "MLFLOW_FLASK_SERVER_SECRET_KEY": self.auth.signing_key,
            }
        return launcher.start("mlflow", command, environment, self.folder)

    def wait_until_ready(self, launcher: Launcher, daemon: Daemon) -> None:
        """Wait until the server answers and accepts the administrator."""
        launcher.wait(daemon, self.url, self.probe)

    def probe(self) -> None:
        """Raise OSError unless the server answers and accepts our password, if there is one."""
        self._search(self.auth.password if self.auth else None).raise_for_status()

    def accepts(self, password: str) -> bool:
        """Whether a server with accounts accepts this password of the administrator."""
        return self._search(password).ok

    def _search(self, password: str | None) -> requests.Response:
        login = (ADMINISTRATOR, password) if password else None
        return requests.get(f"{self.url}/api/2.0/mlflow/experiments/search?max_results=1", auth=login, timeout=5)

    @staticmethod
    def stop(daemon: Daemon, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server with its workers."""
        daemon.stop(how)

"""PostgreSQL on loopback: one administrator, one role that owns the databases of MLflow, passwords only."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from infra.services.daemon import Daemon, Launcher, call, environment_without
from samif.errors import ConfigError

logger = logging.getLogger(__name__)

ADMINISTRATOR = "samif"
ROLE = "mlflow"
DATABASES = ("mlflow", "mlflow_auth")


@dataclass(frozen=True)
class Postgres:
    """One server.

    Attributes:
        folder: holds the data folder `db`; belongs to the user that the server runs as.
        port: on 127.0.0.1; there is no Unix socket.
        administrator_password, role_password: of the two roles.
        durable: False loses data in a power failure: for tests.
    """

    folder: Path
    port: int
    administrator_password: str
    role_password: str
    durable: bool = True

    def url(self, database: str = "mlflow", administrator: bool = False) -> str:
        """`postgresql://` with user and password: for an environment variable or a file, not for a command line."""
        name, password = (ADMINISTRATOR, self.administrator_password) if administrator else (ROLE, self.role_password)
        return f"postgresql://{name}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    @property
    def administrator_variables(self) -> dict[str, str]:
        """Environment of PostgreSQL's own programs."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": ADMINISTRATOR,
            "PGPASSWORD": self.administrator_password,
        }

    @property
    def is_created(self) -> bool:
        return (self.folder / "db" / "PG_VERSION").exists()

    def create(self) -> None:
        """Create the data folder, atomically.

        Raises:
            ConfigError: PostgreSQL is not installed, or its user cannot enter the folder.
            ServiceUnavailable: initdb fails.
        """
        programs, user = server_programs(), server_user()
        self.folder.mkdir(parents=True, exist_ok=True)
        part, secret = self.folder / "db.part", self.folder / "password"
        shutil.rmtree(part, ignore_errors=True)
        secret.write_text(self.administrator_password + "\n", encoding="utf-8")
        secret.chmod(0o600)
        if user is not None:
            for path in (self.folder, secret):
                shutil.chown(path, user)
            if subprocess.run(["test", "-x", self.folder], user=user).returncode != 0:
                raise ConfigError(
                    f"PostgreSQL does not run as root, and user '{user}' may not enter {self.folder}; run this as "
                    "another user, or choose a folder that everybody may enter (SERVICES_DIR=/some/where)"
                )
        try:
            command: list[str | Path] = [programs / "initdb", "--pgdata", part, "--username", ADMINISTRATOR]
            command += ["--pwfile", secret, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale"]
            call(
                "creating the database",
                command + ([] if self.durable else ["--no-sync"]),
                environment_without("PG"),
                self.folder,
                user,
            )
            part.rename(self.folder / "db")
        finally:
            secret.unlink(missing_ok=True)

    def start(self, launcher: Launcher) -> Daemon:
        """Start the server; `wait_until_ready` waits for it."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "log_statement": "none",
            "log_min_error_statement": "panic",  # a statement may contain a secret
            "fsync": "on" if self.durable else "off",
        }
        options = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        self._remove_lock_of_zombie()
        command: list[str | Path] = [server_programs() / "postgres", "-D", self.folder / "db", *options]
        return launcher.start("postgres", command, environment_without("PG"), self.folder, server_user())

    def wait_until_ready(self, launcher: Launcher, daemon: Daemon) -> None:
        """Wait until the server answers, then create the role and the databases that are missing."""
        launcher.wait(daemon, f"127.0.0.1:{self.port}", self.probe)
        with psycopg.connect(self.url("postgres", administrator=True), autocommit=True) as connection:
            set_password(connection, ROLE, self.role_password)
            have = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
            for name in sorted(set(DATABASES) - have):
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(ROLE))
                )

    def probe(self) -> None:
        """Raise OSError unless the server accepts the administrator."""
        try:
            psycopg.connect(self.url("postgres", administrator=True), connect_timeout=2).close()
        except psycopg.Error as error:
            raise OSError(str(error)) from None

    @staticmethod
    def stop(daemon: Daemon) -> None:
        """Fast shutdown: open sessions are ended, everything committed is kept."""
        daemon.stop(signal.SIGINT)

    def _remove_lock_of_zombie(self) -> None:
        """Remove the lock of a killed server that remains as a zombie, as in a container without an init process: the
        next server would take it for running. It is not, once no process is attached to its shared memory."""
        lock = self.folder / "db" / "postmaster.pid"
        try:
            lines = lock.read_text(encoding="utf-8").splitlines()
            if psutil.Process(int(lines[0])).status() != psutil.STATUS_ZOMBIE:
                return
            segment = lines[6].split()[1]
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            logger.debug("%s is left to PostgreSQL", lock, exc_info=True)
            return
        for _ in range(100):  # its child processes notice and end
            rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()]
            if not any(row[1] == segment and row[6] != "0" for row in rows):
                lock.unlink()
                return
            time.sleep(0.1)


def set_password(connection: psycopg.Connection, role: str, password: str) -> None:
    """Set a role's password, and create the role where it is missing; the server gets a verifier, not the password."""
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    verb = sql.SQL("ALTER" if known else "CREATE")
    connection.execute(
        sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, sql.Identifier(role), sql.Literal(verifier))
    )


def server_programs() -> Path:
    """Folder of the newest PostgreSQL server programs that are installed.

    Raises:
        ConfigError: there are none.
    """
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    if found is None:
        raise ConfigError("PostgreSQL's server is not installed; infra/test-services.sh installs it on Debian")
    return Path(found).resolve().parent


def server_user() -> str | None:
    """The user that runs the server, which refuses to run as root; none means the caller."""
    if os.geteuid() != 0:
        return None
    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"

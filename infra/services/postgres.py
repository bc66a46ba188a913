"""PostgreSQL on loopback: one administrator, one role that owns the databases of MLflow, passwords only."""

from __future__ import annotations

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

from infra.services.daemon import Daemon, Launcher, call, foreign
from samif.errors import SamifError

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
        durable: False gives up safety against a power cut, for tests.
    """

    folder: Path
    port: int
    administrator_password: str
    role_password: str
    durable: bool = True

    def url(self, database: str = "mlflow", administrator: bool = False) -> str:
        """`postgresql://` with user and password: for an environment or a file, never for a command line."""
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
    def is_made(self) -> bool:
        return (self.folder / "db" / "PG_VERSION").exists()

    def make(self) -> None:
        """Make the data folder. A crash leaves none, or a whole one.

        Raises:
            SamifError: PostgreSQL is not installed, or its user cannot reach the folder.
        """
        programs, user = installed(), server_user()
        self.folder.mkdir(parents=True, exist_ok=True)
        part, secret = self.folder / "db.part", self.folder / "password"
        shutil.rmtree(part, ignore_errors=True)
        secret.write_text(self.administrator_password + "\n", encoding="utf-8")
        secret.chmod(0o600)
        if user is not None:
            for path in (self.folder, secret):
                shutil.chown(path, user)
            if subprocess.run(["test", "-x", self.folder], user=user).returncode != 0:
                raise SamifError(
                    f"PostgreSQL does not run as root, and user '{user}' may not enter {self.folder}: run this as "
                    "another user, or keep the services in a folder that everybody may pass (SERVICES_DIR=/some/where)"
                )
        try:
            command: list[str | Path] = [programs / "initdb", "--pgdata", part, "--username", ADMINISTRATOR]
            command += ["--pwfile", secret, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale"]
            call(
                "making the database",
                command + ([] if self.durable else ["--no-sync"]),
                foreign("PG"),
                self.folder,
                user,
            )
            part.rename(self.folder / "db")
        finally:
            secret.unlink(missing_ok=True)

    def start(self, launcher: Launcher) -> Daemon:
        """Start the server; `settle` waits for it."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "log_statement": "none",
            "log_min_error_statement": "panic",  # a statement may hold what nobody should read
            "fsync": "on" if self.durable else "off",
        }
        options = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        self._drop_lock_of_a_zombie()
        command: list[str | Path] = [installed() / "postgres", "-D", self.folder / "db", *options]
        return launcher.start("postgres", command, foreign("PG"), self.folder, server_user())

    def settle(self, launcher: Launcher, daemon: Daemon) -> None:
        """Wait until the server answers, then see to it that role and databases are there."""
        launcher.wait(daemon, f"127.0.0.1:{self.port}", self.probe)
        with psycopg.connect(self.url("postgres", administrator=True), autocommit=True) as connection:
            set_password(connection, ROLE, self.role_password)
            have = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
            for name in sorted(set(DATABASES) - have):
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(ROLE))
                )

    def probe(self) -> None:
        """Raise OSError unless the server lets the administrator in."""
        try:
            psycopg.connect(self.url("postgres", administrator=True), connect_timeout=2).close()
        except psycopg.Error as error:
            raise OSError(str(error)) from None

    @staticmethod
    def stop(daemon: Daemon) -> None:
        """Fast shutdown: open sessions are broken off, everything committed is kept."""
        daemon.stop(signal.SIGINT)

    def _drop_lock_of_a_zombie(self) -> None:
        """Where nobody waits for orphans, as in a container without an init, a killed server stays as a zombie, and
        the next one takes it for running. It is not once nothing is attached to its shared memory."""
        lock = self.folder / "db" / "postmaster.pid"
        try:
            lines = lock.read_text(encoding="utf-8").splitlines()
            if psutil.Process(int(lines[0])).status() != psutil.STATUS_ZOMBIE:
                return
            segment = lines[6].split()[1]
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            return  # PostgreSQL itself judges best
        for _ in range(100):  # its own processes see that it is gone, and end
            rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()]
            if not any(row[1] == segment and row[6] != "0" for row in rows):
                lock.unlink()
                return
            time.sleep(0.1)


def set_password(connection: psycopg.Connection, role: str, password: str) -> None:
    """Make the role where it is missing; the server is told a verifier, never the password."""
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    verb = sql.SQL("ALTER" if known else "CREATE")
    connection.execute(
        sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, sql.Identifier(role), sql.Literal(verifier))
    )


def installed() -> Path:
    """Folder of PostgreSQL's server programs, the newest of those installed.

    Raises:
        SamifError: there is none.
    """
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    if found is None:
        raise SamifError("PostgreSQL's server is not installed; infra/test-services.sh installs it on Debian")
    return Path(found).resolve().parent


def server_user() -> str | None:
    """Whom the server runs as: it refuses to be root. None means the caller."""
    if os.geteuid() != 0:
        return None
    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"

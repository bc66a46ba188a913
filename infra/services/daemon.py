"""A server process: started with its secrets in the environment, found again by its identity, ended with its children.

Every process has a tag in its environment, which the processes that it starts inherit. Only processes with the tag are
signalled.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flows.runtime.process import ProcessIdentity, identity_of
from samif.errors import ServiceUnavailable

TAG_VARIABLE = "SAMIF_SERVICE"
"""The environment variable whose value is STACK/NAME."""

START_SECONDS = 120.0
STOP_SECONDS = 15.0
_PAUSE = 0.2


@dataclass(frozen=True)
class Daemon:
    """A server process, perhaps started by an earlier command; `process` is none then."""

    name: str
    tag: str
    identity: ProcessIdentity
    process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether the process exists; it may not answer yet."""
        if self.process is not None:
            self.process.poll()  # reaps a child that has ended
        return self.identity.host == socket.gethostname() and not self.identity.is_gone

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
        """Signal the process, wait for `seconds`, then kill it and all processes with its tag."""
        if self.runs:
            with suppress(ProcessLookupError):
                os.kill(self.identity.pid, how)
            deadline = time.monotonic() + seconds
            while self.runs and time.monotonic() < deadline:
                time.sleep(_PAUSE / 4)
            if self.runs:
                with suppress(ProcessLookupError):
                    os.kill(self.identity.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        kill_tagged(self.tag)


@dataclass(frozen=True)
class Launcher:
    """Starts the daemons of one stack.

    Attributes:
        stack: makes the tags of this stack unlike those of any other.
        logs: folder of the log files, which only their owner may read.
        die_with_starter: the processes end when the thread that started them does, however it ends: for tests.
        started: called with each daemon as soon as it runs, to be remembered.
    """

    stack: str
    logs: Path
    die_with_starter: bool = False
    started: Callable[[Daemon], None] = field(default=lambda _: None)

    def log(self, name: str) -> Path:
        """The file that takes what daemon `name` prints."""
        return self.logs / f"{name}.log"

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        folder: Path,
        user: str | None = None,
    ) -> Daemon:
        """Start a daemon in `folder`; secrets belong into `environment`, never into `command`.

        Args:
            user: whom to run it as, where that is not the caller.

        Raises:
            ServiceUnavailable: the program cannot be started.
        """
        tag = f"{self.stack}/{name}"
        # A daemon that is not root's keeps no link to its starter: the kernel drops it with the change of user.
        tied = ("setpriv", "--pdeathsig", "KILL") if self.die_with_starter and user is None else ()
        words = [*tied, *map(str, command)]
        descriptor = os.open(self.log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                words,
                cwd=folder,
                env={**environment, TAG_VARIABLE: tag},
                user=user,
                umask=0o077,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceUnavailable(f"{name} cannot be started: {words[0]}: {error.strerror}") from None
        finally:
            os.close(descriptor)
        daemon = Daemon(name, tag, identity_of(process.pid), process)
        self.started(daemon)
        return daemon

    def wait(self, daemon: Daemon, url: str, probe: Callable[[], object], seconds: float = START_SECONDS) -> None:
        """Return as soon as `probe` raises no OSError.

        Raises:
            ServiceUnavailable: the daemon ended, or has not answered in time; the message names its log.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                probe()
                return
            except OSError as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if not daemon.runs:
                raise ServiceUnavailable(f"{daemon.name} ended while starting ({self._last_line(daemon.name)})")
            if time.monotonic() > deadline:
                log = self.log(daemon.name)
                raise ServiceUnavailable(
                    f"{daemon.name} has not answered at {url} for {seconds:.0f} s ({reason}); see {log}"
                )
            time.sleep(_PAUSE)

    def _last_line(self, name: str) -> str:
        lines = self.log(name).read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        return f"{last[:200]}; see {self.log(name)}"


def kill_tagged(tag: str) -> None:
    """Kill every process with `tag` in its environment, or with a tag that begins with it and a slash.

    Raises:
        ServiceUnavailable: a process does not end.
    """
    for _ in range(100):  # one may start another meanwhile
        found = find_tagged(tag)
        if not found:
            return
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=1.0)
    raise ServiceUnavailable(f"processes {', '.join(str(item.pid) for item in found)} do not end; end them by hand")


def find_tagged(tag: str) -> list[psutil.Process]:
    """Every process with `tag` in its environment, or with a tag that begins with it and a slash."""
    exact, below = f"{TAG_VARIABLE}={tag}\0".encode(), f"{TAG_VARIABLE}={tag}/".encode()
    found = []
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes() + b"\0"
            if (exact in environment or below in environment) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.NoSuchProcess):
            continue  # it has ended, or belongs to another user
    return found


def environment_without(*prefixes: str) -> dict[str, str]:
    """This process's environment without the variables that begin so, which may name other servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def call(
    what: str,
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    folder: Path,
    user: str | None = None,
    seconds: float = START_SECONDS,
) -> str:
    """Run a command and return its output. `what` names the step in the message of a failure.

    Raises:
        ServiceUnavailable: it cannot be started, fails, or does not end in time.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env=dict(environment),
            user=user,
            umask=0o077,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except OSError as error:
        raise ServiceUnavailable(f"{what}: {words[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ServiceUnavailable(f"{what}: {words[0]} has not ended within {seconds:.0f} s") from None
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ServiceUnavailable(
            f"{what}: {words[0]} failed: {lines[-1][:300] if lines else f'exit code {done.returncode}'}"
        )
    return done.stdout

"""A server process: started with its secrets in the environment, found again by its identity, ended with its children.

Every process carries a stamp in its environment, and so do the processes that it starts. What bears the stamp is ours;
nothing else is ever signalled.
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
from samif.errors import SamifError

STAMP = "SAMIF_SERVICE"
"""Names the environment variable whose value is STACK/NAME."""

START_SECONDS = 120.0
STOP_SECONDS = 15.0
_PAUSE = 0.2


@dataclass(frozen=True)
class Daemon:
    """A started process, perhaps by an earlier command; `process` is known to the one that started it."""

    name: str
    stamp: str
    identity: ProcessIdentity
    process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether the process itself is there; it may not answer yet."""
        if self.process is not None:
            self.process.poll()  # a child that has ended is a zombie until somebody looks
        return self.identity.host == socket.gethostname() and not self.identity.is_gone

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
        """Signal the process, give it time, then kill it and whatever else bears its stamp."""
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
        kill_stamped(self.stamp)


@dataclass(frozen=True)
class Launcher:
    """Starts the daemons of one stack.

    Attributes:
        stack: makes the stamps of this stack unlike those of any other.
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
            SamifError: the program cannot be started.
        """
        stamp = f"{self.stack}/{name}"
        # A daemon that is not root's keeps no link to its starter: the kernel drops it with the change of user.
        tied = ("setpriv", "--pdeathsig", "KILL") if self.die_with_starter and user is None else ()
        words = [*tied, *map(str, command)]
        descriptor = os.open(self.log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                words,
                cwd=folder,
                env={**environment, STAMP: stamp},
                user=user,
                umask=0o077,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise SamifError(f"{name} cannot be started: {words[0]}: {error.strerror}") from None
        finally:
            os.close(descriptor)
        daemon = Daemon(name, stamp, identity_of(process.pid), process)
        self.started(daemon)
        return daemon

    def wait(self, daemon: Daemon, url: str, probe: Callable[[], object], seconds: float = START_SECONDS) -> None:
        """Return when `probe` raises no OSError any more.

        Raises:
            SamifError: the daemon ended, or has not answered in time; with its last words and its log.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                probe()
                return
            except OSError as error:
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
            if not daemon.runs:
                raise SamifError(f"{daemon.name} ended while it started ({self._last_words(daemon.name)})")
            if time.monotonic() > deadline:
                log = self.log(daemon.name)
                raise SamifError(f"{daemon.name} has not answered at {url} for {seconds:.0f} s ({said}); see {log}")
            time.sleep(_PAUSE)

    def _last_words(self, name: str) -> str:
        lines = self.log(name).read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{said[:200]}; the rest is in {self.log(name)}"


def kill_stamped(stamp: str) -> None:
    """Kill every process whose environment bears `stamp`, or a stamp that begins with it and a slash."""
    for _ in range(100):  # one may start another while we look
        found = stamped(stamp)
        if not found:
            return
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=1.0)
    raise SamifError(f"processes {', '.join(str(item.pid) for item in found)} cannot be ended; end them by hand")


def stamped(stamp: str) -> list[psutil.Process]:
    """Every living process whose environment bears `stamp`, or a stamp that begins with it and a slash."""
    exact, below = f"{STAMP}={stamp}\0".encode(), f"{STAMP}={stamp}/".encode()
    found = []
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes() + b"\0"
            if (exact in environment or below in environment) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


def foreign(*prefixes: str) -> dict[str, str]:
    """This process's environment but for the variables that begin so: they would lead to other servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def call(
    what: str,
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    folder: Path,
    user: str | None = None,
    seconds: float = START_SECONDS,
) -> str:
    """Run a command to its end; what it printed. `what` names the step in the sentence where it fails.

    Raises:
        SamifError: it cannot be started, fails, or does not end in time.
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
        raise SamifError(f"{what}: {words[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SamifError(f"{what}: {words[0]} has not ended for {seconds:.0f} s") from None
    if done.returncode != 0:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise SamifError(f"{what}: {words[0]} failed: {said[-1][:300] if said else f'exit code {done.returncode}'}")
    return done.stdout

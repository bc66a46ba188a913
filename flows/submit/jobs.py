"""Jobs of a Ray cluster through its REST interface: start a job once, follow its log, turn failures into one sentence.

The token comes from RAY_AUTH_TOKEN, from the file that RAY_AUTH_TOKEN_PATH names, or from ~/.ray/auth_token, and is
sent in the request's header only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.runtime.ray_cluster import set_ray_environment
from flows.runtime.retry import Transient
from samif.errors import ConfigError, ServiceUnavailable
from samif.io.address import has_credentials, shown

logger = logging.getLogger(__name__)

_HTTP_SECONDS = (10.0, 120.0)  # to connect, between two bytes
_QUIET_SECONDS = 10.0  # without a line of log, the job's state is asked for
_PAUSE_SECONDS = 1.0


class HeadLostError(Exception):
    """The head has not answered for as long as was allowed, or no longer knows the job."""


class ClusterRefusalError(ServiceUnavailable):
    """The head answers, and refuses what was asked."""


@dataclass(frozen=True)
class JobState:
    """State of a job.

    Attributes:
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: Ray's.
        ended: Unix seconds; none while it has not ended.
    """

    status: str
    message: str
    ended: float | None

    @property
    def has_ended(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def succeeded(self) -> bool:
        return self.status == "SUCCEEDED"


class Jobs:
    """The jobs of one cluster.

    Args:
        address: http(s)://HOST:PORT of the head's dashboard.

    Raises:
        ConfigError: it is another kind of address.
        ServiceUnavailable: nothing answers there, or the token is refused.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or has_credentials(address):
            raise ConfigError(f"--address: expected http://HEAD:8265 without a password in it, got '{shown(address)}'")
        self.address = address.rstrip("/")
        set_ray_environment(self.address)
        from ray.job_submission import JobSubmissionClient

        for name in ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging"):
            logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)  # they log every upload and connection

        class Client(JobSubmissionClient):
            """Ray's client with time limits: its own requests have none."""

            def _do_request(self, *words: Any, **options: Any) -> Any:
                return super()._do_request(*words, timeout=_HTTP_SECONDS, **options)

        try:
            with self._explained():
                self._client = Client(self.address)
        except Transient as error:
            raise ServiceUnavailable(
                f"no Ray cluster answers at {self.address} ({error}); start it or correct --address"
            ) from None

    def start(self, name: str, command: str, folder: Path, wheel: Path, metadata: dict[str, str]) -> bool:
        """Start a job, unless there is one of this name already; True where it was started.

        Args:
            folder: its working directory.
            wheel: installed for the job and its workers.

        Raises:
            ClusterRefusalError: the cluster refuses it.
            Transient: the head does not answer.
        """
        if self.find(name) is not None:
            return False
        try:
            with self._explained():
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=name,
                    runtime_env={"working_dir": str(folder), "py_modules": [str(wheel)]},
                    metadata=metadata,
                )
        except ClusterRefusalError:
            if self.find(name) is not None:  # another submit has started it meanwhile
                return False
            raise
        return True

    def find(self, name: str) -> JobState | None:
        """The state of a job; None where the cluster knows none of this name.

        Raises:
            Transient: the head does not answer.
        """
        with self._explained():
            try:
                info = self._client.get_job_info(name)
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise
        return JobState(str(info.status.value), info.message or "", info.end_time / 1000 if info.end_time else None)

    def stop(self, name: str) -> None:
        """Ask the cluster to stop a job; it may take some seconds.

        Raises:
            ClusterRefusalError: the cluster refuses it.
            Transient: the head does not answer.
        """
        with self._explained():
            self._client.stop_job(name)

    def follow(self, name: str, write: Callable[[str], None], patience: float) -> JobState:
        """Pass a job's log on piece by piece until it has ended.

        Args:
            patience: seconds for which the head may give no sign: no piece of the log, and no answer to a request.

        Returns:
            The final state.

        Raises:
            HeadLostError: it gave none for longer, or came back without the job.
        """
        log = _Log(write)
        while True:
            try:
                asyncio.run(self._tail(name, log))
                state = self.find(name)
                log.alive()
                if state is None:
                    raise HeadLostError("it came back and no longer knows the job")
                if state.has_ended:
                    self._write_whole(name, log)
                    return state
            except Transient as error:
                logger.info("job %s: %s", name, error)
                if time.monotonic() - log.heard > patience:
                    raise HeadLostError(f"it has not answered for {patience:.0f} s: {error}") from None
            time.sleep(_PAUSE_SECONDS)

    def _write_whole(self, name: str, log: _Log) -> None:
        """What streaming has left out of the log of a job that has ended."""
        try:
            with self._explained():
                log.whole(self._client.get_job_logs(name))
        except ClusterRefusalError as error:
            logger.warning("the end of the log of job %s was not fetched: %s", name, error)

    async def _tail(self, name: str, log: _Log) -> None:
        """Follow the log until the server ends it, or the job has ended without its saying so."""
        pieces = self._client.tail_job_logs(name)
        log.rewind()
        with self._explained():
            while True:
                piece = asyncio.ensure_future(anext(pieces, None))
                while not (await asyncio.wait({piece}, timeout=_QUIET_SECONDS))[0]:
                    try:
                        state = await asyncio.to_thread(self.find, name)
                    except BaseException:
                        piece.cancel()
                        raise
                    log.alive()
                    if state is None or state.has_ended:
                        piece.cancel()
                        return
                text = piece.result()
                if text is None:
                    return
                log.add(text)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of Ray's client inside become Transient, ServiceUnavailable or ClusterRefusalError."""
        import aiohttp
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError:
            raise ServiceUnavailable(
                f"the cluster at {self.address} refuses the token; set RAY_AUTH_TOKEN to the cluster's, or "
                "RAY_AUTH_TOKEN_PATH to a file that holds it"
            ) from None
        except aiohttp.WSServerHandshakeError as error:
            # The log of a job that has not begun, or of a head that has just come back.
            raise Transient(f"the server answers {error.status}") from None
        except (OSError, requests.RequestException, aiohttp.ClientError) as error:
            raise Transient(type(error).__name__) from None
        except (RuntimeError, ValueError) as error:
            if "WebSocket" in str(error):
                raise Transient("the connection broke off") from None
            text = " ".join(str(error).split())
            raise ClusterRefusalError(f"the cluster at {self.address} refuses: {text[:300]}") from None


class _Log:
    """Passes on the new part of a log that is sent from its beginning by each connection.

    Attributes:
        heard: monotonic seconds of the head's last sign of life.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._written, self._at = write, 0, 0
        self.heard = time.monotonic()

    def alive(self) -> None:
        self.heard = time.monotonic()

    def rewind(self) -> None:
        self._at = 0

    def add(self, piece: str) -> None:
        self.alive()
        new = piece[max(0, self._written - self._at) :]
        self._at += len(piece)
        self._written = max(self._written, self._at)
        if new:
            self._write(new)

    def whole(self, text: str) -> None:
        self.rewind()
        self.add(text)

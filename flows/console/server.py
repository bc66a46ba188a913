"""Serve the console on this machine until it is told to end."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from flows.console.accounts import Account, Accounts, read_accounts
from flows.console.state import Console
from flows.http.auth import digest_of, is_loopback
from flows.http.listening import listening, origin_of, server_options
from flows.runtime.locks import held
from samif.errors import ConfigError
from samif.io import files


@dataclass(frozen=True)
class Address:
    """Where the console listens; `certificate` and `key` are TLS files, both or neither."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("TLS needs a certificate and its key; give --tls-certificate and --tls-key together")
        for path in (self.certificate, self.key):
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigError(f"the TLS file {path} cannot be read; name another")

    @property
    def scheme(self) -> str:
        return "http" if self.certificate is None else "https"


def serve(console: Console, address: Address, accounts_file: Path | None, who: str, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Runs that the console started are cancelled then.

    Args:
        accounts_file: see `read_accounts`; without one there is one person, `who`, who may do everything.
        say: called with one sentence at a time.

    Raises:
        ConfigError: the port is taken, a file cannot be read, or tokens would travel unencrypted.
    """
    if not is_loopback(address.host) and address.certificate is None:
        raise ConfigError(
            f"{address.host} can be reached from other machines, to which tokens must not travel unencrypted; give "
            "--tls-certificate and --tls-key, or listen on 127.0.0.1 behind a proxy that has them"
        )
    state = console.places[0].state
    with (
        listening(address.host, address.port) as listener,
        _accounts(accounts_file, who, state / f"{listener.getsockname()[1]}.token") as (accounts, token),
    ):
        from flows.console.app import build_app  # here: it loads torch, which a refusal need not wait for

        app = build_app(console, accounts)
        origin = origin_of(address.scheme, address.host, listener)
        say(f"console at {origin}/{f'#token={token}' if token else ''}; Ctrl-C ends it")
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again once it has shut down
        config = uvicorn.Config(
            app, ssl_certfile=address.certificate, ssl_keyfile=address.key, timeout_graceful_shutdown=3,
            **server_options(),
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        say("ending")
        for place in console.places:
            place.runs.end()


@contextlib.contextmanager
def _accounts(file: Path | None, who: str, made: Path) -> Iterator[tuple[Accounts, str | None]]:
    """The persons, and the token that was made where no file names any; it lies in `made` meanwhile."""
    if file is not None:
        yield read_accounts(file), None
        return
    token = secrets.token_urlsafe(32)
    busy = ConfigError(f"another console keeps its token in {made}; choose another --port, or end it")
    with held(made.with_suffix(".lock"), busy):
        with files.written(made) as draft:
            draft.touch(0o600)
            draft.write_text(token + "\n")
        try:
            yield Accounts([Account(who, "approver", digest_of(token))]), token
        finally:
            made.unlink(missing_ok=True)

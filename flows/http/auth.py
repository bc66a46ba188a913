"""The bearer token: made, kept in a file that only its owner reads, compared without telling how much was right."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.runtime.locks import held
from samif.errors import ConfigError

VARIABLE = "SAMIF_SERVE_TOKEN"
LEAST = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_token(file: Path | None, made: Path, host: str, wanted: bool) -> tuple[str | None, Path | None]:
    """The token of a service, and the file where it was newly written, if it was.

    Args:
        file: holds the token; otherwise the variable SAMIF_SERVE_TOKEN does; otherwise one is made.
        made: where a made one goes, readable by its owner only.
        wanted: false means no token.

    Raises:
        ConfigError: no token was wanted beyond loopback, or the one given is unreadable or too short.
    """
    if not wanted:
        if not is_loopback(host):
            raise ConfigError(f"{host} can be reached from other machines, so a token is needed; leave out --no-token")
        return None, None
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the token file {file} cannot be read ({error}); name another") from None
        return check_token(token, str(file)), None
    if VARIABLE in os.environ:
        return check_token(os.environ[VARIABLE].strip(), VARIABLE), None
    token = secrets.token_urlsafe(32)
    made.parent.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(token + "\n")
    return token, made


@contextmanager
def bearer_token(file: Path | None, made: Path, host: str, wanted: bool) -> Iterator[tuple[str | None, Path | None]]:
    """`find_token` for the length of the block: then a file that was written is gone, and until then no other service
    writes it.

    Raises:
        ConfigError: also where another service keeps its token in `made`.
    """
    if not wanted or file is not None or VARIABLE in os.environ:
        yield find_token(file, made, host, wanted)
        return
    busy = ConfigError(f"another service keeps its token in {made}; choose another --port, or end it")
    with held(made.with_suffix(".lock"), busy):
        try:
            yield find_token(file, made, host, wanted)
        finally:
            made.unlink(missing_ok=True)


def digest_of(token: str) -> str:
    """SHA-256 of a token: all that replicas know of it."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def matches(given: str | None, expected: str | None) -> bool:
    """Whether a token is the one with this digest; without a digest every request passes. The comparison takes the same
    time for every wrong token."""
    return expected is None or (given is not None and hmac.compare_digest(digest_of(given), expected))


def check_token(token: str, where: str) -> str:
    """The token, if it is LEAST or more plain characters.

    Args:
        where: what holds it, for the message, which does not quote it.

    Raises:
        ConfigError: it is not.
    """
    if len(token) < LEAST or not token.isprintable() or not token.isascii() or " " in token:
        raise ConfigError(f"the token in {where} is not {LEAST} or more plain characters; make a longer one")
    return token

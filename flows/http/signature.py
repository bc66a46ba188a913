"""Signed webhooks in both directions, by the Standard Webhooks specification (package `standardwebhooks`).

Headers: `webhook-id`, `webhook-timestamp` (Unix seconds) and `webhook-signature`: `v1,` and the base64 of HMAC-SHA256
over `ID.TIMESTAMP.BODY`. A secret is `whsec_` followed by the base64 of the key. MLflow signs its own webhooks in the
same way under other header names, with the text of the secret as the key; `check` accepts these too.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from standardwebhooks import Webhook, WebhookVerificationError

from flows.http.errors import HttpError
from samif.errors import ConfigError

VARIABLE = "SAMIF_WEBHOOK_SECRET"
PREFIX = "whsec_"
MIN_KEY_BYTES = 24
TOLERANCE_SECONDS = 300.0
"""How far the sender's clock may differ from ours; a constant of `standardwebhooks`."""
HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
MLFLOW_HEADERS = ("x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature")
_MAX_ID_LENGTH = 200


@dataclass(frozen=True)
class Delivery:
    """A delivery whose signature is valid; `at` in Unix seconds, as the sender says."""

    id: str
    at: int


def signed_headers(secret: str, delivery: str, body: bytes, at: float | None = None) -> dict[str, str]:
    """The three headers that sign `body`, a text in UTF-8.

    Args:
        secret: as `check_secret` accepts it.
        delivery: id of the delivery; the same for every attempt to send it.
        at: Unix seconds; now where not given.
    """
    time = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    signature = Webhook(secret).sign(delivery, time, body.decode())
    return dict(zip(HEADERS, (delivery, str(int(time.timestamp())), signature), strict=True))


def check(headers: Mapping[str, str], body: bytes, secret: str) -> Delivery:
    """Check a delivery.

    Args:
        headers: of the request, as Starlette gives them (names in any case).

    Raises:
        HttpError: 401; a header is missing or malformed, the signature is wrong, or the time is more than
            TOLERANCE_SECONDS off.
    """
    by_mlflow = MLFLOW_HEADERS[-1] in headers
    names = MLFLOW_HEADERS if by_mlflow else HEADERS
    given = {standard: headers.get(name, "") for standard, name in zip(HEADERS, names, strict=True)}
    missing = [name for name, value in zip(names, given.values(), strict=True) if not value]
    if missing:
        raise _refused(
            "unsigned", f"the request is not signed ({', '.join(missing)} missing); give its sender a secret"
        )
    if len(given["webhook-id"]) > _MAX_ID_LENGTH:
        raise _refused("headers", f"the id is longer than {_MAX_ID_LENGTH} characters; send a shorter one")
    try:
        Webhook(secret.encode() if by_mlflow else secret).verify(body, given, json_parse=False)
    except WebhookVerificationError as error:
        raise _refused(
            "signature", f"the signature is not accepted: {error}; check the secret and the clock of the sender"
        ) from None
    except ValueError:
        raise _refused("headers", "time or signature is malformed; see the Standard Webhooks specification") from None
    return Delivery(given["webhook-id"], int(float(given["webhook-timestamp"])))


def replayed() -> HttpError:
    """The refusal of a delivery that was received before."""
    return _refused("replayed", "this delivery was received before; sign another one")


def find_secret(file: Path | None) -> str:
    """The shared secret, from a file or from SAMIF_WEBHOOK_SECRET.

    Raises:
        ConfigError: there is none, or it is no secret of this specification.
    """
    try:
        text = file.read_text(encoding="utf-8") if file else os.environ.get(VARIABLE, "")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the secret file {file} cannot be read ({error}); name another") from None
    return check_secret(text.strip(), str(file) if file else VARIABLE)


def check_secret(secret: str, where: str) -> str:
    """The secret, if it is `whsec_` and the base64 of a key of 24 bytes or more.

    Args:
        where: what holds it, for the message, which does not quote it.

    Raises:
        ConfigError: it is not.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(PREFIX) or len(key) < MIN_KEY_BYTES:
        raise ConfigError(
            f"{where} holds no webhook secret ({PREFIX} and the base64 of {MIN_KEY_BYTES} or more bytes); make one "
            f'with: echo "{PREFIX}$(openssl rand -base64 32)"'
        )
    return secret


def _refused(code: str, sentence: str) -> HttpError:
    return HttpError(401, code, sentence)

"""Is a delivery signed, fresh and for us? The scheme of MLflow's webhooks, which anybody else can follow, too.

Three headers: `X-MLflow-Delivery-Id`, `X-MLflow-Timestamp` (Unix seconds) and `X-MLflow-Signature`, which is `v1,` and
the base64 of HMAC-SHA256 under the shared secret of `ID.TIMESTAMP.BODY`. Standard Webhooks, which `samif watch` sends,
name the headers otherwise and sign the same.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.http.errors import Refusal
from samif.errors import SamifError

VARIABLE = "SAMIF_WEBHOOK_SECRET"
LEAST = 16
DELIVERY, TIMESTAMP, SIGNATURE = "X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature"
_LONGEST_ID = 200


@dataclass(frozen=True)
class Delivery:
    """A delivery whose signature is right; `at` in Unix seconds, as the sender says."""

    id: str
    at: int


def sign(secret: str | bytes, delivery: str, timestamp: int | str, body: bytes) -> str:
    """The signature of a body, for `X-MLflow-Signature` and for `webhook-signature` of Standard Webhooks alike."""
    key = secret.encode() if isinstance(secret, str) else secret
    content = f"{delivery}.{timestamp}.".encode() + body
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def check(headers: Mapping[str, str], body: bytes, secret: str, now: float, tolerance: float) -> Delivery:
    """Check a delivery.

    Args:
        headers: names in any case, as starlette gives them.
        now: Unix seconds.
        tolerance: seconds by which the sender's time may differ from ours.

    Raises:
        Refusal: 401; a header is missing, the signature is wrong, or the time is too far away.
    """
    given = [headers.get(name, "") for name in (DELIVERY, TIMESTAMP, SIGNATURE)]
    delivery, timestamp, signature = given
    if not all(given):
        missing = [name for name, value in zip((DELIVERY, TIMESTAMP, SIGNATURE), given, strict=True) if not value]
        raise _refusal(
            "unsigned", f"the request is not signed ({', '.join(missing)} missing); give the webhook a secret"
        )
    expected = sign(secret, delivery, timestamp, body)
    if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
        raise _refusal("signature", "the signature is not that of this content; use the receiver's secret")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 12) or len(delivery) > _LONGEST_ID:
        raise _refusal("headers", "time or delivery id is malformed; send Unix seconds and a short id")
    if abs(now - int(timestamp)) > tolerance:
        raise _refusal(
            "old",
            f"the request was signed {now - int(timestamp):.0f} s ago, at most {tolerance:.0f} are allowed; sign it "
            "again, and check the clocks",
        )
    return Delivery(delivery, int(timestamp))


def replayed() -> Refusal:
    """For a delivery that came before."""
    return _refusal("replayed", "this delivery was received before; sign another one to be heard")


def find_secret(file: Path | None) -> str:
    """The shared secret, from a file or from SAMIF_WEBHOOK_SECRET.

    Raises:
        SamifError: there is none, or it is too short.
    """
    try:
        secret = file.read_text(encoding="utf-8").strip() if file else os.environ.get(VARIABLE, "").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SamifError(f"the secret file {file} cannot be read ({error}); name another") from None
    if len(secret) < LEAST:
        where = str(file) if file else VARIABLE
        raise SamifError(f"{where} holds no secret of {LEAST} or more characters; senders and receiver must share one")
    return secret


def _refusal(code: str, sentence: str) -> Refusal:
    return Refusal(401, code, sentence)

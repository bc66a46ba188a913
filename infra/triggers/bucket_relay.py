"""Signs a bucket's notifications, which are not signed, and forwards them to `samif trigger serve`.

Beside a bucket of Ceph or MinIO, on loopback or in their own network:

    export SAMIF_TRIGGER_URL=http://RECEIVER:8091/v1/events SAMIF_WEBHOOK_SECRET=whsec_...
    python bucket_relay.py 127.0.0.1 8092

and http://127.0.0.1:8092 as the push endpoint of the bucket's topic. On AWS the same file is a Lambda function whose
handler is `bucket_relay.handler` and whose trigger is the bucket. It needs Python and no package. Signatures are those
of the Standard Webhooks specification.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MOST_BYTES = 1_000_000
SECONDS = 30


def handler(event: Any, _context: Any = None) -> dict[str, int]:
    """Entry point of AWS Lambda; raises where the receiver refuses, so that AWS tries again."""
    status = forward(json.dumps(event).encode())
    if status >= 300:
        raise RuntimeError(f"the receiver answers {status}")
    return {"statusCode": status}


def forward(body: bytes) -> int:
    """Send one notification on, signed; the receiver's HTTP status."""
    delivery, timestamp = str(uuid.uuid4()), str(int(time.time()))
    content = f"{delivery}.{timestamp}.".encode() + body
    key = base64.b64decode(os.environ["SAMIF_WEBHOOK_SECRET"].removeprefix("whsec_"))
    signature = hmac.new(key, content, hashlib.sha256).digest()
    headers = {
        "Content-Type": "application/json",
        "webhook-id": delivery,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
    request = urllib.request.Request(os.environ["SAMIF_TRIGGER_URL"], body, headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


class Relay(BaseHTTPRequestHandler):
    """One notification a request; answers 502 where the receiver does not take it."""

    timeout = SECONDS

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self._answer(413)
            return
        try:
            status = forward(self.rfile.read(int(length)))
        except OSError:
            status = 502
        self._answer(200 if status < 300 else 502)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: the receiver keeps what it took."""


if __name__ == "__main__":
    with ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Relay) as server:
        server.serve_forever()

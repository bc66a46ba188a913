"""The identity of a configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def digest(*models: BaseModel | Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of parameter models; the identity of a configuration."""
    parts = [m.model_dump(mode="json") if isinstance(m, BaseModel) else m for m in models]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

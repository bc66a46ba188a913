"""Types of the texts that people send."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

Line = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""One line, for journals and listings."""
ClassName = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", strip_whitespace=True)
]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
"""Name of an image within its folder."""

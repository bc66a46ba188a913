"""The one exception that reaches a person.

Every refusal of bad input is a `SamifError` whose text says what is wrong, where, and what to do.
The command line prints that sentence and exits with 1; anything else that escapes is a defect of ours.
"""

from __future__ import annotations


class SamifError(Exception):
    """Bad input or a failed precondition, in one sentence: what, where, what to do."""

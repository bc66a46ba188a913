"""What was found about images and labels, for people who wait for a command."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from flows.runtime.progress import say
from samif.dataset.check import Finding, kinds

_LISTED = 3
"""Findings of one kind that are printed one by one."""


def say_findings(split: str, findings: Iterable[Finding]) -> None:
    """Print how many images and labels are not used as they are, by reason, and what concerns the whole file of a
    split."""
    found = list(findings)
    for kind in kinds(finding for finding in found if finding.loss):
        did = "changed" if kind.loss == "outline" else "left out"
        noun = ("image" if kind.loss == "image" else "label") + ("s" if kind.count > 1 else "")
        say(f"{split}: {did} {kind.count} {noun}, the first is {kind.places[0]}: {kind.what}; {kind.remedy}")
    of_file = [finding for finding in found if finding.image is None and not finding.loss]
    groups = groupby(sorted(of_file, key=lambda finding: finding.kind), key=lambda finding: finding.kind)
    for same in (list(group) for _, group in groups):
        if len(same) <= _LISTED:
            lines: list[object] = [*same]
        else:
            lines = [f"{kind}; 'samif data check' lists them" for kind in kinds(same)]
        for line in lines:
            say(f"{split}: {line}")

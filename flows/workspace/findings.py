"""What was found about images and labels, for people who wait for a command."""

from __future__ import annotations

from collections.abc import Iterable

from flows.runtime.progress import say
from samif.dataset.check import Finding, kinds


def say_findings(split: str, findings: Iterable[Finding]) -> None:
    """Print how many images and labels are not used as they are, by reason, and what concerns the whole file of a
    split."""
    found = list(findings)
    for kind in kinds(finding for finding in found if finding.loss):
        did = "changed" if kind.loss == "outline" else "left out"
        noun = ("image" if kind.loss == "image" else "label") + ("s" if kind.count > 1 else "")
        say(f"{split}: {did} {kind.count} {noun}, the first is {kind.places[0]}: {kind.what}; {kind.remedy}")
    for finding in found:
        if finding.image is None and not finding.loss:
            say(f"{split}: {finding}")

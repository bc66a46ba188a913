"""Who may promote and who may approve: the check that the command line, the HTTP interface and the console share.

Names are those of the journal. The console knows them by their tokens; the command line takes them as given, since who
can write the registry can write any name into it.
"""

from __future__ import annotations

from samif.config.registry import GatesParams
from samif.errors import GateFailed


def check_promoter(gates: GatesParams, who: str, force: bool) -> None:
    """Refuse a request for a promotion by somebody who may not make it.

    Args:
        force: the request overrides gates and approval, which is for those who may approve.

    Raises:
        GateFailed: `who` is not among `gates.promoters`, or not among `gates.approvers` with `force`.
    """
    if gates.promoters and not _among(who, gates.promoters):
        raise GateFailed(f"{who} may not promote (gates.promoters names {', '.join(gates.promoters)}); ask one of them")
    if force and gates.approvers and not _among(who, gates.approvers):
        raise GateFailed(
            f"{who} may not override gates (gates.approvers names {', '.join(gates.approvers)}); ask one of them"
        )


def check_approver(gates: GatesParams, approver: str, who: str, name: str) -> None:
    """Refuse an approval of the version `name`, which `who` asks to promote.

    Raises:
        GateFailed: the approver is not among `gates.approvers`, or is `who` and must be another person.
    """
    if gates.approver == "another" and _same(approver, who):
        raise GateFailed(
            f"{approver} requests the promotion of {name} and may not approve it too (gates.approver); ask another "
            "person"
        )
    if gates.approvers and not _among(approver, gates.approvers):
        raise GateFailed(
            f"{approver} may not approve (gates.approvers names {', '.join(gates.approvers)}); ask one of them"
        )


def may_approve(gates: GatesParams, approver: str, who: str) -> bool:
    """Whether an approval that was given before counts for a request by `who`."""
    try:
        check_approver(gates, approver, who, "")
    except GateFailed:
        return False
    return True


def _among(name: str, names: list[str]) -> bool:
    return any(_same(name, each) for each in names)


def _same(name: str, other: str) -> bool:
    return name.strip().casefold() == other.strip().casefold()

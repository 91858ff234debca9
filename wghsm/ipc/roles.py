"""The processes of a gateway and the socket pairs between them (SEAMS.md "Channels").

Everything that names a process or a channel, in code, logs or status, uses these words.
"""

from enum import StrEnum, unique

__all__ = ["ENDS", "ChannelKind", "Role"]


@unique
class Role(StrEnum):
    """One process of a gateway."""

    SUPERVISOR = "supervisor"
    CUSTODIAN = "custodian"
    HANDSHAKE = "handshake"
    EGRESS = "egress"
    INGRESS = "ingress"
    CONTROL = "control"
    AUDITOR = "auditor"


@unique
class ChannelKind(StrEnum):
    """One kind of socket pair, named after its two ends."""

    SUPERVISOR_CUSTODIAN = "supervisor-custodian"
    SUPERVISOR_HANDSHAKE = "supervisor-handshake"
    SUPERVISOR_EGRESS = "supervisor-egress"
    SUPERVISOR_INGRESS = "supervisor-ingress"
    SUPERVISOR_CONTROL = "supervisor-control"
    SUPERVISOR_AUDITOR = "supervisor-auditor"
    HANDSHAKE_CUSTODIAN = "handshake-custodian"
    HANDSHAKE_EGRESS = "handshake-egress"
    HANDSHAKE_INGRESS = "handshake-ingress"
    INGRESS_EGRESS = "ingress-egress"
    CUSTODIAN_EGRESS = "custodian-egress"
    CUSTODIAN_INGRESS = "custodian-ingress"
    CONTROL_CUSTODIAN = "control-custodian"
    CUSTODIAN_AUDITOR = "custodian-auditor"
    CONTROL_AUDITOR = "control-auditor"


def _ends(kind: ChannelKind) -> tuple[Role, Role]:
    first, second = kind.value.split("-")
    return Role(first), Role(second)


ENDS: dict[ChannelKind, tuple[Role, Role]] = {kind: _ends(kind) for kind in ChannelKind}
"""The two roles at the ends of each channel."""

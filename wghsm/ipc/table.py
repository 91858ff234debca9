"""Who may send what to whom: the one table that every end of every channel is held to.

A message that the table does not list for a channel and direction is fatal for the receiver
(ProtocolError), as in OpenSSH's monitor: a process that was taken over can ask for nothing else.
"""

from . import messages as m
from .roles import ChannelKind, Role

__all__ = ["ACCEPTS", "accepted"]

_TO_CHILD: tuple[type[m.Message], ...] = (m.Start, m.Attach, m.StatsTable, m.Ping, m.Shutdown)
_FROM_CHILD: tuple[type[m.Message], ...] = (m.Ready, m.Pong, m.Fault)
_TO_TUNNEL: tuple[type[m.Message], ...] = (
    *_TO_CHILD,
    m.TunnelPeers,
    m.Routes,
    m.RoutesCommit,
    m.TunDevice,
    m.Mtu,
    m.UdpSockets,
    m.LinkState,
)
_FROM_TUNNEL: tuple[type[m.Message], ...] = (*_FROM_CHILD, m.Applied, m.Prepared)

ACCEPTS: dict[tuple[ChannelKind, Role], tuple[type[m.Message], ...]] = {
    (ChannelKind.SUPERVISOR_CUSTODIAN, Role.CUSTODIAN): (
        *_TO_CHILD,
        m.TokenSettings,
        m.CustodianPeers,
        m.ForgetTimestamps,
    ),
    (ChannelKind.SUPERVISOR_CUSTODIAN, Role.SUPERVISOR): (
        *_FROM_CHILD,
        m.Applied,
        m.Identity,
        m.TokenStatus,
        m.RequestResult,
    ),
    (ChannelKind.SUPERVISOR_HANDSHAKE, Role.HANDSHAKE): (
        *_TO_CHILD,
        m.HandshakePeers,
        m.UdpSockets,
        m.LinkState,
        m.Rekey,
    ),
    (ChannelKind.SUPERVISOR_HANDSHAKE, Role.SUPERVISOR): (*_FROM_CHILD, m.Applied, m.EndpointMoved),
    (ChannelKind.SUPERVISOR_EGRESS, Role.EGRESS): (*_TO_TUNNEL, m.Inbox),
    (ChannelKind.SUPERVISOR_EGRESS, Role.SUPERVISOR): _FROM_TUNNEL,
    (ChannelKind.SUPERVISOR_INGRESS, Role.INGRESS): _TO_TUNNEL,
    (ChannelKind.SUPERVISOR_INGRESS, Role.SUPERVISOR): _FROM_TUNNEL,
    (ChannelKind.SUPERVISOR_CONTROL, Role.CONTROL): (
        *_TO_CHILD,
        m.ControlSettings,
        m.Identity,
        m.DevicePart,
        m.StatusPart,
        m.RequestResult,
        m.ReloadResult,
        m.ConfigPart,
    ),
    (ChannelKind.SUPERVISOR_CONTROL, Role.SUPERVISOR): (
        *_FROM_CHILD,
        m.DeviceGet,
        m.DeviceSet,
        m.StatusGet,
        m.RekeyRequest,
        m.ForgetTimestamps,
        m.StopRequest,
        m.ReloadRequest,
        m.ConfigGet,
    ),
    (ChannelKind.HANDSHAKE_CUSTODIAN, Role.CUSTODIAN): (
        m.AcceptInitiation,
        m.CreateInitiation,
        m.AcceptResponse,
        m.ConfirmSession,
    ),
    (ChannelKind.HANDSHAKE_CUSTODIAN, Role.HANDSHAKE): (
        m.Identity,
        m.InitiationAccepted,
        m.InitiationCreated,
        m.ResponseAccepted,
        m.Refused,
    ),
    (ChannelKind.CUSTODIAN_EGRESS, Role.EGRESS): (m.InstallSend,),
    (ChannelKind.CUSTODIAN_EGRESS, Role.CUSTODIAN): (),
    (ChannelKind.CUSTODIAN_INGRESS, Role.INGRESS): (m.InstallReceive,),
    (ChannelKind.CUSTODIAN_INGRESS, Role.CUSTODIAN): (),
    (ChannelKind.HANDSHAKE_INGRESS, Role.HANDSHAKE): (
        m.Datagram,
        m.Installed,
        m.SessionConfirmed,
        m.DataReceived,
        m.HandshakeWanted,
        m.EndpointMoved,
        m.SessionSnapshot,
    ),
    (ChannelKind.HANDSHAKE_INGRESS, Role.INGRESS): (m.ForgetSessions, m.AwaitSessions, m.Gates),
    (ChannelKind.HANDSHAKE_EGRESS, Role.HANDSHAKE): (m.DataSent, m.HandshakeWanted, m.SessionSnapshot),
    (ChannelKind.HANDSHAKE_EGRESS, Role.EGRESS): (
        m.Activate,
        m.EndpointMoved,
        m.SendKeepalive,
        m.PurgeStaged,
        m.ForgetSessions,
        m.ForgetSource,
        m.AwaitSessions,
    ),
    (ChannelKind.INGRESS_EGRESS, Role.EGRESS): (m.Activate, m.EndpointMoved),
    (ChannelKind.INGRESS_EGRESS, Role.INGRESS): (),
    (ChannelKind.CONTROL_CUSTODIAN, Role.CUSTODIAN): (m.PutPsk, m.DeletePsk),
    (ChannelKind.CONTROL_CUSTODIAN, Role.CONTROL): (m.PskResult,),
    (ChannelKind.SUPERVISOR_AUDITOR, Role.AUDITOR): (*_TO_CHILD, m.AuditSettings, m.AuditEvent),
    (ChannelKind.SUPERVISOR_AUDITOR, Role.SUPERVISOR): (*_FROM_CHILD, m.AuditStatus),
    (ChannelKind.CUSTODIAN_AUDITOR, Role.AUDITOR): (m.AuditEvent, m.CheckpointSigned),
    (ChannelKind.CUSTODIAN_AUDITOR, Role.CUSTODIAN): (m.SignCheckpoint, m.AuditHealth),
    (ChannelKind.CONTROL_AUDITOR, Role.AUDITOR): (m.AuditEvent,),
    (ChannelKind.CONTROL_AUDITOR, Role.CONTROL): (),
}
"""For each channel, what the named end accepts, besides the Hello that comes first."""


def accepted(kind: ChannelKind, receiver: Role) -> tuple[type[m.Message], ...]:
    """Message types that `receiver` accepts on a channel of `kind`; KeyError if it has no end there."""
    return (m.Hello, *ACCEPTS[kind, receiver])

"""The typed messages between the processes of a gateway (SEAMS.md).

Every message is a frozen msgspec struct with a number of its own; `table.py` says who may send which to
whom. Conventions in all of them:

- `peer` is the peer's slot in the statistics table (0..65535), given by the supervisor;
- `session` is the number the custodian gave a keypair (u64, unique over restarts of the custodian);
- `at`, `created`: CLOCK_BOOTTIME in nanoseconds; `*_unix`: wall clock in nanoseconds;
- `request` and `change` are numbers of the sender that come back in the answer;
- addresses are text, keys are raw bytes.

A key travels in two messages only: InstallSend and InstallReceive; a PSK in PutPsk only. Their repr is redacted.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "AcceptInitiation",
    "AcceptResponse",
    "Activate",
    "Applied",
    "Asker",
    "Attach",
    "AuditEvent",
    "AuditHealth",
    "AuditSettings",
    "AuditStatus",
    "AwaitSessions",
    "CheckpointSigned",
    "ConfigGet",
    "ConfigPart",
    "ConfirmSession",
    "ControlSettings",
    "CreateInitiation",
    "CustodianPeer",
    "CustodianPeers",
    "DataReceived",
    "DataSent",
    "Datagram",
    "DeletePsk",
    "DeviceChange",
    "DeviceGet",
    "DevicePart",
    "DeviceSet",
    "DeviceView",
    "Endpoint",
    "EndpointMoved",
    "Fault",
    "ForgetSessions",
    "ForgetSource",
    "ForgetTimestamps",
    "Gate",
    "Gates",
    "HandshakePeer",
    "HandshakePeers",
    "HandshakeWanted",
    "Hello",
    "Identity",
    "InactivePeer",
    "Inbox",
    "InitiationAccepted",
    "InitiationCreated",
    "InstallReceive",
    "InstallSend",
    "Installed",
    "LinkState",
    "Message",
    "Mtu",
    "PeerChange",
    "PeerView",
    "Ping",
    "Pong",
    "Prepared",
    "Problem",
    "ProcessView",
    "PskDerived",
    "PskNone",
    "PskObject",
    "PskResult",
    "PskSource",
    "PskWrapped",
    "PurgeStaged",
    "PutPsk",
    "Ready",
    "Refused",
    "Rekey",
    "RekeyRequest",
    "ReloadRequest",
    "ReloadResult",
    "RequestResult",
    "ResponseAccepted",
    "Route",
    "Routes",
    "RoutesCommit",
    "SendKeepalive",
    "SessionConfirmed",
    "SessionInfo",
    "SessionSnapshot",
    "Shutdown",
    "SignCheckpoint",
    "Start",
    "StatsTable",
    "StatusGet",
    "StatusPart",
    "StopRequest",
    "SyslogServer",
    "TokenSettings",
    "TokenStatus",
    "TunDevice",
    "TunnelPeers",
    "UdpSockets",
]


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of every message and of the records inside them."""


class Endpoint(Message, frozen=True, array_like=True):
    """A UDP address of a peer, and the own address that it was last reached from.

    `host` is an IPv4 or IPv6 address as text, `scope` the interface index of a link-local one (else 0).
    `local` and `interface` are the cached source (sticky socket, PROTOCOL.md section 11); empty and 0 if none.
    """

    host: str
    port: int
    scope: int = 0
    local: str = ""
    interface: int = 0


class Asker(Message, frozen=True, array_like=True):
    """Who is at the other end of a UNIX socket, as the kernel says."""

    uid: int
    gid: int
    pid: int


# Every channel.


class Hello(Message, frozen=True, array_like=True, tag=1):
    """First message in each direction on each channel; another version ends the process."""

    version: int
    role: str


# Supervisor to every child, and back.


class Start(Message, frozen=True, array_like=True, tag=2):
    """Who a child is. `incarnation` counts the children of this gateway, so it never repeats.

    `worker` of `workers`: which pair of the tunnel's it belongs to, 0 for a process that is there once.
    """

    gateway: str
    incarnation: int
    uid: int
    gid: int
    parent: int
    log_level: str = "info"
    worker: int = 0
    workers: int = 1


class Attach(Message, frozen=True, array_like=True, tag=3):
    """One end of a fresh socket pair, as the message's only descriptor; replaces an earlier one of its kind.

    `worker`: whose process is at the other end, where there is one for each worker and the receiver is there once.
    """

    kind: str
    incarnation: int
    worker: int = 0


class StatsTable(Message, frozen=True, array_like=True, tag=4):
    """The statistics memfd, as the message's only descriptor."""

    slots: int


class Shutdown(Message, frozen=True, array_like=True, tag=5):
    """End in good order."""


class Ping(Message, frozen=True, array_like=True, tag=97):
    """Are you there? Answered with Pong, whatever else there is to do."""


class Pong(Message, frozen=True, array_like=True, tag=98):
    """The answer to Ping."""


class Ready(Message, frozen=True, array_like=True, tag=6):
    """The child has dropped its privileges and serves. `engine`: which implementation of its inner loop it runs."""

    engine: str = ""


class Fault(Message, frozen=True, array_like=True, tag=7):
    """Why the child is about to exit with `exit_code` (wghsm.exits), in one line for the operator."""

    exit_code: int
    text: str


class Applied(Message, frozen=True, array_like=True, tag=8):
    """The numbered change is in force here."""

    change: int


# Supervisor to custodian, and back.


class TokenSettings(Message, frozen=True, array_like=True, tag=10):
    """Where the keys are. One descriptor, a terminal, comes with it where `prompt` is true."""

    uri: str
    key: str
    psk_root: str | None
    sessions: int
    cache_static_static: bool
    runtime_psks: bool
    state_directory: str
    prompt: bool = False
    twins: list[str] = []
    """URIs of further tokens with the same key, in order of preference after `uri`."""
    at_start: Literal["wait", "fail"] = "fail"
    """What to do when no token can be opened."""
    psk_wrap_key: str | None = None
    psk_overlap: int = 14 * 86_400
    """Seconds for which the PSK before a new epoch stays usable."""
    previous_key: str | None = None
    """Label of the key before `key`, whose identity is answered as well until the operator retires it."""
    audited: bool = False
    """Whether there is an auditor to tell of each use of a key."""
    audit_key: str | None = None
    """Label of the key that signs checkpoints of the audit log."""
    audit_required: bool = False
    """Whether handshakes are refused while the audit log cannot be written."""


class PskNone(Message, frozen=True, array_like=True, tag=11):
    """No pre-shared key: 32 zero bytes are mixed in."""


class PskDerived(Message, frozen=True, array_like=True, tag=12):
    """Derived in the token from the PSK root, for this epoch (u32)."""

    epoch: int = 0


class PskObject(Message, frozen=True, array_like=True, tag=13):
    """A secret of its own in the token, by label."""

    label: str


class PskWrapped(Message, frozen=True, array_like=True, tag=17):
    """Sealed under a key in the token, as ciphertext: initial vector (12 bytes), PSK, tag (16 bytes); 60 bytes.

    `epoch` is a u32 and part of what is authenticated; `previous` is the one before it, empty if there is none.
    """

    epoch: int
    sealed: bytes
    previous_epoch: int = 0
    previous: bytes = b""


PskSource = PskNone | PskDerived | PskObject | PskWrapped


class CustodianPeer(Message, frozen=True, array_like=True):
    """A peer that the custodian may talk to."""

    peer: int
    public_key: bytes
    psk: PskSource
    migrate_from_none: bool = False


class CustodianPeers(Message, frozen=True, array_like=True, tag=14):
    """Peers to add or change, and slots to forget. Answered with Applied."""

    change: int
    upsert: list[CustodianPeer]
    remove: list[int]


class Identity(Message, frozen=True, array_like=True, tag=15):
    """The gateway's static public key, 32 bytes: custodian to supervisor and handshake, supervisor to control.

    `previous` is that of the identity before it, which is served beside it while peers move; empty if there is none.
    """

    public_key: bytes
    previous: bytes = b""


class TokenStatus(Message, frozen=True, array_like=True, tag=16):
    """The token's state for status and log: ready, or away with the reason."""

    state: Literal["ready", "away"]
    since_unix: int
    detail: str = ""
    accepted: int = 0
    created: int = 0
    refused: int = 0
    token: str = ""
    """Which token is in use, as messages name it; empty while none is."""


# Supervisor to handshake, and back.


class HandshakePeer(Message, frozen=True, array_like=True):
    """A peer as the handshake process knows it. `endpoint` None leaves the known one as it is."""

    peer: int
    public_key: bytes
    endpoint: Endpoint | None
    persistent_keepalive: int


class HandshakePeers(Message, frozen=True, array_like=True, tag=20):
    """Peers to add or change, and slots to forget. Answered with Applied."""

    change: int
    upsert: list[HandshakePeer]
    remove: list[int]


class UdpSockets(Message, frozen=True, array_like=True, tag=21):
    """The gateway's UDP sockets, one descriptor for each of `families` ("4", "6"). Answered with Applied.

    Ingress reads them; egress and handshake only send.
    """

    change: int
    port: int
    families: list[Literal["4", "6"]]


class LinkState(Message, frozen=True, array_like=True, tag=22):
    """The interface went up or down. Timers run, and handshakes are made, only while it is up."""

    up: bool


class Rekey(Message, frozen=True, array_like=True, tag=23):
    """Start a handshake with each of these peers now, as far as REKEY_TIMEOUT lets it."""

    peers: list[int]


# Supervisor to egress and ingress, and back.


class TunnelPeers(Message, frozen=True, array_like=True, tag=30):
    """Slots whose sessions may be installed, and slots to forget with all their sessions. Answered with Applied."""

    change: int
    add: list[int]
    remove: list[int]


class Route(Message, frozen=True, array_like=True):
    """One allowed prefix: `address` is 4 or 16 bytes, `length` in bits; `peer` None removes it."""

    address: bytes
    length: int
    peer: int | None


class Routes(Message, frozen=True, array_like=True, tag=31):
    """Changes to the allowed IPs, in order, prepared but not in force. The `last` part is answered with Prepared."""

    change: int
    routes: list[Route]
    last: bool


class Prepared(Message, frozen=True, array_like=True, tag=32):
    """The numbered change of allowed IPs is ready to be committed."""

    change: int


class RoutesCommit(Message, frozen=True, array_like=True, tag=33):
    """Put the prepared change in force: ingress first, then egress. Answered with Applied."""

    change: int


class TunDevice(Message, frozen=True, array_like=True, tag=34):
    """The TUN device, as the message's only descriptor, and its MTU in bytes.

    `vnet`: reads and writes begin with a virtio_net_hdr (10 bytes), so they may be super-packets of TCP;
    `uso`: of UDP too.
    """

    mtu: int
    vnet: bool = False
    uso: bool = False


class Inbox(Message, frozen=True, array_like=True, tag=36):
    """Where packets for a worker's peers go that another worker's egress has read, as the message's only descriptor.

    The end to read for that worker itself, the end to write for all others: a TUN read each, as it is.
    """

    worker: int


class Mtu(Message, frozen=True, array_like=True, tag=35):
    """The TUN's MTU changed (bytes)."""

    mtu: int


# Handshake to custodian, and back (the handshake-level operations; no DH oracle).


class AcceptInitiation(Message, frozen=True, array_like=True, tag=40):
    """Message 1 of a stranger: prove it, answer it, derive its session (PROTOCOL.md 4.2, 4.3).

    `identity` is the public key (32 bytes) that its mac1 was made for: a hint, which the transcript proves.
    """

    request: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    local_index: int
    remote_index: int
    identity: bytes


class InitiationAccepted(Message, frozen=True, array_like=True, tag=41):
    """The fields of message 2; it may leave once ingress has acknowledged `session`."""

    request: int
    peer: int
    session: int
    ephemeral: bytes
    empty: bytes


class CreateInitiation(Message, frozen=True, array_like=True, tag=42):
    """Make message 1 for a peer (PROTOCOL.md 4.1). Replaces the peer's earlier handle.

    `attempt` counts from 0 the initiations that the peer has left without an answer: the custodian picks the
    identity by it.
    """

    request: int
    peer: int
    local_index: int
    attempt: int


class InitiationCreated(Message, frozen=True, array_like=True, tag=43):
    """The fields of message 1. `handle` stands for the handshake state kept in the custodian.

    `identity` is the own public key (32 bytes) it was made with: the response's mac1 must be for it.
    """

    request: int
    peer: int
    handle: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    identity: bytes


class AcceptResponse(Message, frozen=True, array_like=True, tag=44):
    """Message 2 for a handle (PROTOCOL.md 4.4)."""

    request: int
    handle: int
    ephemeral: bytes
    empty: bytes
    remote_index: int


class ResponseAccepted(Message, frozen=True, array_like=True, tag=45):
    """The session is derived and its keys are on their way to ingress and egress."""

    request: int
    peer: int
    session: int


class Refused(Message, frozen=True, array_like=True, tag=46):
    """No, whatever the cause; the custodian counts causes inside."""

    request: int


class ConfirmSession(Message, frozen=True, array_like=True, tag=47):
    """The peer has sent data on a session that we responded with: so it has the PSK that was mixed into it."""

    session: int
    peer: int


# Custodian to egress and ingress: the only messages that carry session keys.


class InstallSend(Message, frozen=True, array_like=True, tag=50):
    """A send key for egress. Not for sending before Activate has come for its session."""

    session: int
    peer: int
    remote_index: int
    initiator: bool
    created: int
    key: bytes

    def __repr__(self) -> str:
        return f"InstallSend(session={self.session}, peer={self.peer}, key=redacted)"


class InstallReceive(Message, frozen=True, array_like=True, tag=51):
    """A receive key for ingress, which answers to the handshake process with Installed.

    `identity` is the first 8 bytes of the own public key that the session was made with, as a little-endian number.
    """

    session: int
    peer: int
    local_index: int
    initiator: bool
    created: int
    key: bytes
    identity: int

    def __repr__(self) -> str:
        return f"InstallReceive(session={self.session}, peer={self.peer}, key=redacted)"


# Ingress to handshake.


class Datagram(Message, frozen=True, array_like=True, tag=60):
    """A UDP datagram of type 1 to 3, unchecked, with where it came from and when.

    `crowded`: more came of late than are passed on.
    """

    source: Endpoint
    at: int
    data: bytes
    crowded: bool = False


class Installed(Message, frozen=True, array_like=True, tag=61):
    """Ingress receives on this session from now on. `accepted` false: it would not take it."""

    session: int
    accepted: bool = True


class SessionConfirmed(Message, frozen=True, array_like=True, tag=62):
    """First authenticated data on NEXT: the responder's handshake is complete (PROTOCOL.md section 5)."""

    session: int
    peer: int
    at: int


class DataReceived(Message, frozen=True, array_like=True, tag=63):
    """First data (not a keepalive) received since the peer was last sent anything authenticated."""

    peer: int
    at: int


# Egress to handshake.


class DataSent(Message, frozen=True, array_like=True, tag=64):
    """First data (not a keepalive) sent since anything authenticated was last received from the peer."""

    peer: int
    at: int


# Egress and ingress to handshake.


class HandshakeWanted(Message, frozen=True, array_like=True, tag=65):
    """A new handshake is due: no usable session for a staged packet, or the current one is old (PROTOCOL.md 8.4)."""

    peer: int
    reason: Literal["no-session", "rekey-after-time", "rekey-after-messages", "last-minute"]


class SessionInfo(Message, frozen=True, array_like=True):
    """One session in a snapshot, without its key. `index` is the local one from ingress, the remote one from egress.

    `identity` is InstallReceive's, from ingress; 0 from egress.
    """

    session: int
    peer: int
    index: int
    initiator: bool
    created: int
    slot: Literal["previous", "current", "next", "pending"]
    identity: int


class SessionSnapshot(Message, frozen=True, array_like=True, tag=66):
    """What a worker holds, in parts, sent when it is attached to a new handshake process."""

    sessions: list[SessionInfo]
    endpoints: list[EndpointMoved]
    last: bool


# Handshake and ingress to egress.


class Activate(Message, frozen=True, array_like=True, tag=70):
    """Send on this session from now on: staged packets first. `confirm`: a keepalive if nothing is staged."""

    session: int
    peer: int
    confirm: bool = False


class EndpointMoved(Message, frozen=True, array_like=True, tag=71):
    """A peer's endpoint and when it was seen there; the newest wins, wherever it came from."""

    peer: int
    endpoint: Endpoint
    at: int


# Handshake to egress (and ingress where said).


class SendKeepalive(Message, frozen=True, array_like=True, tag=72):
    """Send an empty packet if nothing is staged, else send what is staged."""

    peer: int


class PurgeStaged(Message, frozen=True, array_like=True, tag=73):
    """Drop the peer's staged packets: the handshake was given up."""

    peer: int


class ForgetSessions(Message, frozen=True, array_like=True, tag=74):
    """Destroy the peer's sessions (zero_key_material, rekey from scratch) but those numbered in `keep`.

    To egress and ingress.
    """

    peer: int
    keep: tuple[int, ...] = ()


class ForgetSource(Message, frozen=True, array_like=True, tag=75):
    """Drop the peer's cached source address, keep its endpoint."""

    peer: int


class AwaitSessions(Message, frozen=True, array_like=True, tag=76):
    """Asks a worker for a SessionSnapshot; sent by a handshake process when the worker is attached."""


class Gate(Message, frozen=True, array_like=True):
    """An identity that handshakes may be for, and the secret (32 bytes) of its cookies, good until `until`.

    `until` is CLOCK_BOOTTIME in nanoseconds, 0 while no cookie was given: the secret is empty then.
    """

    identity: bytes
    secret: bytes = b""
    until: int = 0


class Gates(Message, frozen=True, array_like=True, tag=77):
    """All of them, the current identity first; to ingress, which then drops what would not pass."""

    gates: tuple[Gate, ...]


# Control.


class ControlSettings(Message, frozen=True, array_like=True, tag=80):
    """Two listening UNIX sockets come with it: the configuration protocol's (UAPI), then the admin one."""

    runtime_psks: bool
    audited: bool = False


class PeerChange(Message, frozen=True, array_like=True):
    """What a client of the control protocol wants of one peer. None: leave it. Order within: as in the fields."""

    public_key: bytes
    remove: bool = False
    update_only: bool = False
    psk: PskSource | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    replace_allowed_ips: bool = False
    add_allowed_ips: list[str] = []
    remove_allowed_ips: list[str] = []


class DeviceChange(Message, frozen=True, array_like=True):
    """One whole set operation: applied whole or not at all."""

    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: list[PeerChange] = []


class DeviceGet(Message, frozen=True, array_like=True, tag=81):
    """Asks for DevicePart messages."""

    request: int


class PeerView(Message, frozen=True, array_like=True):
    """One peer as wg(8) and status show it. Byte counts include handshakes."""

    name: str
    public_key: bytes
    psk: Literal["none", "derived", "object", "wrapped"]
    endpoint: Endpoint | None
    persistent_keepalive: int
    allowed_ips: list[str]
    last_handshake_unix: int
    rx_bytes: int
    tx_bytes: int
    psk_epoch: int | None = None
    """The file's epoch, where the kind has epochs."""
    psk_confirmed: int | None = None
    """The epoch that the last confirmed session had; -1 for one without a PSK, None if none was seen."""
    identity: bytes = b""
    """The gateway's public key that the peer last made a handshake with; empty if none was seen."""


class DeviceView(Message, frozen=True, array_like=True):
    """The device as wg(8) shows it; `public_key` is None until the custodian has logged in.

    `previous_key` is the public key of the identity that is to be retired, None if there is one identity only.
    `key_label` and `previous_label` are the token's names for the two keys, as the gateway file has them. `mtu_from`
    says who has set the MTU (bytes): the file's number, the ways to the endpoints, or somebody while the gateway runs.
    """

    name: str
    public_key: bytes | None
    listen_port: int
    fwmark: int
    up: bool
    previous_key: bytes | None = None
    key_label: str = ""
    previous_label: str = ""
    mtu: int = 0
    mtu_from: Literal["file", "path", "runtime"] = "file"


class DevicePart(Message, frozen=True, array_like=True, tag=82):
    """A part of the answer to DeviceGet; the first one carries the device."""

    request: int
    device: DeviceView | None
    peers: list[PeerView]
    last: bool


class DeviceSet(Message, frozen=True, array_like=True, tag=83):
    """Apply a change; answered with RequestResult. `check_only`: say whether it could be, and leave all as it is."""

    request: int
    change: DeviceChange
    last: bool = True
    check_only: bool = False
    who: Asker | None = None


class RequestResult(Message, frozen=True, array_like=True, tag=84):
    """`errno` is 0 or a positive errno; `text` one line."""

    request: int
    errno: int
    text: str = ""


class StatusGet(Message, frozen=True, array_like=True, tag=85):
    """Asks for a StatusPart (processes, token); peers come from DeviceGet."""

    request: int


class ProcessView(Message, frozen=True, array_like=True):
    """One child process in status."""

    role: str
    pid: int
    state: Literal["starting", "ready", "waiting"]
    restarts: int
    since_unix: int
    engine: str


class InactivePeer(Message, frozen=True, array_like=True):
    """A peer of the file that is not served. `expires_unix`: when it does, or did, in nanoseconds; 0 for never."""

    name: str
    public_key: bytes
    state: Literal["disabled", "expired"]
    expires_unix: int


class StatusPart(Message, frozen=True, array_like=True, tag=86):
    """The answer to StatusGet. `counters`: drops and events by process, then by reason, those above zero.

    Of very many `inactive` peers each part brings some; all else is in the last one.

    `loaded_unix`: when the file that is in force was read; `reload_refused`: why the last reload was, empty if it was
    not.
    """

    request: int
    started_unix: int
    file: str
    processes: list[ProcessView]
    token: TokenStatus | None
    counters: dict[str, dict[str, int]]
    loaded_unix: int = 0
    reload_refused: str = ""
    audit: AuditStatus | None = None
    inactive: list[InactivePeer] = []
    last: bool = True


class ForgetTimestamps(Message, frozen=True, array_like=True, tag=120):
    """Forget the greatest timestamps received of these peers (public keys), so that a peer whose clock went back may
    come again: control to supervisor, supervisor to custodian. Answered with RequestResult, both ways.
    """

    request: int
    peers: list[bytes]
    who: Asker | None = None


class RekeyRequest(Message, frozen=True, array_like=True, tag=87):
    """Start handshakes with these peers (public keys), or with all; answered with RequestResult."""

    request: int
    peers: list[bytes] | None


class StopRequest(Message, frozen=True, array_like=True, tag=88):
    """End the gateway; answered with RequestResult before it goes."""

    request: int
    who: Asker | None = None


class ReloadRequest(Message, frozen=True, array_like=True, tag=93):
    """Read the gateway's file again and bring it into force; answered with ReloadResult.

    `file` may name the file, to make sure that it is the gateway's own; empty: whatever file that is.
    """

    request: int
    file: str = ""
    who: Asker | None = None


class Problem(Message, frozen=True, array_like=True):
    """One fault of a gateway file, as wghsm.config tells it; line 0 is the file as a whole."""

    file: str
    line: int
    message: str
    remedy: str


class ReloadResult(Message, frozen=True, array_like=True, tag=94):
    """`errno` is 0 or a positive errno, `text` one line; `problems`: what is wrong with the file (the first of them).

    ENOENT: the gateway has another file. EINVAL: the file is bad. ENOTSUP: a change in it needs a restart. EAGAIN: the
    gateway does not serve yet. EIO: it cannot be brought into force, such as token settings that do not work.
    """

    request: int
    errno: int
    text: str
    problems: list[Problem] = []


class ConfigGet(Message, frozen=True, array_like=True, tag=95):
    """Asks for the settings that the gateway has loaded, and those that it runs with, in ConfigPart messages."""

    request: int


class ConfigPart(Message, frozen=True, array_like=True, tag=96):
    """A piece of the answer to ConfigGet: all of them together are JSON, a wghsm.ipc.admin.Config."""

    request: int
    data: bytes
    last: bool


class PutPsk(Message, frozen=True, array_like=True, tag=90):
    """A pre-shared key on its way into the token (authority: runtime only). 32 bytes, written under `label`."""

    request: int
    label: str
    psk: bytes

    def __repr__(self) -> str:
        return f"PutPsk(request={self.request}, label={self.label!r}, psk=redacted)"


class DeletePsk(Message, frozen=True, array_like=True, tag=91):
    """Remove the PSK object that was written under `label`."""

    request: int
    label: str


class PskResult(Message, frozen=True, array_like=True, tag=92):
    """The answer to PutPsk and DeletePsk: 0 or a positive errno."""

    request: int
    errno: int
    text: str = ""


# The audit log: what the auditor is told, and what it asks of the custodian.


class SyslogServer(Message, frozen=True, array_like=True):
    """A syslog server that is spoken to over TLS; `ca`, `certificate` and `key_file` are paths, empty if not set."""

    server: str
    port: int
    ca: str = ""
    certificate: str = ""
    key_file: str = ""


class AuditSettings(Message, frozen=True, array_like=True, tag=100):
    """How the log is kept: supervisor to auditor. Times in seconds, `rotate_size` in bytes.

    `journald` is the path of its socket, empty if the log does not go there; where that is not required, a machine
    without journald is no fault. `signed`: whether checkpoints can be had.
    """

    directory: str
    retention: int
    rotate_size: int
    rotate_age: int
    journald: str = ""
    journald_required: bool = False
    syslog: SyslogServer | None = None
    signed: bool = False


class AuditEvent(Message, frozen=True, array_like=True, tag=101):
    """Something that belongs into the audit log (docs/audit.md has the words): from whoever it happened to.

    `peer` and `key` are public keys of 32 bytes or empty; `token` is its label and serial number. `lost`: how many
    events before this one could not be sent.
    """

    kind: str
    operation: str
    result: str
    at_unix: int
    peer: bytes = b""
    key: bytes = b""
    token: str = ""
    latency_us: int = 0
    who: Asker | None = None
    detail: dict[str, str | int] = {}
    lost: int = 0


class SignCheckpoint(Message, frozen=True, array_like=True, tag=102):
    """Sign that record number `sequence` of the stream `stream` (hex) had the SHA-256 `hash` (hex) at `time`.

    The custodian makes the bytes that are signed from these, so that the key signs nothing but checkpoints. Answered
    with CheckpointSigned.
    """

    request: int
    stream: str
    sequence: int
    hash: str
    time: str


class CheckpointSigned(Message, frozen=True, array_like=True, tag=103):
    """The signature, 64 bytes, with the key's fingerprint and algorithm; empty and `text` why there is none."""

    request: int
    signature: bytes = b""
    key: str = ""
    algorithm: str = ""
    token: str = ""
    text: str = ""


class AuditHealth(Message, frozen=True, array_like=True, tag=104):
    """Whether the log is kept whole now: auditor to custodian, which may have to refuse handshakes."""

    whole: bool


class AuditStatus(Message, frozen=True, array_like=True, tag=105):
    """The state of the audit log, for status: auditor to supervisor.

    `unsealed`: records after the last signed checkpoint, which was at `sealed_unix` (0: none yet). `unwritten`: events
    that could not be written, so far. `sinks`: a word for each, by name.
    """

    state: Literal["ok", "failing"]
    since_unix: int
    detail: str
    directory: str
    records: int
    unsealed: int
    sealed_unix: int
    unwritten: int
    seal_detail: str = ""
    sinks: dict[str, str] = {}

"""Clients, the control process and the supervisor: device, status, reload, pre-shared keys set at run time."""

from __future__ import annotations

from typing import Literal

from ._audit import AuditStatus
from ._base import Asker, Endpoint, Message
from ._token import PskSource, TokenStatus

__all__ = [
    "ConfigGet",
    "ConfigPart",
    "ControlSettings",
    "DeletePsk",
    "DeviceChange",
    "DeviceGet",
    "DevicePart",
    "DeviceSet",
    "DeviceView",
    "ForgetTimestamps",
    "InactivePeer",
    "PeerChange",
    "PeerView",
    "Problem",
    "ProcessView",
    "PskResult",
    "PutPsk",
    "RekeyRequest",
    "ReloadRequest",
    "ReloadResult",
    "RequestResult",
    "StatusGet",
    "StatusPart",
    "StopRequest",
]


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

    `file` may name the file, to make sure that it is the gateway's own; empty: whatever file that is. `login`: log in
    to the token anew, also where nothing tells that its PIN is another one.
    """

    request: int
    file: str = ""
    who: Asker | None = None
    login: bool = False


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

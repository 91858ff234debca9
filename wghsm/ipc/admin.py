"""What the `wghsm` command and a gateway's control process say over the admin socket: JSON lines.

One request on a line, one reply on a line, any number of them on a connection. Callers: wghsm.control answers,
wghsm.cli asks. Public keys are base64, times are Unix seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

__all__ = [
    "AdminReply",
    "AdminRequest",
    "AuditState",
    "Config",
    "PeerStatus",
    "Problem",
    "ProcessStatus",
    "Status",
    "TokenState",
    "admin_socket_path",
]


def admin_socket_path(gateway: str) -> Path:
    """Where the admin socket of the gateway of this name stands."""
    return Path("/run/wghsm") / gateway / "admin.sock"


class AdminRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`peers`: base64 public keys; null means all to rekey. `file`, for reload only: see ReloadRequest."""

    version: Literal[1] = 1
    verb: Literal["status", "rekey", "stop", "reload", "config", "reset-timestamp"]
    peers: list[str] | None = None
    file: str = ""


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the gateway. `engine`: compiled or pure, for those that move packets."""

    role: str
    pid: int
    state: str
    restarts: int
    since: float
    engine: str = ""


class TokenState(msgspec.Struct, frozen=True, kw_only=True):
    """The token as the custodian sees it; counts are since its start. `token` is empty while none is open."""

    state: str
    since: float
    detail: str
    accepted: int
    created: int
    refused: int
    token: str = ""


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One peer. `latest_handshake` is null if there was none.

    `psk_epoch` is the gateway file's, `psk_confirmed` the one that the peer's last confirmed session had: -1 for a
    session without a pre-shared key, null if none was seen. `gateway_key` is the gateway's public key that the peer
    last made a handshake with, null if none was seen.
    """

    name: str
    public_key: str
    preshared_key: str
    endpoint: str | None
    allowed_ips: list[str]
    persistent_keepalive: int
    latest_handshake: float | None
    rx_bytes: int
    tx_bytes: int
    psk_epoch: int | None = None
    psk_confirmed: int | None = None
    gateway_key: str | None = None


class InactivePeer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer of the file that is not served. `state` is disabled or expired; `expires` is null for never."""

    name: str
    public_key: str
    state: str
    expires: float | None


class AuditState(msgspec.Struct, frozen=True, kw_only=True):
    """The audit log. Counts are since its process began; `sealed` is when its last checkpoint was signed, if any was.

    `detail` says why it is failing, `seal_detail` why no checkpoints are made; `sinks` has a word for each.
    """

    state: str
    since: float
    detail: str
    directory: str
    records: int
    unsealed: int
    sealed: float | None
    seal_detail: str
    unwritten: int
    sinks: dict[str, str]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway, whole.

    `previous_key` is served beside `public_key` until it is retired; null where there is none, or where no token has
    been open yet. The labels are the token's. `mtu_from` is file, path (`mtu: auto`), or runtime: set by another hand.
    """

    name: str
    file: str
    public_key: str | None
    listen_port: int
    fwmark: int
    up: bool
    started: float
    token: TokenState | None
    processes: list[ProcessStatus]
    peers: list[PeerStatus]
    counters: dict[str, dict[str, int]]
    mtu: int = 0
    mtu_from: str = "file"
    key_label: str = ""
    previous_key: str | None = None
    previous_key_label: str | None = None
    loaded: float = 0.0
    """When the file in force was read."""
    reload_refused: str = ""
    """Why the last reload was refused; empty if it was not."""
    audit: AuditState | None = None
    """Null where no audit log is kept."""
    inactive: list[InactivePeer] = []
    """Those that are disabled or have expired; `peers` are those that are served."""

    @property
    def still_on_previous(self) -> list[PeerStatus]:
        """The peers whose last handshake was with the previous key."""
        return [peer for peer in self.peers if self.previous_key is not None and peer.gateway_key == self.previous_key]


class Problem(msgspec.Struct, frozen=True):
    """One fault of a gateway file; line 0 is the file as a whole."""

    file: str
    line: int
    message: str
    remedy: str


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway has loaded of its file, and what it runs with, in the shape of the file.

    Where the two differ, something was changed at run time. `wrapped`: epochs and ciphertexts (base64) in the files of
    wrapped pre-shared keys, as they were loaded. `path_mtu`: what `mtu: auto` gives now.
    """

    file: str
    loaded: dict[str, Any]
    running: dict[str, Any]
    wrapped: dict[str, list[tuple[int, str]]]
    path_mtu: int = 0


class AdminReply(msgspec.Struct, frozen=True, kw_only=True):
    """`errno` 0 and what was asked for, or an errno (see ReloadResult) and a line for the operator.

    `problems`: what is wrong with a file that was to be reloaded.
    """

    errno: int = 0
    text: str = ""
    status: Status | None = None
    config: Config | None = None
    problems: list[Problem] = []

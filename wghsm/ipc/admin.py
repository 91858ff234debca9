"""What the `wghsm` command and a gateway's control process say over the admin socket: JSON lines.

One request on a line, one reply on a line, any number of them on a connection. Callers: wghsm.control answers,
wghsm.cli asks. Public keys are base64, times are Unix seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

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
    """`peers`: base64 public keys; null means all to rekey. `file` and `login`, for reload only: see ReloadRequest."""

    version: Literal[1] = 1
    verb: Literal["status", "rekey", "stop", "reload", "config", "reset-timestamp"]
    peers: list[str] | None = None
    file: str = ""
    login: bool = False


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the gateway. `engine`: compiled or pure, for those that move packets."""

    role: Annotated[str, Meta(description="its name, with a number where there are several of a kind")]
    pid: Annotated[int, Meta(description="its process number")]
    state: Annotated[str, Meta(description="starting, ready or waiting")]
    restarts: Annotated[int, Meta(description="how often it was started again")]
    since: Annotated[float, Meta(description="Unix time in seconds at which it came into this state")]
    engine: Annotated[str, Meta(description="compiled or pure, for those that move packets; else empty")] = ""


class TokenState(msgspec.Struct, frozen=True, kw_only=True):
    """The token as the custodian sees it; counts are since its start. `token` is empty while none is open."""

    state: Annotated[str, Meta(description="ready, or away while it cannot be used")]
    since: Annotated[float, Meta(description="Unix time in seconds at which it came into this state")]
    detail: Annotated[str, Meta(description="why, in words, or empty")]
    accepted: Annotated[int, Meta(description="handshakes that made session keys, whoever began them")]
    created: Annotated[int, Meta(description="handshakes that the gateway began")]
    refused: Annotated[int, Meta(description="handshakes that were refused")]
    token: Annotated[str, Meta(description="its name; empty while none is open")] = ""


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One peer. `latest_handshake` is null if there was none.

    `psk_epoch` is the gateway file's, `psk_confirmed` the one that the peer's last confirmed session had: -1 for a
    session without a pre-shared key, null if none was seen. `gateway_key` is the gateway's public key that the peer
    last made a handshake with, null if none was seen.
    """

    name: Annotated[str, Meta(description="its name in the gateway file; empty where it came at run time")]
    public_key: Annotated[str, Meta(description="base64")]
    preshared_key: Annotated[str, Meta(description="as the gateway file says it; never the PSK")]
    endpoint: Annotated[str | None, Meta(description="where it was last heard, else as the file says; null: not known")]
    allowed_ips: Annotated[list[str], Meta(description="its prefixes")]
    persistent_keepalive: Annotated[int, Meta(description="seconds; 0: none")]
    latest_handshake: Annotated[float | None, Meta(description="Unix time in seconds; null: none")]
    rx_bytes: Annotated[int, Meta(description="received from it")]
    tx_bytes: Annotated[int, Meta(description="sent to it")]
    psk_epoch: Annotated[int | None, Meta(description="the gateway file's; null: its kind has none")] = None
    psk_confirmed: Annotated[
        int | None,
        Meta(description="the epoch that its last confirmed session had; -1: none at all; null: none was seen"),
    ] = None
    gateway_key: Annotated[
        str | None, Meta(description="the gateway's public key of its last handshake; null: none was seen")
    ] = None


class InactivePeer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer of the file that is not served."""

    name: Annotated[str, Meta(description="its name in the gateway file")]
    public_key: Annotated[str, Meta(description="base64")]
    state: Annotated[str, Meta(description="disabled or expired")]
    expires: Annotated[float | None, Meta(description="Unix time in seconds; null: never")]


class AuditState(msgspec.Struct, frozen=True, kw_only=True):
    """The audit log. Counts are since its process began; `sealed` is when its last checkpoint was signed, if any was.

    `detail` says why it is failing, `seal_detail` why no checkpoints are made; `sinks` has a word for each.
    """

    state: Annotated[str, Meta(description="ok or failing")]
    since: Annotated[float, Meta(description="Unix time in seconds at which it came into this state")]
    detail: Annotated[str, Meta(description="why it is failing, or empty")]
    directory: Annotated[str, Meta(description="the folder of its files")]
    records: Annotated[int, Meta(description="records written")]
    unsealed: Annotated[int, Meta(description="records since the last checkpoint")]
    sealed: Annotated[float | None, Meta(description="Unix time in seconds of the last checkpoint; null: none")]
    seal_detail: Annotated[str, Meta(description="why no checkpoints are made, or empty")]
    unwritten: Annotated[int, Meta(description="events that could not be written")]
    sinks: Annotated[dict[str, str], Meta(description="where it goes besides, and a word on how that is")]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway, whole.

    `previous_key` is served beside `public_key` until it is retired; null where there is none, or where no token has
    been open yet. The labels are the token's.
    """

    name: Annotated[str, Meta(description="its name")]
    file: Annotated[str, Meta(description="its gateway file")]
    public_key: Annotated[str | None, Meta(description="base64; null: no token has been open yet")]
    listen_port: Annotated[int, Meta(description="its UDP port")]
    fwmark: Annotated[int, Meta(description="mark of the outer packets; 0: none")]
    up: Annotated[bool, Meta(description="whether its interface is up")]
    started: Annotated[float, Meta(description="Unix time in seconds")]
    token: Annotated[TokenState | None, Meta(description="null: none has been open yet")]
    processes: Annotated[list[ProcessStatus], Meta(description="the processes that it is made of")]
    peers: Annotated[list[PeerStatus], Meta(description="all peers that it serves")]
    counters: Annotated[dict[str, dict[str, int]], Meta(description="drops and events, by process and then by reason")]
    mtu: Annotated[int, Meta(description="the interface's, in bytes")] = 0
    mtu_from: Annotated[str, Meta(description="file, path (mtu: auto), or runtime: set by another hand")] = "file"
    key_label: Annotated[str, Meta(description="the key's label in the token")] = ""
    previous_key: Annotated[
        str | None, Meta(description="the public key that is served beside it while the key is rotated; null: none")
    ] = None
    previous_key_label: Annotated[str | None, Meta(description="its label; null: none")] = None
    loaded: Annotated[float, Meta(description="Unix time in seconds at which the file in force was read")] = 0.0
    reload_refused: Annotated[str, Meta(description="why the last reload was refused; empty: it was not")] = ""
    audit: Annotated[AuditState | None, Meta(description="null: no audit log is kept")] = None
    inactive: Annotated[
        list[InactivePeer],
        Meta(description="those that are disabled or have expired; `peers` are those that are served"),
    ] = []

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
    wrapped pre-shared keys, as they were loaded. `path_mtu`: what `mtu: auto` gives now. `login_is_due`: a file of the
    token's PIN has changed since the custodian was started.
    """

    file: str
    loaded: dict[str, Any]
    running: dict[str, Any]
    wrapped: dict[str, list[tuple[int, str]]]
    path_mtu: int = 0
    login_is_due: bool = False


class AdminReply(msgspec.Struct, frozen=True, kw_only=True):
    """`errno` 0 and what was asked for, or an errno (see ReloadResult) and a line for the operator.

    `problems`: what is wrong with a file that was to be reloaded.
    """

    errno: int = 0
    text: str = ""
    status: Status | None = None
    config: Config | None = None
    problems: list[Problem] = []

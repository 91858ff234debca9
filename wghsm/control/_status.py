"""The answer to `wghsm status`: the views of the supervisor in the words of the admin protocol.

Pure; called by `_service`. Keys become base64, and nanoseconds seconds.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from wghsm.ipc import admin

from .uapi import format_endpoint

if TYPE_CHECKING:
    from wghsm.ipc import messages as m

__all__ = ["status"]


def status(device: m.DeviceView, peers: list[m.PeerView], part: m.StatusPart) -> admin.Status:
    """The state of the gateway; a peer whose prefixes came in several parts is one again."""
    return admin.Status(
        name=device.name,
        file=part.file,
        public_key=None if device.public_key is None else base64.b64encode(device.public_key).decode(),
        listen_port=device.listen_port,
        fwmark=device.fwmark,
        up=device.up,
        mtu=device.mtu,
        mtu_from=device.mtu_from,
        started=part.started_unix / 1e9,
        token=None if part.token is None else _token(part.token),
        processes=[
            admin.ProcessStatus(
                role=p.role,
                pid=p.pid,
                state=p.state,
                restarts=p.restarts,
                since=p.since_unix / 1e9,
                engine=p.engine,
            )
            for p in part.processes
        ],
        peers=[_peer(peer) for peer in _merged(peers)],
        inactive=[
            admin.InactivePeer(
                name=peer.name,
                public_key=base64.b64encode(peer.public_key).decode(),
                state=peer.state,
                expires=peer.expires_unix / 1e9 if peer.expires_unix else None,
            )
            for peer in part.inactive
        ],
        counters=part.counters,
        loaded=part.loaded_unix / 1e9,
        reload_refused=part.reload_refused,
        key_label=device.key_label,
        previous_key=None if device.previous_key is None else base64.b64encode(device.previous_key).decode(),
        previous_key_label=device.previous_label or None,
        audit=None if part.audit is None else _audit(part.audit),
    )


def _token(token: m.TokenStatus) -> admin.TokenState:
    return admin.TokenState(
        state=token.state,
        since=token.since_unix / 1e9,
        detail=token.detail,
        accepted=token.accepted,
        created=token.created,
        refused=token.refused,
        token=token.token,
    )


def _audit(audit: m.AuditStatus) -> admin.AuditState:
    return admin.AuditState(
        state=audit.state,
        since=audit.since_unix / 1e9,
        detail=audit.detail,
        directory=audit.directory,
        records=audit.records,
        unsealed=audit.unsealed,
        sealed=audit.sealed_unix / 1e9 if audit.sealed_unix else None,
        seal_detail=audit.seal_detail,
        unwritten=audit.unwritten,
        sinks=audit.sinks,
    )


def _merged(peers: list[m.PeerView]) -> list[m.PeerView]:
    """Peers whose prefixes came in several parts, made one again."""
    merged: list[m.PeerView] = []
    for peer in peers:
        if merged and merged[-1].public_key == peer.public_key:
            merged[-1].allowed_ips.extend(peer.allowed_ips)
        else:
            merged.append(peer)
    return merged


def _peer(peer: m.PeerView) -> admin.PeerStatus:
    return admin.PeerStatus(
        name=peer.name,
        public_key=base64.b64encode(peer.public_key).decode(),
        preshared_key=peer.psk,
        endpoint=None if peer.endpoint is None else format_endpoint(peer.endpoint),
        allowed_ips=peer.allowed_ips,
        persistent_keepalive=peer.persistent_keepalive,
        latest_handshake=peer.last_handshake_unix / 1e9 if peer.last_handshake_unix else None,
        rx_bytes=peer.rx_bytes,
        tx_bytes=peer.tx_bytes,
        psk_epoch=peer.psk_epoch,
        psk_confirmed=peer.psk_confirmed,
        gateway_key=base64.b64encode(peer.identity).decode() or None,
    )

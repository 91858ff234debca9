"""A changed gateway file against a running gateway: which settings it runs with next, and how far it has drifted.

    running   the model at work        loaded   of the file as it was read last        wanted   of the file as it is now

    authority: file      what the file says; changes made at run time are taken back
    authority: runtime   what has changed in the file since it was loaded; the rest stays as it was set at run time

Pure. Called by `_reload`; slots are the running model's, those of `loaded` and `wanted` mean nothing.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wghsm import config
from wghsm.ipc import messages as m

from .model import Model, NoSlotError, Peer, Prefix, Refusal, Slots, no_slot

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NAMELESS", "Merged", "as_gateway", "merged"]

NAMELESS = "added at run time"
"""What a peer is called in `as_gateway` that the file does not know."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The next model, and the public keys of the peers whose endpoint the file sets anew, by `host`."""

    model: Model
    moved: frozenset[bytes]


def merged(
    running: Model, loaded: Model, wanted: Model, *, keep_runtime: bool, psk_required: bool = False
) -> Merged | Refusal:
    """The next model, or why there is none. `keep_runtime`: the gateway's authority is runtime."""
    slots = Slots(running)
    peers: dict[bytes, Peer] = {}
    moved: set[bytes] = set()
    try:
        for key, want in wanted.peers.items():
            now = running.peers.get(key)
            if now is None:
                peers[key] = replace(want, slot=slots.take())
                continue
            was = loaded.peers.get(key) if keep_runtime else None
            peer = _peer(now, was, want)
            # The one that is there already where nothing differs: less memory.
            peers[key] = peer = now if peer == now else peer
            if peer.host is not None and peer.host != now.host:
                moved.add(key)
    except NoSlotError:
        return no_slot()
    if keep_runtime:
        peers |= {key: now for key, now in running.peers.items() if key not in peers and key not in loaded.peers}
    if psk_required and any(isinstance(peer.psk, m.PskNone) for peer in peers.values()):
        return Refusal(errno.EPERM, "psk: required, and a peer that was added at run time has none; remove it")
    owners = _owners(running, loaded, wanted, peers) if keep_runtime else dict(wanted.owners)

    def device(value: Callable[[Model], int]) -> int:
        return value(running) if keep_runtime and value(loaded) == value(wanted) else value(wanted)

    model = Model(device(lambda x: x.listen_port), device(lambda x: x.fwmark), peers, owners, slots.next)
    return Merged(model, frozenset(moved))


def _peer(now: Peer, was: Peer | None, want: Peer) -> Peer:
    """The peer as it is next; `was`: as the file had it, if what has not changed there is to stay as it is now."""
    peer = replace(want, slot=now.slot, endpoint=now.endpoint)
    if was is None:
        return peer if want.host is not None and want.host == now.host else replace(peer, endpoint=None)
    if (was.psk, was.migrate_from_none) == (want.psk, want.migrate_from_none):
        peer = replace(peer, psk=now.psk, migrate_from_none=now.migrate_from_none)
    if was.persistent_keepalive == want.persistent_keepalive:
        peer = replace(peer, persistent_keepalive=now.persistent_keepalive)
    if was.host == want.host:
        return replace(peer, host=now.host)
    return replace(peer, endpoint=None)


def _owners(running: Model, loaded: Model, wanted: Model, peers: dict[bytes, Peer]) -> dict[Prefix, bytes]:
    owners = {prefix: key for prefix, key in running.owners.items() if key in peers}
    for prefix, key in loaded.owners.items():
        if wanted.owners.get(prefix) != key and owners.get(prefix) == key:
            del owners[prefix]
    given = {
        prefix: key
        for prefix, key in wanted.owners.items()
        if loaded.owners.get(prefix) != key or key not in running.peers
    }
    return owners | given


def as_gateway(
    gateway: config.Gateway,
    loaded: Model,
    running: Model,
    mtu: int | None,
    interface_name: Callable[[int], str],
    now: float | None = None,
) -> config.Gateway:
    """The running gateway as a gateway file would have it: `gateway`, which was loaded, and what has changed since.

    `mtu`: bytes, None for what the file wants. `interface_name` gives the name of an interface by its index, for
    link-local endpoints. Peers that are disabled, or have expired by the Unix time `now`, are as the file has them.
    """
    written = {peer.public_key: peer for peer in gateway.peers}
    allowed = running.allowed_ips()
    peers = []
    for key, peer in running.peers.items():
        was, file = loaded.peers.get(key), written.get(key)
        if file is not None and was is not None and peer.psk == was.psk:
            psk = file.preshared_key
        else:
            psk = config.PskObject(peer.psk.label) if isinstance(peer.psk, m.PskObject) else config.PskNone()
        endpoint = peer.host
        if endpoint is None and peer.endpoint is not None:
            scope = f"%{interface_name(peer.endpoint.scope)}" if peer.endpoint.scope else ""
            endpoint = config.Endpoint(peer.endpoint.host + scope, peer.endpoint.port)
        peers.append(
            config.Peer(
                name=peer.name or NAMELESS,
                public_key=key,
                preshared_key=psk,
                migrate_from_none=peer.migrate_from_none,
                endpoint=endpoint,
                allowed_ips=tuple(allowed.get(key, ())),
                persistent_keepalive=peer.persistent_keepalive,
                expires=None if file is None else file.expires,
                note="" if file is None else file.note,
                tags=() if file is None else file.tags,
            )
        )
    peers += [each for each in gateway.peers if each.public_key not in running.peers and not each.active_at(now)]
    interface = gateway.interface.model_copy(
        update={
            "listen_port": running.listen_port,
            "fwmark": running.fwmark,
            "mtu": gateway.interface.mtu if mtu is None else mtu,
        }
    )
    return gateway.model_copy(update={"interface": interface, "peers": tuple(peers)})

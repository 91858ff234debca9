"""What the gateway is set to: peers in slots, owners of prefixes, port and mark; and the step to the next setting.

    gateway file -> initial -> Model --- applied(change) ---> Model' ;  difference(Model, Model') -> messages

Pure. A DeviceChange is applied whole or refused whole, in the order wireguard's configuration protocol gives it
(PROTOCOL.md section 14). Endpoints that were learned from traffic are not here: the supervisor keeps them by slot.
Called by `_supervisor`, `_feed` and `_requests`.
"""

from __future__ import annotations

import errno
import ipaddress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from wghsm import config
from wghsm.ipc import MAX_PEERS
from wghsm.ipc import messages as m

if TYPE_CHECKING:
    from collections.abc import Mapping, Set
    from pathlib import Path

__all__ = [
    "Difference",
    "Model",
    "Peer",
    "Prefix",
    "Refusal",
    "Slots",
    "applied",
    "between",
    "difference",
    "initial",
    "without",
]

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network

_KEY_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer. `slot` is its row in the statistics table.

    `host` is the endpoint as the file has it, None if it has none or another one was set at run time; `endpoint` the
    address that a name was resolved to, or that was set at run time.
    """

    slot: int
    name: str
    public_key: bytes
    psk: m.PskSource = field(default_factory=m.PskNone)
    migrate_from_none: bool = False
    persistent_keepalive: int = 0
    endpoint: m.Endpoint | None = None
    host: config.Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """The gateway's settings. `peers` by public key, `owners` the public key behind each prefix."""

    listen_port: int = 0
    fwmark: int = 0
    peers: Mapping[bytes, Peer] = field(default_factory=dict)
    owners: Mapping[Prefix, bytes] = field(default_factory=dict)
    next_slot: int = 0

    def allowed_ips(self) -> dict[bytes, list[Prefix]]:
        """The prefixes of each peer that has any."""
        found: dict[bytes, list[Prefix]] = {}
        for prefix, key in self.owners.items():
            found.setdefault(key, []).append(prefix)
        return found

    def routes(self) -> list[m.Route]:
        """All allowed IPs as messages have them."""
        return [_route(prefix, self.peers[key].slot) for prefix, key in self.owners.items()]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a change is not applied: a positive errno and one line."""

    errno: int
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The way from one model to the next. `moved`: peers whose endpoint the change gives."""

    added: tuple[Peer, ...]
    removed: tuple[int, ...]
    psk_changed: tuple[Peer, ...]
    handshake_changed: tuple[Peer, ...]
    moved: frozenset[int]
    routes: tuple[m.Route, ...]
    prefixes_added: tuple[Prefix, ...]
    prefixes_removed: tuple[Prefix, ...]


def initial(
    gateway: config.Gateway, wrapped: Mapping[Path, list[config.WrappedPsk]] | None = None, now: float | None = None
) -> Model:
    """The model of a gateway file and its files of wrapped PSKs, without peers that are disabled.

    `now`: Unix time; peers that have expired by then are left out as well.
    Endpoints are not filled in: the caller knows scopes and names.
    """
    peers: dict[bytes, Peer] = {}
    owners: dict[Prefix, bytes] = {}
    for slot, peer in enumerate(peer for peer in gateway.peers if peer.active_at(now)):
        peers[peer.public_key] = Peer(
            slot=slot,
            name=peer.name,
            public_key=peer.public_key,
            psk=_psk(peer.preshared_key, wrapped or {}),
            migrate_from_none=peer.migrate_from_none,
            persistent_keepalive=peer.persistent_keepalive,
            host=peer.endpoint,
        )
        owners.update(dict.fromkeys(peer.allowed_ips, peer.public_key))
    interface = gateway.interface
    return Model(interface.listen_port, interface.fwmark, peers, owners, len(peers))


def applied(
    model: Model,
    change: m.DeviceChange,
    *,
    runtime_psks: bool,
    own_key: bytes | None,
    psk_required: bool = False,
    resolved: bool = False,
) -> Model | Refusal:
    """The model after `change`, or why it is refused; `psk_required`: no peer may be without a pre-shared key.

    `resolved`: its endpoints are what the file's names have been resolved to.

    Beyond the protocol: a peer that `replace_peers` sweeps away and the same change names again keeps its slot,
    name and pre-shared key, so that its sessions live on and its key in the token is never lost by a reload.
    """
    draft = _Draft(model, replaced=change.replace_peers, resolved=resolved)
    for peer in change.peers:
        if peer.public_key == own_key:
            continue
        if refusal := _refusal(peer, runtime_psks):
            return refusal
        try:
            draft.take(peer)
        except NoSlotError:
            return no_slot()
        except ValueError:
            return Refusal(errno.EINVAL, "an allowed IP is no prefix")
    if psk_required and any(isinstance(peer.psk, m.PskNone) for peer in draft.peers.values()):
        return Refusal(errno.EPERM, "the gateway file says psk: required, and a peer would be without one")
    fwmark = model.fwmark if change.fwmark is None else change.fwmark
    if not 0 <= fwmark < 2**32 or not 0 <= (change.listen_port or 0) < 2**16:
        return Refusal(errno.EINVAL, "a port or mark is out of range")
    return replace(
        model,
        listen_port=model.listen_port if change.listen_port is None else change.listen_port,
        fwmark=fwmark,
        peers=draft.peers,
        owners=draft.owners,
        next_slot=draft.slots.next,
    )


def difference(old: Model, new: Model, change: m.DeviceChange) -> Difference:
    """What must be told to get from `old` to `new`, which came from `change`."""
    return between(old, new, {peer.public_key for peer in change.peers if peer.endpoint is not None})


def between(old: Model, new: Model, given: Set[bytes]) -> Difference:
    """What must be told to get from `old` to `new`; `given`: the public keys whose endpoint is to be set."""
    before = {peer.slot: peer for peer in old.peers.values()}
    after = {peer.slot: peer for peer in new.peers.values()}
    added = tuple(peer for slot, peer in after.items() if slot not in before)
    kept = [(before[slot], peer) for slot, peer in after.items() if slot in before]
    moved = frozenset(peer.slot for peer in after.values() if peer.public_key in given)
    routes, gained, lost = [], [], []
    for prefix in old.owners.keys() - new.owners.keys():
        routes.append(_route(prefix, None))
        lost.append(prefix)
    for prefix, key in new.owners.items():
        owner = old.owners.get(prefix)
        if owner is None:
            gained.append(prefix)
        if owner is None or old.peers[owner].slot != new.peers[key].slot:
            routes.append(_route(prefix, new.peers[key].slot))
    return Difference(
        added=added,
        removed=tuple(slot for slot in before if slot not in after),
        psk_changed=tuple(
            now for was, now in kept if (was.psk, was.migrate_from_none) != (now.psk, now.migrate_from_none)
        ),
        handshake_changed=tuple(
            now for was, now in kept if was.persistent_keepalive != now.persistent_keepalive or now.slot in moved
        ),
        moved=moved,
        routes=tuple(routes),
        prefixes_added=tuple(gained),
        prefixes_removed=tuple(lost),
    )


def without(model: Model, keys: Set[bytes]) -> Model:
    """The model without the peers of these public keys."""
    return replace(
        model,
        peers={key: peer for key, peer in model.peers.items() if key not in keys},
        owners={prefix: key for prefix, key in model.owners.items() if key not in keys},
    )


class NoSlotError(Exception):
    """Every slot is taken."""


def no_slot() -> Refusal:
    """Why a peer too many is refused."""
    return Refusal(errno.ENOSPC, f"there are {MAX_PEERS} peers already")


class Slots:
    """Slots for new peers of `model`, whose own slots are never given: late messages about a peer must die away."""

    def __init__(self, model: Model) -> None:
        self.next = model.next_slot
        self._peers = model.peers
        self._taken: set[int] | None = None

    def take(self) -> int:
        """The slot that was free for longest. NoSlotError if there is none."""
        if self._taken is None:
            self._taken = {peer.slot for peer in self._peers.values()}
        for step in range(MAX_PEERS):
            slot = (self.next + step) % MAX_PEERS
            if slot not in self._taken:
                self._taken.add(slot)
                self.next = (slot + 1) % MAX_PEERS
                return slot
        raise NoSlotError


class _Draft:
    """The peers and owners while one change is worked through."""

    def __init__(self, model: Model, *, replaced: bool, resolved: bool) -> None:
        self._before = model.peers
        self._resolved = resolved
        self.peers: dict[bytes, Peer] = {} if replaced else dict(model.peers)
        self.owners: dict[Prefix, bytes] = {} if replaced else dict(model.owners)
        self.slots = Slots(model)
        # The prefixes of each peer: a reload clears thousands of peers one by one.
        self._prefixes: dict[bytes, set[Prefix]] = {}
        for prefix, key in self.owners.items():
            self._prefixes.setdefault(key, set()).add(prefix)
        self._removed: set[bytes] = set()

    def take(self, change: m.PeerChange) -> None:
        key = change.public_key
        if change.remove:
            self.peers.pop(key, None)
            self._removed.add(key)
            self._clear(key)
            return
        peer = self.peers.get(key)
        if peer is None:
            if change.update_only:
                return
            peer = self._create(key)
        if change.psk is not None:
            peer = replace(peer, psk=change.psk, migrate_from_none=False)
        if change.endpoint is not None:
            peer = replace(peer, endpoint=change.endpoint, host=peer.host if self._resolved else None)
        if change.persistent_keepalive is not None:
            peer = replace(peer, persistent_keepalive=change.persistent_keepalive)
        self.peers[key] = peer
        if change.replace_allowed_ips:
            self._clear(key)
        for text in change.add_allowed_ips:
            self._own(ipaddress.ip_network(text, strict=False), key)
        for text in change.remove_allowed_ips:
            prefix = ipaddress.ip_network(text, strict=False)
            if self.owners.get(prefix) == key:
                del self.owners[prefix]
                self._prefixes[key].discard(prefix)

    def _own(self, prefix: Prefix, key: bytes) -> None:
        before = self.owners.get(prefix)
        if before is not None:
            self._prefixes[before].discard(prefix)
        self.owners[prefix] = key
        self._prefixes.setdefault(key, set()).add(prefix)

    def _create(self, key: bytes) -> Peer:
        old = self._before.get(key)
        if old is not None and key not in self._removed:
            return replace(old, persistent_keepalive=0)
        return Peer(slot=self.slots.take(), name="", public_key=key)

    def _clear(self, key: bytes) -> None:
        for prefix in self._prefixes.pop(key, ()):
            del self.owners[prefix]


def _refusal(peer: m.PeerChange, runtime_psks: bool) -> Refusal | None:
    if len(peer.public_key) != _KEY_LENGTH:
        return Refusal(errno.EINVAL, f"a public key has {_KEY_LENGTH} bytes")
    if peer.psk is not None and not isinstance(peer.psk, m.PskNone) and not runtime_psks:
        return Refusal(errno.EPERM, "pre-shared keys come from the gateway file only (authority: file)")
    if not 0 <= (peer.persistent_keepalive or 0) < 2**16:
        return Refusal(errno.EINVAL, "a persistent keepalive is 0 to 65535 seconds")
    if peer.endpoint is not None:
        try:
            ipaddress.ip_address(peer.endpoint.host)
        except ValueError:
            return Refusal(errno.EINVAL, "an endpoint is an address, not a name")
        if not 0 < peer.endpoint.port < 2**16:
            return Refusal(errno.EINVAL, "an endpoint's port is 1 to 65535")
    return None


def _route(prefix: Prefix, slot: int | None) -> m.Route:
    return m.Route(prefix.network_address.packed, prefix.prefixlen, slot)


def _psk(
    psk: config.PskNone | config.PskDerived | config.PskObject | config.PskWrapped,
    wrapped: Mapping[Path, list[config.WrappedPsk]],
) -> m.PskSource:
    match psk:
        case config.PskWrapped():
            (epoch, sealed), *before = wrapped[psk.file]
            return m.PskWrapped(epoch, sealed, *(before[0] if before else ()))
        case config.PskDerived():
            return m.PskDerived(psk.epoch)
        case config.PskObject():
            return m.PskObject(psk.label)
        case _:
            return m.PskNone()

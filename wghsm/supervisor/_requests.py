"""What the control process asks: the device, its peers, status; changes, re-keys, the end.

    DeviceSet -> its turn -> model.applied (all or nothing) -> _applying -> RequestResult

Endpoints whose names have been resolved come in as changes of our own.
Called by `_supervisor`.
"""

from __future__ import annotations

import base64
import errno
import logging
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import msgspec

from wghsm.config import to_document
from wghsm.ipc import PeerField, Role, admin, all_seats, identity_number, worker_of
from wghsm.ipc import messages as m

from ._applying import Work
from ._hearing import set_hearing
from ._path_mtu import known_endpoints
from ._policy import outer_mark
from ._sockets import UdpPair
from .merge import as_gateway
from .model import Refusal, applied, difference, initial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wghsm.config import Gateway
    from wghsm.ipc import Seat

    from ._applying import Applying
    from ._audit import Audit
    from ._children import Children
    from ._state import State
    from .model import Model

__all__ = ["Requests"]

_log = logging.getLogger(__name__)

_MAX_PARTS = 2000
_PEERS_A_PART = 300
_PREFIXES_A_PART = 1500
_CONFIG_A_PART = 128 * 1024
_SHOWN = (
    PeerField.LAST_HANDSHAKE_UNIX,
    PeerField.RX_BYTES,
    PeerField.HANDSHAKE_RX_BYTES,
    PeerField.TX_BYTES,
    PeerField.HANDSHAKE_TX_BYTES,
    PeerField.PSK_CONFIRMED,
    PeerField.IDENTITY,
)


@dataclass(frozen=True)
class _Request:
    """A change that waits. `client` is the control process's incarnation, 0 for one of our own."""

    client: int
    number: int
    change: m.DeviceChange
    check_only: bool = False
    who: m.Asker | None = None


class Requests:
    """Serves the control process of one gateway."""

    def __init__(
        self,
        state: State,
        children: Children,
        applying: Applying,
        audit: Audit,
        stop: Callable[[m.Asker | None], None],
    ) -> None:
        self._state = state
        self._children = children
        self._applying = applying
        self._audit = audit
        self._stop = stop
        self._parts: dict[int, list[m.DeviceChange]] = {}
        self._asked: dict[int, tuple[int, m.ForgetTimestamps]] = {}

    def handle(self, message: m.Message) -> None:
        """One request of the control process."""
        match message:
            case m.DeviceGet():
                for part in self._device(message.request):
                    self._children.send(Role.CONTROL, part)
            case m.DeviceSet():
                self._collect(message)
            case m.StatusGet():
                for status in self._status(message.request):
                    self._children.send(Role.CONTROL, status)
            case m.ConfigGet():
                for piece in self._config(message.request):
                    self._children.send(Role.CONTROL, piece)
            case m.RekeyRequest():
                self._rekey(message)
            case m.ForgetTimestamps():
                self._forget_timestamps(message)
            case m.RequestResult():
                self._pass_on(message)
            case m.StopRequest():
                self._children.send(Role.CONTROL, m.RequestResult(message.request, 0))
                self._stop(message.who)
            case _:
                _log.error("control asked for %s", type(message).__name__)

    def set_endpoints(self, found: dict[bytes, m.Endpoint]) -> None:
        """Names have been resolved: give the addresses to those peers that still have none."""
        hosts = {key: peer.host for key in found if (peer := self._state.model.peers.get(key))}

        def job() -> Work | None:
            state = self._state
            peers = []
            for key, host in hosts.items():
                now = state.model.peers.get(key)
                if now is not None and now.host == host and state.needs_endpoint(now):
                    state.outdated.discard(now.slot)
                    if state.endpoints.get(now.slot) != found[key]:
                        peers.append(m.PeerChange(key, update_only=True, endpoint=found[key]))
            return self._work(_Request(0, 0, m.DeviceChange(peers=peers)))

        self._applying.submit(job)

    def left(self, role: Seat) -> None:
        """A process is gone."""
        if role == Role.CONTROL:
            self._parts.clear()
        elif role is Role.CUSTODIAN:
            for number in list(self._asked):
                self._pass_on(m.RequestResult(number, errno.EIO, "the custodian has ended meanwhile; try again"))

    def _forget_timestamps(self, message: m.ForgetTimestamps) -> None:
        # Also of those that are disabled or have expired, and may come back.
        known = self._state.model.peers.keys() | {peer.public_key for peer in self._state.gateway.peers}
        if not message.peers or any(key not in known for key in message.peers):
            result = m.RequestResult(message.request, errno.ENOENT, "there is no such peer")
        elif not self._children.send(Role.CUSTODIAN, message):
            result = m.RequestResult(message.request, errno.EAGAIN, "the custodian is being restarted; try again")
        else:
            self._asked[message.request] = (self._children.incarnation(Role.CONTROL), message)
            return
        self._children.send(Role.CONTROL, result)

    def _pass_on(self, result: m.RequestResult) -> None:
        """The custodian's answer, for the control process that asked."""
        asked = self._asked.pop(result.request, None)
        if asked is None:
            return
        client, message = asked
        if not result.errno:
            self._audit.timestamps_forgotten(message.peers, message.who)
        if client == self._children.incarnation(Role.CONTROL):
            self._children.send(Role.CONTROL, result)

    def _collect(self, message: m.DeviceSet) -> None:
        parts = self._parts.setdefault(message.request, [])
        parts.append(message.change)
        if not message.last and len(parts) < _MAX_PARTS:
            return
        del self._parts[message.request]
        client = self._children.incarnation(Role.CONTROL)
        request = _Request(client, message.request, parts[0], message.check_only, message.who)
        if not message.last:
            self._answer(request, errno.E2BIG, "the change has too many parts")
            return
        if len(parts) > 1:
            peers = [peer for part in parts for peer in part.peers]
            request = replace(request, change=msgspec.structs.replace(parts[0], peers=peers))
        self._applying.submit(lambda: self._work(request), client)

    def _work(self, request: _Request) -> Work | None:
        """What a change comes to; None if it is refused, or only asked about."""
        state, change = self._state, request.change
        own_key = state.identity.public_key if state.identity else None
        model = applied(
            state.model,
            change,
            runtime_psks=state.runtime_psks,
            own_key=own_key,
            psk_required=state.gateway.psk == "required",
            resolved=not request.client,
        )
        if isinstance(model, Refusal):
            self._answer(request, model.errno, model.text)
            if request.client:
                self._audit.refused("set", model.text, request.who)
            return None
        try:
            if request.check_only:
                self._check_port(change.listen_port)
                self._answer(request, 0, "")
                return None
            sockets = self._move_port(change, model)
        except OSError as error:
            text = f"port or mark: {error.strerror}"
            self._answer(request, errno.EADDRINUSE, text)
            self._audit.refused("set", text, request.who)
            return None
        found = difference(state.model, model, change)

        def done() -> None:
            state.links.change_routes(found.prefixes_added, found.prefixes_removed)
            self._answer(request, 0, "")

        endpoints = {
            peer.slot: peer.endpoint
            for peer in model.peers.values()
            if peer.slot in found.moved and peer.endpoint is not None
        }
        return Work(model, found, endpoints, sockets, done, "control" if request.client else "", request.who)

    def _check_port(self, port: int | None) -> None:
        """Raise OSError if the port cannot be moved to."""
        if port and port != self._state.udp.port:
            UdpPair(port, 0, self._state.workers).close()

    def _move_port(self, change: m.DeviceChange, model: Model) -> bool:
        """Whether there are sockets to tell of, for another port or mark. Raises OSError with nothing changed.

        Also the same ones with another mark: cached source addresses may not be right for it.
        """
        state = self._state
        port = change.listen_port
        if port is None or (port == state.udp.port and port):
            return state.remark(model)
        mark = state.mark_first(outer_mark(state.gateway.interface, model))
        fresh = UdpPair(port, mark, state.workers)
        set_hearing(fresh.descriptors, state.link.up)
        state.udp, old = fresh, state.udp
        old.close()
        return True

    def _answer(self, request: _Request, number: int, text: str) -> None:
        # A control process that was restarted meanwhile knows nothing of the request.
        if request.client and request.client == self._children.incarnation(Role.CONTROL):
            self._children.send(Role.CONTROL, m.RequestResult(request.number, number, text))

    def _device(self, request: int) -> Iterator[m.DevicePart]:
        device: m.DeviceView | None = self._view()
        peers: list[m.PeerView] = []
        weight = 0
        for view in self._peers():
            if peers and (len(peers) >= _PEERS_A_PART or weight + len(view.allowed_ips) > _PREFIXES_A_PART):
                yield m.DevicePart(request, device, peers, False)
                device, peers, weight = None, [], 0
            peers.append(view)
            weight += len(view.allowed_ips)
        yield m.DevicePart(request, device, peers, True)

    def _view(self) -> m.DeviceView:
        state, interface = self._state, self._state.gateway.interface
        return m.DeviceView(
            name=interface.name,
            public_key=state.identity.public_key if state.identity else None,
            listen_port=state.udp.port,
            fwmark=state.mark,
            up=state.link.up,
            mtu=state.link.mtu,
            mtu_from=state.mtu_from,
            previous_key=(state.identity.previous or None) if state.identity else None,
            key_label=interface.key,
            previous_label=interface.previous_key or "",
        )

    def _peers(self) -> Iterator[m.PeerView]:
        """Every peer; one with very many prefixes comes again with the rest of them, right after."""
        state = self._state
        allowed = state.model.allowed_ips()
        for peer in state.model.peers.values():
            row = {each: state.stats.get(peer.slot, each) for each in _SHOWN}
            prefixes = [str(prefix) for prefix in allowed.get(peer.public_key, ())]
            for start in range(0, max(1, len(prefixes)), _PREFIXES_A_PART):
                yield m.PeerView(
                    name=peer.name,
                    public_key=peer.public_key,
                    psk=_psk_kind(peer.psk),
                    endpoint=state.endpoints.get(peer.slot),
                    persistent_keepalive=peer.persistent_keepalive,
                    allowed_ips=prefixes[start : start + _PREFIXES_A_PART],
                    last_handshake_unix=row[PeerField.LAST_HANDSHAKE_UNIX],
                    rx_bytes=row[PeerField.RX_BYTES] + row[PeerField.HANDSHAKE_RX_BYTES],
                    tx_bytes=row[PeerField.TX_BYTES] + row[PeerField.HANDSHAKE_TX_BYTES],
                    psk_epoch=peer.psk.epoch if isinstance(peer.psk, m.PskDerived | m.PskWrapped) else None,
                    psk_confirmed=row[PeerField.PSK_CONFIRMED] - 2 if row[PeerField.PSK_CONFIRMED] else None,
                    identity=_identity(state.identity, row[PeerField.IDENTITY]),
                )

    def _status(self, request: int) -> Iterator[m.StatusPart]:
        state = self._state
        inactive = list(_inactive(state.gateway, state.model))
        while len(inactive) > _PEERS_A_PART:
            some, inactive = inactive[:_PEERS_A_PART], inactive[_PEERS_A_PART:]
            yield m.StatusPart(request, state.started_unix, state.file, [], None, {}, inactive=some, last=False)
        counters = {
            str(seat): state.stats.counters(role, worker_of(seat))
            for role in Role
            for seat in all_seats(role, state.workers)
        }
        yield m.StatusPart(
            request=request,
            started_unix=state.started_unix,
            file=state.file,
            processes=self._children.views(),
            token=state.token,
            loaded_unix=state.loaded_unix,
            reload_refused=state.reload_refused,
            audit=state.audit,
            inactive=inactive,
            counters={
                seat: {reason.value: number for reason, number in block.items()}
                for seat, block in counters.items()
                if block
            },
        )

    def _config(self, request: int) -> Iterator[m.ConfigPart]:
        """What was loaded of the file, and what runs, as JSON in pieces."""
        state = self._state
        loaded = initial(state.gateway, state.wrapped, state.loaded_unix / 1e9)
        mtu = state.link.mtu if state.mtu_from == "runtime" else None
        running = as_gateway(state.gateway, loaded, state.model, mtu, _interface_name, time.time())
        data = msgspec.json.encode(
            admin.Config(
                file=state.file,
                loaded=to_document(state.gateway),
                running=to_document(running),
                path_mtu=state.links.path_mtu(known_endpoints(state.model), state.mark),
                login_is_due=state.login_is_due,
                wrapped={
                    str(path): [(epoch, base64.b64encode(sealed).decode()) for epoch, sealed in entries]
                    for path, entries in state.wrapped.items()
                },
            )
        )
        for start in range(0, len(data), _CONFIG_A_PART):
            last = start + _CONFIG_A_PART >= len(data)
            yield m.ConfigPart(request, data[start : start + _CONFIG_A_PART], last)

    def _rekey(self, message: m.RekeyRequest) -> None:
        known = self._state.model.peers
        keys = list(known) if message.peers is None else message.peers
        if any(key not in known for key in keys):
            result = m.RequestResult(message.request, errno.ENOENT, "there is no such peer")
        elif not self._children.send(Role.HANDSHAKE, m.Rekey([known[key].slot for key in keys])):
            result = m.RequestResult(message.request, errno.EAGAIN, "the handshake process is being restarted")
        else:
            count = f"{len(keys)} peer" if len(keys) == 1 else f"{len(keys)} peers"
            result = m.RequestResult(message.request, 0, f"asked for handshakes with {count}")
        self._children.send(Role.CONTROL, result)


def _identity(known: m.Identity | None, word: int) -> bytes:
    """The own public key that the table names by the number `word`; empty if it is none in use."""
    keys = (known.public_key, known.previous) if known else ()
    return next((key for key in keys if key and identity_number(key) == word), b"")


def _inactive(gateway: Gateway, model: Model) -> Iterator[m.InactivePeer]:
    """The peers of the file that are not served, and why not."""
    now = time.time()
    for peer in gateway.peers:
        if peer.public_key in model.peers or peer.active_at(now):
            continue
        expires = 0 if peer.expires is None else int(peer.expires.timestamp() * 1e9)
        yield m.InactivePeer(peer.name, peer.public_key, "disabled" if peer.disabled else "expired", expires)


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _psk_kind(psk: m.PskSource) -> Literal["none", "derived", "object", "wrapped"]:
    match psk:
        case m.PskWrapped():
            return "wrapped"
        case m.PskDerived():
            return "derived"
        case m.PskObject():
            return "object"
        case _:
            return "none"

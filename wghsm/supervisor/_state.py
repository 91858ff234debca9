"""What the supervisor knows and holds, and what each process is told of it when it starts.

    State           the model, learned endpoints, sockets, TUN, statistics: one place for all of it
    feed(seat)      the first messages of a fresh process after Start, in the order of its room's needs

Called by `_supervisor`, `_applying`, `_requests` and `_reload`.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from wghsm.ipc import MAX_PEERS, TUNNEL, Role, all_seats, role_of, worker_of
from wghsm.ipc import messages as m

from ._path_mtu import known_endpoints
from ._policy import outer_mark, ways
from ._startup import pin_files
from .changes import custodian_parts, handshake_parts, route_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from wghsm import config
    from wghsm.config import Gateway, Interface, Token, WrappedPsk
    from wghsm.ipc import Seat, StatsFile

    from ._filter import PacketFilter
    from ._inboxes import Inboxes
    from ._links import Links, LinkStatus
    from ._policy import Way
    from ._sockets import UdpPair, UnixListener
    from ._startup import PinFile
    from ._steering import Steering
    from ._tun import Tun
    from .model import Model, Peer

__all__ = ["State", "audit_settings"]

_JOURNALD = "/run/systemd/journal/socket"


@dataclass
class State:
    """A running gateway, seen from its supervisor.

    `gateway` and `wrapped` are as the file was read last, at `loaded_unix`; `trial` is what a custodian is started with
    to find out whether its token settings work, with `sealed` for it to open; `pins`: the files of PINs when the last
    custodian was started, None where none could be started and the next reload is to. `endpoints`: the newest known
    one of each slot; `outdated`: slots whose endpoint is to be another one as soon as its name is resolved. `served`:
    it has been up. `reload_refused`: why the last reload was, empty if it was not. `path_mtu`: what `mtu: auto` has
    set, 0 where the file gives a number.
    """

    gateway: Gateway
    file: str
    model: Model
    tun: Tun
    links: Links
    packet_filter: PacketFilter
    link: LinkStatus
    udp: UdpPair
    uapi: UnixListener
    admin: UnixListener
    stats_fd: int
    stats: StatsFile
    steering: Steering
    inboxes: Inboxes
    wrapped: Mapping[Path, list[WrappedPsk]] = field(default_factory=dict)
    trial: Gateway | None = None
    sealed: Sequence[m.SealedPsk] = ()
    pins: Mapping[str, PinFile] | None = field(default_factory=dict)
    tty: int | None = None
    endpoints: dict[int, m.Endpoint] = field(default_factory=dict)
    outdated: set[int] = field(default_factory=set)
    identity: m.Identity | None = None
    token: m.TokenStatus | None = None
    audit: m.AuditStatus | None = None
    served: bool = False
    started_unix: int = field(default_factory=time.time_ns)
    loaded_unix: int = field(default_factory=time.time_ns)
    reload_refused: str = ""
    path_mtu: int = 0
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def runtime_psks(self) -> bool:
        """Whether clients of the control protocol may put pre-shared keys into the token."""
        return self.gateway.interface.authority == "runtime"

    @property
    def mark(self) -> int:
        """The mark of the outer packets."""
        return outer_mark(self.gateway.interface, self.model)

    @property
    def ways(self) -> frozenset[Way]:
        """What the default routes of peers need."""
        return ways(self.gateway.interface, self.model)

    def mtu_for(self, interface: Interface, model: Model) -> int:
        """The MTU (bytes) that the file wants for this model; with `auto` by the routes as they are now."""
        if interface.mtu != "auto":
            return interface.mtu
        return self.links.path_mtu(known_endpoints(model), outer_mark(interface, model))

    @property
    def mtu_from(self) -> Literal["file", "path", "runtime"]:
        """Who has set the MTU: the file's number, the ways to the endpoints, or somebody while the gateway runs."""
        if self.link.mtu != (self.path_mtu or self.gateway.interface.mtu):
            return "runtime"
        return "path" if self.path_mtu else "file"

    def remark(self, model: Model) -> bool:
        """Give the sockets the mark of this model; whether it is another one. Raises OSError."""
        mark = outer_mark(self.gateway.interface, model)
        if mark == self.mark:
            return False
        self.udp.mark(self.mark_first(mark))
        return True

    def mark_first(self, mark: int) -> int:
        """What the sockets are marked with until the routing rules are those of another mark, 0 for none: no outer
        packet may go into the tunnel meanwhile. `marked` follows.
        """
        if not self.ways or mark == self.mark:
            return mark
        if mark:
            self.links.pass_by(mark)
        return mark or self.mark

    def marked(self) -> None:
        """The rules are those of the mark. Raises OSError."""
        self.udp.mark(self.mark)
        self.links.end_passing()

    def needs_endpoint(self, peer: Peer) -> bool:
        """Whether an address is wanted for the name that the file has for this peer."""
        return peer.host is not None and (peer.slot not in self.endpoints or peer.slot in self.outdated)

    def forget(self, slot: int) -> None:
        """The slot's peer is gone."""
        self.endpoints.pop(slot, None)
        self.outdated.discard(slot)

    @property
    def login_is_due(self) -> bool:
        """Whether the custodian was started before a file of its PIN was changed. One that is gone is no other PIN."""
        pins = self.pins
        return pins is None or any(pins.get(source) != now for source, now in pin_files(self.gateway.token).items())

    def number(self) -> int:
        """A fresh number for a change."""
        return next(self._numbers)

    @property
    def workers(self) -> int:
        """Pairs of egress and ingress, as many as when the gateway began."""
        return self.gateway.tunnel.workers

    @property
    def tunnel(self) -> tuple[Seat, ...]:
        """The seats of the tunnel's processes."""
        return tuple(seat for role in TUNNEL for seat in all_seats(role, self.workers))

    def udp_descriptors(self, seat: Seat) -> list[int]:
        """The sockets of a worker; a process that is there once only sends, and any will do."""
        return self.udp.descriptors_of(worker_of(seat))

    def udp_message(self) -> m.UdpSockets:
        """The sockets as they are; their descriptors go with it."""
        return m.UdpSockets(self.number(), self.udp.port, self.udp.families)

    def feed(self, seat: Seat) -> Iterator[tuple[m.Message, Sequence[int]]]:
        """The settings of a fresh process."""
        yield m.StatsTable(MAX_PEERS), [self.stats_fd]
        match role_of(seat):
            case Role.CUSTODIAN:
                self.pins = pin_files((self.trial or self.gateway).token)
                yield self._token_settings(), [self.tty] if self.tty is not None else []
                for part in custodian_parts(self.model.peers.values(), self.number):
                    yield part, ()
            case Role.HANDSHAKE:
                for known in handshake_parts(self.model.peers.values(), self.number, self.endpoints):
                    yield known, ()
                yield self.udp_message(), self.udp_descriptors(seat)
                yield m.LinkState(self.link.up), ()
            case Role.EGRESS:
                yield from self.inboxes.feed(worker_of(seat))
                yield from self._tunnel_feed(seat)
            case Role.INGRESS:
                yield from self._tunnel_feed(seat)
            case Role.AUDITOR:
                yield audit_settings((self.trial or self.gateway).audit), ()
            case _:
                yield (
                    m.ControlSettings(self.runtime_psks, self.gateway.audit.enabled),
                    [self.uapi.fileno(), self.admin.fileno()],
                )
                if self.identity is not None:
                    yield self.identity, ()

    def _tunnel_feed(self, seat: Seat) -> Iterator[tuple[m.Message, Sequence[int]]]:
        yield m.TunnelPeers(self.number(), [peer.slot for peer in self.model.peers.values()], []), ()
        change = self.number()
        for part in route_parts(self.model.routes(), change):
            yield part, ()
        yield m.RoutesCommit(change), ()
        yield m.TunDevice(self.link.mtu, self.tun.vnet, self.tun.uso), [self.tun.fds[worker_of(seat)]]
        yield self.udp_message(), self.udp_descriptors(seat)
        yield m.LinkState(self.link.up), ()

    def _token_settings(self) -> m.TokenSettings:
        gateway = self.trial or self.gateway
        token = gateway.token
        return m.TokenSettings(
            uri=token.in_order[0],
            twins=list(token.in_order[1:]),
            at_start=self._at_start(token),
            key=gateway.interface.key,
            psk_root=token.psk_root,
            sessions=token.sessions,
            cache_static_static=token.cache_static_static,
            runtime_psks=self.runtime_psks,
            state_directory=str(self.gateway.state_directory),
            prompt=self.tty is not None,
            psk_wrap_key=token.psk_wrap_key,
            psk_overlap=token.psk_overlap,
            previous_key=gateway.interface.previous_key,
            audited=gateway.audit.enabled,
            audit_key=gateway.audit.key if gateway.audit.enabled else None,
            audit_required=gateway.audit.enabled and gateway.audit.on_failure != "continue",
            sealed=[] if self.trial is None else list(self.sealed),
        )

    def _at_start(self, token: Token) -> Literal["wait", "fail"]:
        if self.trial is not None:
            return "fail"
        # Sessions that live are worth more than an exit code.
        return "wait" if self.served else token.at_start


def audit_settings(audit: config.Audit) -> m.AuditSettings:
    """What the auditor is told of the file's section `audit`."""

    def text(path: Path | None) -> str:
        return "" if path is None else str(path)

    syslog = None
    if audit.syslog is not None:
        files = (text(audit.syslog_ca), text(audit.syslog_certificate), text(audit.syslog_key))
        syslog = m.SyslogServer(audit.syslog.host, audit.syslog.port, *files)
    journald = audit.journald
    return m.AuditSettings(
        directory=str(audit.directory),
        retention=audit.retention,
        rotate_size=audit.rotate_size,
        rotate_age=audit.rotate_age,
        journald=journald if isinstance(journald, str) else _JOURNALD if journald else "",
        journald_required=isinstance(journald, str),
        syslog=syslog,
        signed=audit.key is not None,
    )

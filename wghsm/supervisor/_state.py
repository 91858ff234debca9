"""What the supervisor knows and holds, and what each process is told of it when it starts.

    State           the model, learned endpoints, sockets, TUN, statistics: one place for all of it
    feed(role)      the first messages of a fresh process after Start, in the order of its room's needs

Called by `_supervisor` and `_requests`.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wghsm.ipc import MAX_PEERS, Role
from wghsm.ipc import messages as m

from .changes import custodian_parts, handshake_parts, route_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wghsm.config import Gateway
    from wghsm.ipc import StatsFile

    from ._links import Links, LinkStatus
    from ._sockets import UdpPair, UnixListener
    from ._tun import Tun
    from .model import Model

__all__ = ["State"]


@dataclass
class State:
    """A running gateway, seen from its supervisor.

    `endpoints`: the newest known one of each slot; `served`: it has been up.
    """

    gateway: Gateway
    file: str
    model: Model
    tun: Tun
    links: Links
    link: LinkStatus
    udp: UdpPair
    uapi: UnixListener
    admin: UnixListener
    stats_fd: int
    stats: StatsFile
    tty: int | None = None
    endpoints: dict[int, m.Endpoint] = field(default_factory=dict)
    identity: m.Identity | None = None
    token: m.TokenStatus | None = None
    served: bool = False
    started_unix: int = field(default_factory=time.time_ns)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def runtime_psks(self) -> bool:
        """Whether clients of the control protocol may put pre-shared keys into the token."""
        return self.gateway.interface.authority == "runtime"

    def number(self) -> int:
        """A fresh number for a change."""
        return next(self._numbers)

    def udp_message(self) -> m.UdpSockets:
        """The sockets as they are; their descriptors go with it."""
        return m.UdpSockets(self.number(), self.udp.port, self.udp.families)

    def feed(self, role: Role) -> Iterator[tuple[m.Message, Sequence[int]]]:
        """The settings of a fresh process of this role."""
        yield m.StatsTable(MAX_PEERS), [self.stats_fd]
        match role:
            case Role.CUSTODIAN:
                yield self._token_settings(), [self.tty] if self.tty is not None else []
                for part in custodian_parts(self.model.peers.values(), self.number):
                    yield part, ()
            case Role.HANDSHAKE:
                for known in handshake_parts(self.model.peers.values(), self.number, self.endpoints):
                    yield known, ()
                yield self.udp_message(), self.udp.descriptors
                yield m.LinkState(self.link.up), ()
            case Role.EGRESS | Role.INGRESS:
                yield from self._tunnel_feed()
            case _:
                yield m.ControlSettings(self.runtime_psks), [self.uapi.fileno(), self.admin.fileno()]
                if self.identity is not None:
                    yield self.identity, ()

    def _tunnel_feed(self) -> Iterator[tuple[m.Message, Sequence[int]]]:
        yield m.TunnelPeers(self.number(), [peer.slot for peer in self.model.peers.values()], []), ()
        change = self.number()
        for part in route_parts(self.model.routes(), change):
            yield part, ()
        yield m.RoutesCommit(change), ()
        yield m.TunDevice(self.link.mtu), [self.tun.fd]
        yield self.udp_message(), self.udp.descriptors
        yield m.LinkState(self.link.up), ()

    def _token_settings(self) -> m.TokenSettings:
        token = self.gateway.token
        return m.TokenSettings(
            uri=token.in_order[0],
            twins=list(token.in_order[1:]),
            # Sessions that live are worth more than an exit code.
            at_start="wait" if self.served else token.at_start,
            key=self.gateway.interface.key,
            psk_root=token.psk_root,
            sessions=token.sessions,
            cache_static_static=token.cache_static_static,
            runtime_psks=self.runtime_psks,
            state_directory=str(self.gateway.state_directory),
            prompt=self.tty is not None,
            psk_wrap_key=token.psk_wrap_key,
            psk_overlap=token.psk_overlap,
            previous_key=self.gateway.interface.previous_key,
        )

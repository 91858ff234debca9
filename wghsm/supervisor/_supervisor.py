"""The supervisor at work: what each message, signal and piece of news about the link leads to.

    control     -> _requests      (changes, views, stop)       their answers -> _applying
    handshake   -> newest endpoints
    custodian   -> identity, token state
    children    -> _children      (started, restarted, ended)
    link, TUN   -> _link_news     (LinkState, Mtu; deleted: the end)
    routes      -> _mtu_news      (mtu: auto)
    SIGTERM, SIGINT -> the end in good order; SIGHUP -> _reload, as control may ask for it

Called by `_run`, which made everything in `State` and takes it down again.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING

from wghsm.exits import ExitCode
from wghsm.ipc import MAX_PEERS, ChannelKind, Role
from wghsm.ipc import messages as m

from ._applying import Applying
from ._audit import Audit
from ._children import Children, Settings
from ._endpoints import Resolving, is_address, literal
from ._expiry import Expiry
from ._link_news import LinkNews, deleted
from ._mtu_news import MtuNews
from ._reload import Reloads
from ._requests import Requests
from ._silence import Silence
from ._startup import wants_prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wghsm.ipc import Seat
    from wghsm.process import Loop

    from ._links import LinkWatch
    from ._state import State

__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)

# Control first: wg(8) removes a socket that refuses it, and waits for one that does not answer.
_ORDER = (Role.CONTROL, Role.AUDITOR, Role.CUSTODIAN, Role.EGRESS, Role.INGRESS, Role.HANDSHAKE)


class Supervisor:
    """One running gateway. `outcome` is why it ended, once `loop.run` has come back."""

    def __init__(
        self,
        loop: Loop,
        state: State,
        settings: Settings,
        resolver_user: tuple[int, int],
        served: Callable[[], None],
    ) -> None:
        """`served` runs once, when all children serve for the first time."""
        self.outcome = (ExitCode.OK, "")
        self.children = Children(loop, settings, self)
        self._roles = settings.entries.keys()
        self._loop = loop
        self._state = state
        self._served = served
        self._stopping = False
        self._news = LinkNews(state, self.children.send, self.stop)
        self._mtu = MtuNews(state, loop)
        families = [int(family) for family in state.udp.families]
        self._audit = Audit(
            lambda event: self.children.send(Role.AUDITOR, event), wanted=Role.AUDITOR in settings.entries
        )
        self._applying = Applying(state, self.children, loop, self._audit, self._settled)
        self._expiry = Expiry(state, loop, self._applying)
        self._requests = Requests(state, self.children, self._applying, self._audit, self._asked_to_stop)
        self._resolving = Resolving(loop, resolver_user, families, self._requests.set_endpoints)
        self._silence = Silence(state, loop, self._resolving.want)
        self._reloads = Reloads(state, self.children, loop, self._applying, self._audit, self._resolving.want)

    def start(self, watch: LinkWatch) -> None:
        """Spawn the children and begin to resolve names; the rest happens in the loop."""
        # What the interface went through while it was made is no news.
        watch.drain()
        self._news.look()
        self._loop.add_reader(watch, lambda: self._link_news(watch))
        for peer in self._state.model.peers.values():
            if peer.host is None:
                continue
            address = literal(peer.host)
            if address is None:
                self._resolving.want(peer.public_key, peer.host)
            else:
                self._state.endpoints[peer.slot] = address
        self._expiry.look()
        self._silence.watch()
        self._mtu.look()
        self.children.start([role for role in _ORDER if role in self._roles])

    def stop(self, exit_code: ExitCode = ExitCode.OK, text: str = "", who: m.Asker | None = None) -> None:
        """End the gateway; the first reason counts."""
        if self._stopping:
            return
        self._stopping = True
        self.outcome = (exit_code, text)
        self._audit.stopped(exit_code, text, who)
        self._resolving.close()
        self._mtu.close()
        self.children.stop()
        if self.children.gone:
            self._loop.stop()

    def feed(self, role: Seat) -> Iterator[tuple[m.Message, Sequence[int]]]:
        """The settings of a fresh process, and of the change at work what its role has been told."""
        yield from self._state.feed(role)
        for message in self._applying.joined(role):
            yield message, ()

    def received(self, role: Seat, message: m.Message) -> None:
        """A message from a child; the channel has held it to the table."""
        match message:
            case m.Applied() | m.Prepared():
                self._applying.answered(role, message)
            case m.EndpointMoved():
                if 0 <= message.peer < MAX_PEERS and is_address(message.endpoint.host):
                    self._state.endpoints[message.peer] = message.endpoint
            case m.Identity():
                self._state.identity = message
                self.children.send(Role.CONTROL, message)
            case m.TokenStatus():
                self._note_token(message)
            case m.AuditStatus():
                self._state.audit = message
            case m.ReloadRequest():
                self._reloads.ask(message)
            case _:
                self._requests.handle(message)

    def serves(self, role: Seat) -> None:
        """A child is ready; when all are, the gateway serves."""
        self._applying.serves(role)
        self._audit.child_serves(role)
        if role == Role.AUDITOR:
            self._audit.attached()
        if self.children.served or not self.children.all_ready() or self._stopping:
            return
        self.children.served = True
        _log.info("the gateway serves on port %d", self._state.udp.port)
        self._audit.started(self._state.file, len(self._state.model.peers))
        self._served()

    def left(self, role: Seat) -> None:
        """A child is gone."""
        self._requests.left(role)
        self._applying.left(role)
        if self._stopping:
            if self.children.gone:
                self._loop.stop()
        elif role == Role.CUSTODIAN and self.children.served:
            detail = "the custodian is being restarted"
            if not self.may_restart(role):
                name = self._state.gateway.interface.name
                detail = f"its PIN must be typed again: wghsm down {name}, then wghsm up {self._state.file}"
            self._state.token = m.TokenStatus("away", time.time_ns(), detail)

    def fell(self, role: Seat, text: str) -> None:
        """A child has ended, for the audit log."""
        self._audit.child_left(role, text)

    def may_restart(self, role: Seat) -> bool:
        """A custodian whose PIN was typed cannot come back where there is no terminal any more."""
        state = self._state
        return role != Role.CUSTODIAN or state.tty is not None or not wants_prompt(state.gateway.token.uri)

    def ended(self, exit_code: ExitCode, text: str) -> None:
        """A child's end ends the gateway."""
        if not self._state.tun.exists():
            exit_code, text = deleted(self._state)
        self.stop(exit_code, text)

    def _asked_to_stop(self, who: m.Asker | None) -> None:
        self.stop(who=who)

    def take_signal(self, number: signal.Signals) -> None:
        """SIGTERM and SIGINT end the gateway, SIGHUP has it read its file again."""
        if number is signal.SIGHUP:
            self._reloads.signal()
            return
        _log.info("%s: the gateway ends", number.name)
        if number is signal.SIGINT and not self.children.served:
            self.stop(ExitCode.INTERRUPTED, "interrupted")
        else:
            self.stop()

    def socket_gone(self) -> None:
        """The file of the UAPI socket was deleted: wg(8) cannot reach the gateway any more, and that ends it."""
        _log.info("%s was deleted: the gateway ends", self._state.uapi.path)
        self.stop()

    def _note_token(self, token: m.TokenStatus) -> None:
        before = self._state.token
        if before is None or before.state != token.state:
            # One line is enough: the custodian has said since when it is away, and why.
            log = _log.info if token.state == "ready" else _log.debug
            log("%s is %s%s", token.token or "the token", token.state, f": {token.detail}" if token.detail else "")
        self._audit.token(before, token)
        self._state.token = token

    def _settled(self) -> None:
        state = self._state

        def needed(key: bytes) -> bool:
            peer = state.model.peers.get(key)
            return peer is not None and state.needs_endpoint(peer)

        self._resolving.retain(needed)
        self._expiry.look()
        state.links.follow_rules(state.ways)
        try:
            state.marked()
        except OSError as error:
            _log.warning("the sockets keep a mark: %s", error.strerror)
        self._mtu.look()
        state.packet_filter.follow(state.gateway, state.model, state.udp.port)

    def _link_news(self, watch: LinkWatch) -> None:
        were_down = watch.drain()
        if not self._stopping:
            self._news.look(were_down)


def pairs(*, runtime_psks: bool, audited: bool = False) -> frozenset[ChannelKind]:
    """The kinds of pairs between children; the custodian hears of PSKs from control only where that is allowed."""
    without = {Role.SUPERVISOR} if audited else {Role.SUPERVISOR, Role.AUDITOR}
    return frozenset(
        kind
        for kind in ChannelKind
        if without.isdisjoint(kind.split("-")) and (runtime_psks or kind is not ChannelKind.CONTROL_CUSTODIAN)
    )

"""A reload: the gateway's file, read again, comes into force; sessions of unchanged peers go on.

    read        the file and what is beside it, in a thread; a fault of it ends the reload
    weigh       config.plan: what needs a restart ends it; merge: the next model
    prepare     new sockets, MTU, addresses and routes that are new; one that cannot be had ends it
    try         where the token settings differ, or its PIN has changed, another custodian is started; one that does
                not serve ends it, and the next is started with the settings before
    apply       the change goes through the processes (`_applying`), then old addresses and routes go

Until `apply` everything can be taken back and is; from there on nothing can fail. One reload at a time, in turn with
the changes of control's clients. Called by `_supervisor` for SIGHUP and for the control process.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wghsm import config
from wghsm.ipc import Role
from wghsm.ipc import messages as m
from wghsm.process import settle_anew

from ._applying import Work
from ._endpoints import literal
from ._fault import GatewayFault
from ._hearing import set_hearing
from ._notify import tell_systemd
from ._policy import outer_mark, ways
from ._reading import Reading, Wanted
from ._relink import Relink
from ._sockets import UdpPair
from ._startup import wants_prompt
from .merge import Merged, merged
from .model import Refusal, between, initial
from .restart import EndGateway

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.process import Loop

    from ._applying import Applying
    from ._audit import Audit
    from ._children import Children
    from ._state import State
    from .model import Difference, Model
    from .restart import Verdict

__all__ = ["Reloads"]

_log = logging.getLogger(__name__)

_PROBLEMS_TOLD = 100
# As many as one message bears.
_SEALED_TRIED = 256


class _Answer(Protocol):
    """Tells whoever wanted a reload how it went: 0 or a positive errno, a line, what is wrong with the file."""

    def __call__(self, number: int, text: str, problems: tuple[config.Problem, ...] = ()) -> None: ...


class _RefusedError(Exception):
    """Ends a reload: a positive errno (messages.ReloadResult) and one line."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.errno = number


@dataclass(frozen=True)
class Reloads:
    """All reloads of one gateway. `resolve` asks for the address of a peer's endpoint name."""

    state: State
    children: Children
    loop: Loop
    applying: Applying
    audit: Audit
    resolve: Callable[[bytes, config.Endpoint], None]

    def ask(self, message: m.ReloadRequest) -> None:
        """A client of the control process wants one."""
        client = self.children.incarnation(Role.CONTROL)

        def answer(number: int, text: str, problems: tuple[config.Problem, ...] = ()) -> None:
            # A control process that was restarted meanwhile knows nothing of the request.
            if client == self.children.incarnation(Role.CONTROL):
                told = [m.Problem(each.file, each.line, each.message, each.remedy) for each in problems]
                self.children.send(Role.CONTROL, m.ReloadResult(message.request, number, text, told[:_PROBLEMS_TOLD]))

        if message.file and os.path.realpath(message.file) != os.path.realpath(self.state.file):
            text = f"this gateway runs {self.state.file}, not {message.file}"
            self.audit.reloaded(errno.ENOENT, text, message.who)
            answer(errno.ENOENT, text)
        else:
            self._queue(answer, message.who, login=message.login)

    def signal(self) -> None:
        """SIGHUP wants one; the log says how it went."""

        def answer(number: int, text: str, problems: tuple[config.Problem, ...] = ()) -> None:
            """Nobody waits."""

        self._queue(answer)

    def _queue(self, answer: _Answer, who: m.Asker | None = None, *, login: bool = False) -> None:
        if not self.state.served:
            text = "the gateway is still starting; try again once it serves"
            _log.warning("no reload: %s", text)
            self.audit.reloaded(errno.EAGAIN, text, who)
            answer(errno.EAGAIN, text)
            return
        self.applying.hold(_Attempt(self, answer, who, login=login).begin)


class _Attempt:
    """One reload, from its turn to its end."""

    def __init__(self, reloads: Reloads, answer: _Answer, who: m.Asker | None, *, login: bool) -> None:
        self._who = who
        self._login = login
        self._audit = reloads.audit
        self._state = reloads.state
        self._children = reloads.children
        self._loop = reloads.loop
        self._applying = reloads.applying
        self._resolve = reloads.resolve
        self._answer = answer
        self._sockets: UdpPair | None = None
        self._undo = contextlib.ExitStack()

    def begin(self) -> None:
        """Its turn has come."""
        _log.info("reading %s again", self._state.file)
        tell_systemd("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")
        Reading(self._loop, self._state.file, self._state.gateway, self._read)

    def _read(self, found: Wanted | tuple[config.Problem, ...]) -> None:
        if not isinstance(found, Wanted):
            for problem in found:
                _log.error("%s", problem)
            self._end(errno.EINVAL, _first(found), found)
            return
        self._wanted = found
        try:
            self._weigh()
            self._prepare()
        except _RefusedError as refused:
            self._refuse(refused.errno, str(refused))
            return
        except OSError as error:
            self._refuse(errno.EIO, f"port or mark: {error.strerror}")
            return
        except GatewayFault as fault:
            self._refuse(errno.EIO, str(fault))
            return
        if self._plan.needing(config.Effect.CUSTODIAN) or self._login:
            self._state.trial = found.gateway
            rewrapped = any(change.field == "token.psk_wrap_key" for change in self._plan.changes)
            self._state.sealed = found.sealed(_SEALED_TRIED) if rewrapped else ()
            _log.info("the token settings or its PIN have changed: another custodian is started with them")
            self._children.renew(Role.CUSTODIAN, self._tried)
        else:
            self._apply()

    def _weigh(self) -> None:
        """Whether a reload can do it, and what the next model is. Raises _RefusedError."""
        state, gateway = self._state, self._wanted.gateway
        self._plan = config.plan(state.gateway, gateway, state.wrapped, self._wanted.wrapped, time.time())
        if fields := ", ".join(change.field for change in self._plan.needing(config.Effect.RESTART)):
            raise _RefusedError(errno.ENOTSUP, f"what has changed needs a restart of the gateway: {fields}")
        self._login = self._login or state.login_is_due
        typed = any(wants_prompt(each.token.uri) for each in (state.gateway, gateway))
        if (self._plan.needing(config.Effect.CUSTODIAN) or self._login) and typed and state.tty is None:
            raise _RefusedError(
                errno.ENOTSUP,
                "the token must be logged in to anew; its PIN is typed at a terminal, which needs a restart of the "
                "gateway",
            )
        loaded = initial(state.gateway, state.wrapped, state.loaded_unix / 1e9)
        found = merged(
            state.model,
            loaded,
            self._wanted.model,
            keep_runtime=state.runtime_psks,
            psk_required=gateway.psk == "required",
        )
        if isinstance(found, Refusal):
            raise _RefusedError(errno.EIO, found.text)
        self._merged: Merged = found

    def _prepare(self) -> None:
        """Get what may be refused. Raises OSError and GatewayFault with nothing changed."""
        state, model = self._state, self._merged.model
        port, mark = model.listen_port, outer_mark(self._wanted.gateway.interface, model)
        self._marked = mark != state.mark
        with contextlib.ExitStack() as undo:
            if self._marked and state.ways:
                undo.callback(state.links.end_passing)
                mark = state.mark_first(mark)
            if port != state.model.listen_port and (not port or port != state.udp.port):
                self._sockets = UdpPair(port, mark, state.workers)
                undo.callback(self._sockets.close)
            elif self._marked:
                state.udp.mark(mark)
                undo.callback(state.udp.mark, state.mark)
            old, new = state.gateway.interface, self._wanted.gateway.interface
            self._mtu = state.mtu_for(new, model)
            kept = state.runtime_psks and new.mtu == old.mtu and state.mtu_from == "runtime"
            mtu = state.link.mtu if kept else self._mtu
            self._relink = Relink(state.links, old, new, state.model.owners, model.owners, state.link, mtu)
            self._relink.prepare()
            undo.callback(self._relink.undo)
            undo.callback(state.links.follow_rules, state.ways)
            state.links.add_rules(ways(new, model))
            udp = self._sockets or state.udp
            before = state.packet_filter.prepare(self._wanted.gateway, model, udp.port)
            undo.callback(state.packet_filter.restore, before)
            self._undo = undo.pop_all()

    def _tried(self, verdict: Verdict | None) -> None:
        """The custodian with the new token settings serves, or is gone."""
        if verdict is None:
            self._apply()
            return
        why_not = f"the new token settings do not work: {verdict.text}"
        _log.warning("%s; another custodian is started with those before", why_not)
        self._state.trial = None
        self._children.renew(Role.CUSTODIAN, lambda verdict: self._taken_back(why_not, verdict))

    def _taken_back(self, why_not: str, verdict: Verdict | None) -> None:
        """The custodian with the settings before serves again, or is gone: the old PIN is in no file any more."""
        if isinstance(verdict, EndGateway):
            # The operator is there: sessions need not end before that is mended.
            self._state.pins = None
            why_not = f"{why_not}; there is no custodian now: mend that and reload, before sessions end in 3 minutes"
            self._state.token = m.TokenStatus("away", time.time_ns(), why_not)
            self._refuse(errno.EIO, why_not)
            return
        if verdict is not None:
            self._children.renew(Role.CUSTODIAN)
        self._refuse(errno.EIO, f"{why_not}; those before stay in force")

    def _apply(self) -> None:
        """Everything is there: from here on nothing is refused."""
        state, model = self._state, self._merged.model
        self._undo.pop_all()
        state.trial = None
        audited_before = state.gateway.audit
        state.gateway, state.wrapped = self._wanted.gateway, self._wanted.wrapped
        state.path_mtu = self._mtu if state.gateway.interface.mtu == "auto" else 0
        tell_sockets = self._sockets is not None or self._marked
        if self._sockets is not None:
            set_hearing(self._sockets.descriptors, state.link.up)
            state.udp, old = self._sockets, state.udp
            old.close()
        endpoints: dict[int, m.Endpoint] = {}
        names: dict[bytes, config.Endpoint] = {}
        for key in (model.peers.keys() - state.model.peers.keys()) | self._merged.moved:
            peer = model.peers[key]
            if peer.host is None:
                continue
            address = literal(peer.host)
            if address is None:
                names[key] = peer.host
            else:
                endpoints[peer.slot] = address
        given = {key for key in self._merged.moved if model.peers[key].slot in endpoints}
        found = between(state.model, model, given)

        def done() -> None:
            for key, host in names.items():
                state.outdated.add(model.peers[key].slot)
                self._resolve(key, host)
            self._finish(found)

        if state.gateway.audit != audited_before:
            self._children.renew(Role.AUDITOR)
        self._before = state.model
        self._applying.apply(Work(model, found, endpoints, tell_sockets, done, "reload", self._who))

    def _finish(self, found: Difference) -> None:
        state = self._state
        self._relink.commit()
        state.loaded_unix = time.time_ns()
        state.reload_refused = ""
        text = _summary(found, self._before, state.model, self._plan, login=self._login)
        _log.info("reloaded: %s", text)
        tell_systemd("READY=1", f"STATUS=serving on port {state.udp.port}")
        self._audit.reloaded(0, text, self._who)
        self._answer(0, text)
        # Of the file before, nothing but what is still in force is to stay in memory.
        self._loop.call_at(0, settle_anew)

    def _refuse(self, number: int, text: str) -> None:
        """Take back what was prepared, and end."""
        self._undo.close()
        _log.error("not reloaded: %s", text)
        self._end(number, text)

    def _end(self, number: int, text: str, problems: tuple[config.Problem, ...] = ()) -> None:
        self._state.reload_refused = text
        tell_systemd("READY=1", f"STATUS=serving on port {self._state.udp.port}; the last reload was refused")
        self._audit.reloaded(number, text, self._who)
        self._answer(number, text, problems)
        self._loop.call_at(0, settle_anew)
        self._applying.release()


def _first(problems: tuple[config.Problem, ...]) -> str:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}"


def _summary(found: Difference, before: Model, after: Model, plan: config.Plan, *, login: bool) -> str:
    """What a reload has changed, in one line."""
    old, new = before.allowed_ips(), after.allowed_ips()
    changed = sum(
        before.peers[key] != after.peers[key] or set(old.get(key, ())) != set(new.get(key, ()))
        for key in before.peers.keys() & after.peers.keys()
    )
    said = [
        f"{count} {'peer' if count == 1 else 'peers'} {what}"
        for count, what in ((len(found.added), "added"), (len(found.removed), "removed"), (changed, "changed"))
        if count
    ]
    if login:
        said.append("a new login at the token")
    if fields := [change.field for change in plan.changes if not change.peer]:
        said.append(f"settings changed: {', '.join(fields)}")
    return ", ".join(said) or "nothing has changed"

"""The custodian at work: channels, workers, token and state around the machine of `core`.

    supervisor  --- CustodianPeers ------------> core.rules
    handshake   --- AcceptInitiation, ... -----> core ---> derives, jobs for workers ---> landings ---> core
                                                   |
                                   effects, gathered for one turn of the loop
                                                   v
                   state written and synced ---> keys to ingress and egress ---> answer to handshake
    control     --- PutPsk, DeletePsk ---------> workers ---> PskResult

Main thread only. Session keys are wiped as soon as the channels have taken them.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, Counter, PeerField, identity_number, worker_of_peer
from wghsm.ipc import messages as m
from wghsm.noise.constants import NSEC_PER_SEC
from wghsm.process import ChildFault, boottime, settle
from wghsm.wipe import wipe

from . import psks
from .auditing import Auditing
from .core import MAX_PENDING, Core
from .deriving import Deriving
from .effects import (
    Answer,
    Derive,
    Effect,
    Install,
    Remember,
    RememberIdentity,
    RememberOwn,
    RememberPsk,
    Report,
    ShowIdentity,
    ShowPsk,
    Submit,
    Suspect,
    Used,
)
from .keeper import Keeper
from .rules import Rules, Times
from .state import Batch, State, StateFault
from .workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.pkcs11_backend import TokenError
    from wghsm.process import Child

    from .effects import Job, Landing
    from .health import TokenTimes
    from .vault import TokenVault

__all__ = ["Service"]

_log = logging.getLogger(__name__)

_HANDSHAKE = ChannelKind.HANDSHAKE_CUSTODIAN
_CONTROL = ChannelKind.CONTROL_CUSTODIAN
_TICK = 10 * NSEC_PER_SEC
_SPARE_JOBS = 256
_STOP_TIMEOUT = 2.0


class Service:
    """One custodian. `away` is why no token is open yet; `note` is what status says while all is well."""

    def __init__(
        self,
        child: Child,
        settings: m.TokenSettings,
        vault: TokenVault,
        state: State,
        times: Times,
        token_times: TokenTimes,
        away: TokenError | None = None,
        note: str = "",
    ) -> None:
        self._child = child
        self._settings = settings
        self._vault = vault
        self._state = state
        self._away = away
        times = dataclasses.replace(times, psk_overlap=settings.psk_overlap * NSEC_PER_SEC)
        rules = Rules(child.start.incarnation, state.greatest(), state.last_own(), times)
        self._used = state.identities()
        self._core = Core(
            vault,
            rules,
            _entropy,
            self._count,
            cache_static_static=settings.cache_static_static,
            psks=state.psks(),
            identities=self._used,
        )
        self._outbox: list[Effect] = []
        self._flush_due = False
        self._refusals: collections.Counter[Counter] = collections.Counter()
        self._status: m.TokenStatus | None = None
        self._identity: m.Identity | None = None
        self._workers = Workers(settings.sessions, MAX_PENDING + _SPARE_JOBS)
        self._deriving = Deriving(vault, self._workers)
        self._keeper = Keeper(
            vault, self._workers, self._deriving, child.loop, token_times, child.stats.count, self._token_changed, note
        )
        self._auditing = Auditing(
            child, settings, vault, self._workers, lambda: self._keeper.available, self._audit_changed
        )

    def run(self) -> None:
        """Serve until the supervisor ends it. Raises ChildFault and ProtocolError."""
        child = self._child
        child.on(child.home, m.CustodianPeers, self._on_peers)
        child.on(child.home, m.ForgetTimestamps, self._on_forget_timestamps)
        child.on(_HANDSHAKE, m.AcceptInitiation, self._on_accept_initiation)
        child.on(_HANDSHAKE, m.CreateInitiation, self._on_create_initiation)
        child.on(_HANDSHAKE, m.AcceptResponse, self._on_accept_response)
        child.on(_HANDSHAKE, m.ConfirmSession, self._on_confirm_session)
        child.on(_CONTROL, m.PutPsk, self._on_put_psk)
        child.on(_CONTROL, m.DeletePsk, self._on_delete_psk)
        child.on_attach(_HANDSHAKE, self._on_handshake_process)
        child.loop.add_reader(self._deriving, lambda: self._land(self._deriving.landings()))
        child.loop.add_reader(self._workers, lambda: self._land(self._workers.landings()))
        child.loop.call_later(_TICK, self._tick)
        self._perform(self._core.watch_clock(time.time_ns(), boottime()))
        self._keeper.start(self._away)
        self._token_changed()
        self._audit_changed()
        self._auditing.logins(self._vault.take_logins())
        child.report(m.Ready())
        try:
            child.serve()
        finally:
            self._end()

    # What comes in.

    def _on_peers(self, message: m.CustodianPeers, _fds: list[int]) -> None:
        self._perform(self._core.update_peers(message, boottime(), time.time_ns()))
        self._child.report(m.Applied(message.change))
        settle(len(message.upsert))

    def _on_forget_timestamps(self, message: m.ForgetTimestamps, _fds: list[int]) -> None:
        # What waits to be written would bring them back.
        self._flush()
        self._keep_state(partial(self._state.forget, message.peers))
        for public_key in message.peers:
            self._core.rules.forget_timestamp(public_key)
            _log.warning("the greatest timestamp of peer %s is forgotten", base64.b64encode(public_key).decode())
        self._child.report(m.RequestResult(message.request, 0, "its next handshake is taken, whatever its time"))

    def _on_handshake_process(self, _incarnation: int) -> None:
        self._core.new_handshake_process()
        if self._identity is not None:
            self._child.send(_HANDSHAKE, self._identity)

    def _on_accept_initiation(self, message: m.AcceptInitiation, _fds: list[int]) -> None:
        self._perform(self._core.accept_initiation(message, boottime()))

    def _on_create_initiation(self, message: m.CreateInitiation, _fds: list[int]) -> None:
        self._perform(self._core.create_initiation(message, boottime(), time.time_ns()))

    def _on_accept_response(self, message: m.AcceptResponse, _fds: list[int]) -> None:
        self._perform(self._core.accept_response(message, boottime()))

    def _on_confirm_session(self, message: m.ConfirmSession, _fds: list[int]) -> None:
        self._perform(self._core.confirm_session(message))

    def _on_put_psk(self, message: m.PutPsk, _fds: list[int]) -> None:
        tell = partial(self._tell_control, "psk.put", message.label)
        refused = psks.refusal(message, allowed=self._settings.runtime_psks)
        self._answer_control(refused, tell, lambda: psks.put_job(self._vault, message, tell))

    def _on_delete_psk(self, message: m.DeletePsk, _fds: list[int]) -> None:
        tell = partial(self._tell_control, "psk.delete", message.label)
        refused = psks.refusal(message, allowed=self._settings.runtime_psks)
        self._answer_control(refused, tell, lambda: psks.delete_job(self._vault, message, tell))

    def _answer_control(
        self, refused: m.PskResult | None, tell: Callable[[m.PskResult], None], make_job: Callable[[], Job]
    ) -> None:
        if refused is not None:
            tell(refused)
        else:
            self._workers.submit(make_job())

    def _tell_control(self, operation: str, label: str, result: m.PskResult) -> None:
        _log.info("a PSK was to be changed at run time: %s", result.text or "done")
        self._auditing.psk_changed(operation, label, result)
        self._child.send(_CONTROL, result)

    def _land(self, landings: list[Landing]) -> None:
        for landing in landings:
            self._perform(landing(boottime()))
        for use, number in self._vault.take_uses().items():
            if number:
                self._child.stats.count(use, number)
        self._auditing.logins(self._vault.take_logins())

    # What goes out.

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Derive):
                self._deriving.submit(effect)
            elif isinstance(effect, Submit):
                self._workers.submit(effect.job)
            else:
                self._outbox.append(effect)
        if self._outbox and not self._flush_due:
            # After all that is ready in this turn of the loop: one batch, one sync.
            self._flush_due = True
            self._child.loop.call_later(0, self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        effects, self._outbox = self._outbox, []
        if batch := _batch(effects):
            self._keep_state(partial(self._state.write, batch))
        for effect in effects:
            match effect:
                case Answer(message):
                    self._child.send(_HANDSHAKE, message)
                case Install():
                    self._install(effect)
                case ShowIdentity(peer, identity):
                    self._child.stats.set(peer, PeerField.IDENTITY, identity_number(identity))
                case ShowPsk(peer, value):
                    self._child.stats.set(peer, PeerField.PSK_CONFIRMED, value)
                case Suspect(error):
                    self._keeper.suspect(error)
                case Used():
                    self._auditing.used(effect)
                case Report(text):
                    _log.warning("%s", text)
                    self._keeper.detail = text
                    self._tell_status()

    def _keep_state(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StateFault as fault:
            raise ChildFault(ExitCode.SYSTEM, str(fault)) from None

    def _install(self, install: Install) -> None:
        child = self._child
        workers = child.start.workers
        worker = worker_of_peer(install.peer, workers)
        with install.keys:
            receive, send = install.messages(workers)
        taken = child.has(ChannelKind.CUSTODIAN_INGRESS, worker) and child.has(ChannelKind.CUSTODIAN_EGRESS, worker)
        taken = taken and child.send(ChannelKind.CUSTODIAN_INGRESS, receive, worker=worker)
        taken = taken and child.send(ChannelKind.CUSTODIAN_EGRESS, send, worker=worker)
        wipe(receive.key)
        wipe(send.key)
        child.send(_HANDSHAKE, install.answer if taken else self._core.refuse(install.request).message)

    def _count(self, counter: Counter) -> None:
        self._child.stats.count(counter)
        self._refusals[counter] += 1

    def _audit_changed(self) -> None:
        self._core.stop_handshakes(self._auditing.stopped)

    # The token's health.

    def _token_changed(self) -> None:
        self._core.available = self._keeper.available
        if self._identity is None and self._vault.identities:
            self._identity = m.Identity(*self._vault.identities)
            _log.info("serves %s", _served(self._settings))
            self._look_at_earlier_runs()
            self._forget_ourselves()
            self._child.report(self._identity)
            # Whatever waited for it goes on.
            self._child.send(_HANDSHAKE, self._identity)
        self._tell_status()

    def _look_at_earlier_runs(self) -> None:
        """Say so where the gateway is a stranger to every peer that it had, which a rotation alone does not do."""
        earlier = set(self._used.values())
        if earlier and earlier.isdisjoint(self._vault.identities):
            known = ", ".join(sorted(base64.b64encode(key).decode() for key in earlier))
            _log.warning(
                "key %r is another one than before: no peer that has been here (%d) knows this gateway by it, "
                "but by %s; unless it was exchanged as compromised, see what interface.key and the token were",
                *(self._settings.key, len(self._used), known),
            )

    def _forget_ourselves(self) -> None:
        # Peers that were told while our own keys were not known.
        own = [self._core.rules.by_key(identity) for identity in self._vault.identities]
        self._core.rules.update((), [peer.slot for peer in own if peer is not None])

    def _tell_status(self) -> None:
        core, keeper = self._core, self._keeper
        now = m.TokenStatus(
            keeper.state, keeper.since_unix, keeper.detail, core.accepted, core.created, core.refused, keeper.token
        )
        if now != self._status:
            self._status = now
            self._child.report(now)

    # Now and then.

    def _tick(self) -> None:
        self._child.loop.call_later(_TICK, self._tick)
        self._core.rules.expire(boottime())
        self._auditing.flush()
        self._keep_state(self._state.settle)
        self._perform(self._core.watch_clock(time.time_ns(), boottime()))
        self._tell_status()
        if self._refusals:
            _log.info("refused: %s", ", ".join(f"{number} {cause}" for cause, number in self._refusals.most_common()))
            self._refusals.clear()

    def _end(self) -> None:
        self._core.rules.forget_all()
        for effect in self._outbox:
            if isinstance(effect, Install):
                effect.keys.wipe()
        self._state.close()
        # A module that is stuck is not to be called again; the end of the process logs out as well.
        if self._deriving.stop(_STOP_TIMEOUT) and self._workers.stop(_STOP_TIMEOUT):
            self._vault.close()


def _served(settings: m.TokenSettings) -> str:
    if settings.previous_key is None:
        return f"key {settings.key}"
    return f"key {settings.key} and, until it is retired, {settings.previous_key}"


def _batch(effects: list[Effect]) -> Batch:
    batch = Batch()
    for effect in effects:
        match effect:
            case Remember(public_key, timestamp):
                batch.greatest[public_key] = max(timestamp, batch.greatest.get(public_key, b""))
            case RememberIdentity(public_key, identity):
                batch.identities[public_key] = identity
            case RememberPsk(public_key, kind, record):
                batch.psks[public_key, kind] = record
            case RememberOwn(unix_ns):
                batch.own = max(unix_ns, batch.own or 0)
    return batch


def _entropy(length: int) -> bytearray:
    drawn = os.urandom(length)
    taken = bytearray(drawn)
    wipe(drawn)
    return taken

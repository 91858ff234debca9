"""The custodian's three operations as a machine without I/O: rules and Noise, but no token, clock or channel.

    AcceptInitiation   read_static* -> peer known? -> read_timestamp(*) -> judged, remembered
                       -> write_response(*) -> Install
    ConfirmSession     the PSK of the last message 2 is proven -> remembered, an older one is refused from then on
    CreateInitiation   own timestamp -> write_initiation(*) -> handle, InitiationCreated
    AcceptResponse     handle known? -> read_response* -> Install

A step marked * needs the token: it leaves as a job for a worker thread, whose landing goes on on the main thread.
(*): only with a PSK, or while the static-static secret is not cached; otherwise the step is done at once. What is
to happen outside is returned as a list of `effects`. Whatever the cause, a refusal is the same Refused outside;
inside the cause is counted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.noise import Initiator, Rejected, Responder, is_low_order, tai64n
from wghsm.noise.constants import AUTHTAG_LEN, PUBLIC_KEY_LEN, SYMMETRIC_KEY_LEN, TIMESTAMP_LEN
from wghsm.pkcs11_backend import TokenError

from .attempts import Accepting, Creating, blame, cause_of, days, outdated, read_response, respond, suspect
from .custody import TokenCustody, Vault
from .effects import (
    Answer,
    Effect,
    Install,
    Landing,
    Remember,
    RememberOwn,
    RememberPsk,
    Report,
    ShowPsk,
    Submit,
)
from .epochs import Epochs, Offer, Record, epoch_of, kind_of, next_offer, shown
from .rules import Handle, KnownPeer, Rules, WallClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wghsm.noise import InitiationFields, ResponseFields, SessionKeys

__all__ = ["MAX_PENDING", "Core"]

MAX_PENDING = 1024
"""Requests at the token or waiting for it; more are refused, the handshake process answers with cookies first."""

_T = TypeVar("_T")


class Core:
    """One identity. Main thread only, but for the `work` of its jobs.

    `entropy` returns that many fresh random bytes; `count` counts an event; `psks` is what earlier custodians learnt
    of PSKs. `available` is cleared while the token is away: everything is refused then.
    """

    def __init__(
        self,
        vault: Vault,
        rules: Rules,
        entropy: Callable[[int], bytearray],
        count: Callable[[Counter], None],
        *,
        cache_static_static: bool,
        psks: Mapping[tuple[bytes, str], Record] | None = None,
    ) -> None:
        self.available = True
        self.accepted = 0
        self.created = 0
        self.refused = 0
        self.rules = rules
        self._vault = vault
        self._entropy = entropy
        self._count = count
        self._cache = cache_static_static
        self._clock = WallClock(rules.times.clock_jump)
        self._epochs = Epochs(psks or {}, rules.times.psk_overlap)
        self._wall_ahead = 0
        self._looked = False
        self._generation = 0
        self._pending = 0

    def update_peers(self, message: m.CustodianPeers, now: int, unix_ns: int) -> list[Effect]:
        """Take the supervisor's word for who may be talked to."""
        self._wall_ahead = unix_ns - now
        told = [peer for peer in message.upsert if peer.public_key != self._vault.public_key]
        kinds = {peer.public_key: kind_of(known.psk) for peer in told if (known := self.rules.by_key(peer.public_key))}
        self.rules.update(told, message.remove)
        effects: list[Effect] = []
        for peer in told:
            if kinds.get(peer.public_key, kind_of(peer.psk)) != kind_of(peer.psk):
                effects.append(ShowPsk(peer.peer, 0))
            key, psk = peer.public_key, peer.psk
            effects += self._remember(key, psk, self._epochs.told(key, psk, unix_ns))
            record = self._epochs.record(key, psk)
            if record is not None and record.confirmed is not None:
                effects.append(ShowPsk(peer.peer, record.confirmed + 2))
                if epoch_of(psk) < record.confirmed:
                    effects.append(Report(outdated(peer, record.confirmed)))
        return effects

    def confirm_session(self, message: m.ConfirmSession) -> list[Effect]:
        """Data has come on a session that we responded with."""
        peer = self.rules.by_slot(message.peer)
        if peer is None or peer.offer is None or peer.offer.session != message.session or peer.offer.confirmed:
            return []
        peer.offer.confirmed = True
        return self._proven_psk(peer, peer.offer.source)

    def new_handshake_process(self) -> None:
        """Forget what the last handshake process had asked for: request numbers and handles were its own."""
        self._generation += 1
        self.rules.close_handles()

    def watch_clock(self, unix_ns: int, now: int) -> list[Effect]:
        """Look at the wall clock (Unix ns) beside CLOCK_BOOTTIME (ns): a great step is reported before it is used.

        Called now and then, and before each own timestamp. The first look is at the last own timestamp as well.
        """
        self._wall_ahead = unix_ns - now
        ahead = 0 if self._looked or self.rules.last_own is None else self.rules.last_own - unix_ns
        self._looked = True
        if ahead > self.rules.times.clock_jump:
            return [Report(f"the wall clock is {days(ahead)} behind the last own timestamp, which goes on from there")]
        jump = self._clock.jump(unix_ns, now)
        if jump is None:
            return []
        return [Report(f"the wall clock was moved {'forwards' if jump > 0 else 'backwards'} by {days(abs(jump))}")]

    def accept_initiation(self, message: m.AcceptInitiation, _now: int) -> list[Effect]:
        """Message 1 of a stranger."""
        lengths = (len(message.ephemeral), len(message.static), len(message.timestamp))
        if lengths != (PUBLIC_KEY_LEN, PUBLIC_KEY_LEN + AUTHTAG_LEN, TIMESTAMP_LEN + AUTHTAG_LEN):
            return self._refuse(message.request, Counter.MALFORMED)
        if is_low_order(message.ephemeral):
            return self._refuse(message.request, Counter.LOW_ORDER_POINT)
        if refused := self._unavailable():
            return self._refuse(message.request, refused)
        custody = TokenCustody(self._vault)
        attempt = Accepting(message, self._generation, custody, Responder(custody))
        work = partial(attempt.responder.read_static, message.ephemeral, message.static)
        return self._submit(work, partial(self._identified, attempt), partial(self._accept_failed, attempt))

    def create_initiation(self, message: m.CreateInitiation, now: int, unix_ns: int) -> list[Effect]:
        """Make message 1 for a peer; `unix_ns` is the wall clock."""
        peer = self.rules.by_slot(message.peer)
        if peer is None:
            return self._refuse(message.request, Counter.UNKNOWN_PEER)
        if not (choices := self._choices(peer, now)):
            return self._refuse(message.request, Counter.PSK_OUTDATED)
        if refused := self._unavailable() or self.rules.may_create(peer, now) or self.rules.begin(peer):
            return self._refuse(message.request, refused)
        peer.created_at = now
        effects = self.watch_clock(unix_ns, now)
        timestamp = self.rules.own_timestamp(unix_ns)
        custody = TokenCustody(self._vault)
        custody.bind(peer)
        initiator = Initiator(custody, peer.public_key)
        own_ns = tai64n.to_unix_ns(timestamp)
        attempt = Creating(message, self._generation, peer, own_ns, choices, custody, initiator)
        work = partial(initiator.write_initiation, self._entropy(SYMMETRIC_KEY_LEN), timestamp)
        if custody.has_static_static:
            return effects + self._created(attempt, work(), now)
        return effects + self._submit(work, partial(self._created, attempt), partial(self._create_failed, attempt))

    def accept_response(self, message: m.AcceptResponse, now: int) -> list[Effect]:
        """Message 2 for a handle."""
        handle = self.rules.find_handle(message.handle, now)
        if handle is None:
            return self._refuse(message.request, Counter.UNKNOWN_HANDLE)
        if (len(message.ephemeral), len(message.empty)) != (PUBLIC_KEY_LEN, AUTHTAG_LEN):
            return self._refuse(message.request, Counter.MALFORMED)
        if is_low_order(message.ephemeral):
            return self._refuse(message.request, Counter.LOW_ORDER_POINT)
        # What the handle was made with may be outdated: the peer can have proven a newer PSK since.
        allowed = self._choices(handle.peer, now)
        choices = tuple(source for source in handle.choices if source in allowed)
        if not choices:
            return self._refuse(message.request, Counter.PSK_OUTDATED)
        if refused := self._unavailable() or self.rules.begin(handle.peer):
            return self._refuse(message.request, refused)
        handle.in_use = True
        work = partial(read_response, handle, choices, message.ephemeral, message.empty)
        return self._submit(
            work, partial(self._responded, handle, message), partial(self._response_failed, handle, message)
        )

    def refuse(self, request: int) -> Answer:
        """The answer to a request that failed for a reason outside this machine."""
        self.refused += 1
        return Answer(m.Refused(request))

    # The steps of AcceptInitiation.

    def _identified(self, attempt: Accepting, static: bytes | Rejected, now: int) -> list[Effect]:
        if isinstance(static, Rejected):
            return self._end_accept(attempt, cause_of(static, Counter.BAD_STATIC))
        peer = attempt.peer = self.rules.by_key(static)
        if peer is None or attempt.generation != self._generation:
            return self._end_accept(attempt, Counter.UNKNOWN_PEER)
        attempt.custody.bind(peer)
        work = partial(attempt.responder.read_timestamp, attempt.message.timestamp)
        if attempt.custody.has_static_static:
            # Before the place is taken: whoever names a peer's key cannot keep the peer out without its secret.
            return self._proven(attempt, work(), now)
        if refused := self._take_place(attempt):
            return self._end_accept(attempt, refused)
        return self._submit(work, partial(self._proven, attempt), partial(self._accept_failed, attempt))

    def _proven(self, attempt: Accepting, timestamp: bytes | Rejected, now: int) -> list[Effect]:
        peer = attempt.peer
        if peer is None or not self.rules.is_current(peer):
            return self._end_accept(attempt, Counter.UNKNOWN_PEER)
        self._keep_static_static(peer, attempt.custody)
        if isinstance(timestamp, Rejected):
            return self._end_accept(attempt, cause_of(timestamp, Counter.BAD_TIMESTAMP))
        if not (choices := self._choices(peer, now)):
            return self._end_accept(attempt, Counter.PSK_OUTDATED)
        if refused := self.rules.judge(peer, timestamp, now) or self._take_place(attempt):
            return self._end_accept(attempt, refused)
        self.rules.consume(peer, timestamp, now)
        attempt.custody.use(next_offer(choices, peer.offer, now, self.rules.times.handle_lifetime))
        remember: list[Effect] = [Remember(peer.public_key, timestamp)]
        work = partial(respond, attempt.responder, self._entropy(SYMMETRIC_KEY_LEN))
        if isinstance(attempt.custody.psk_source, m.PskNone):
            return remember + self._accepted(attempt, work(), now)
        return remember + self._submit(work, partial(self._accepted, attempt), partial(self._accept_failed, attempt))

    def _accepted(
        self, attempt: Accepting, result: tuple[ResponseFields, SessionKeys] | Rejected, now: int
    ) -> list[Effect]:
        if isinstance(result, Rejected):
            return self._end_accept(attempt, cause_of(result, Counter.LOW_ORDER_POINT))
        fields, keys = result
        peer, message = attempt.peer, attempt.message
        if peer is None or not self.rules.is_current(peer) or attempt.generation != self._generation:
            keys.wipe()
            return self._end_accept(attempt, Counter.UNKNOWN_PEER)
        self._release(attempt)
        self.rules.close_handle(peer)
        session = self.rules.next_number()
        peer.offer = Offer(session, attempt.custody.psk_source, now)
        answer = m.InitiationAccepted(message.request, peer.slot, session, fields.ephemeral, fields.empty)
        self.accepted += 1
        return [
            Install(
                message.request,
                peer.slot,
                session,
                message.local_index,
                message.remote_index,
                initiator=False,
                created=now,
                keys=keys,
                answer=answer,
            )
        ]

    def _accept_failed(self, attempt: Accepting, error: TokenError, _now: int) -> list[Effect]:
        return self._end_accept(attempt, blame(error)) + suspect(error)

    def _take_place(self, attempt: Accepting) -> Counter | None:
        if attempt.holds_place or attempt.peer is None:
            return None
        refused = self.rules.begin(attempt.peer)
        attempt.holds_place = refused is None
        return refused

    def _release(self, attempt: Accepting) -> None:
        attempt.responder.wipe()
        attempt.custody.wipe()
        if attempt.holds_place and attempt.peer is not None:
            self.rules.end(attempt.peer)

    def _end_accept(self, attempt: Accepting, cause: Counter) -> list[Effect]:
        self._release(attempt)
        return self._refuse(attempt.message.request, cause, attempt.generation)

    # The steps of CreateInitiation.

    def _created(self, attempt: Creating, fields: InitiationFields | Rejected, now: int) -> list[Effect]:
        peer, message = attempt.peer, attempt.message
        self.rules.end(peer)
        current = self.rules.is_current(peer)
        if current:
            self._keep_static_static(peer, attempt.custody)
        attempt.custody.wipe()
        if isinstance(fields, Rejected) or not current or attempt.generation != self._generation:
            attempt.initiator.wipe()
            cause = cause_of(fields, Counter.LOW_ORDER_POINT) if isinstance(fields, Rejected) else Counter.UNKNOWN_PEER
            return self._refuse(message.request, cause, attempt.generation)
        number = self.rules.next_number()
        self.rules.open_handle(
            Handle(
                number,
                peer,
                message.local_index,
                now,
                attempt.generation,
                attempt.initiator,
                attempt.custody,
                attempt.choices,
            )
        )
        self.created += 1
        answer = m.InitiationCreated(
            message.request, peer.slot, number, fields.ephemeral, fields.static, fields.timestamp
        )
        return [RememberOwn(attempt.own_ns), Answer(answer)]

    def _create_failed(self, attempt: Creating, error: TokenError, _now: int) -> list[Effect]:
        self.rules.end(attempt.peer)
        attempt.initiator.wipe()
        attempt.custody.wipe()
        return self._refuse(attempt.message.request, blame(error), attempt.generation) + suspect(error)

    # The step of AcceptResponse.

    def _responded(
        self, handle: Handle, message: m.AcceptResponse, keys: SessionKeys | Rejected, now: int
    ) -> list[Effect]:
        self._give_back(handle)
        if not self.rules.is_open(handle):
            if not isinstance(keys, Rejected):
                keys.wipe()
            return self._refuse_late(message.request, handle)
        if isinstance(keys, Rejected):
            return self._refuse(message.request, cause_of(keys, Counter.BAD_RESPONSE))
        peer, psk = handle.peer, handle.custody.psk_source
        self.rules.close_handle(peer)
        if psk not in self._choices(peer, now):
            keys.wipe()
            return self._refuse(message.request, Counter.PSK_OUTDATED)
        session = self.rules.next_number()
        self.accepted += 1
        # Its last offer came to nothing: the peer has answered us since.
        peer.offer = None
        return [
            *self._proven_psk(peer, psk),
            Install(
                message.request,
                peer.slot,
                session,
                handle.local_index,
                message.remote_index,
                initiator=True,
                created=now,
                keys=keys,
                answer=m.ResponseAccepted(message.request, peer.slot, session),
            ),
        ]

    def _response_failed(self, handle: Handle, message: m.AcceptResponse, error: TokenError, _now: int) -> list[Effect]:
        self._give_back(handle)
        if not self.rules.is_open(handle):
            return self._refuse_late(message.request, handle) + suspect(error)
        return self._refuse(message.request, blame(error)) + suspect(error)

    def _give_back(self, handle: Handle) -> None:
        handle.in_use = False
        self.rules.end(handle.peer)
        if not self.rules.is_open(handle):
            handle.drop()

    def _refuse_late(self, request: int, handle: Handle) -> list[Effect]:
        # A handle that was closed while a worker had it: its handshake process may be gone as well.
        return self._refuse(request, Counter.UNKNOWN_HANDLE, handle.generation)

    # What they share.

    def _unavailable(self) -> Counter | None:
        if not self.available:
            return Counter.TOKEN_FAULT
        return Counter.CUSTODIAN_BUSY if self._pending >= MAX_PENDING else None

    def _submit(
        self,
        work: Callable[[], _T],
        done: Callable[[_T, int], list[Effect]],
        failed: Callable[[TokenError, int], list[Effect]],
    ) -> list[Effect]:
        self._pending += 1

        def job() -> Landing:
            try:
                result = work()
            except TokenError as error:
                # Its frames hold values of the handshake.
                fault = error.with_traceback(None)
                return lambda now: self._land(failed, fault, now)
            return lambda now: self._land(done, result, now)

        return [Submit(job)]

    def _land(self, then: Callable[[_T, int], list[Effect]], value: _T, now: int) -> list[Effect]:
        self._pending -= 1
        return then(value, now)

    def _refuse(self, request: int, cause: Counter, generation: int | None = None) -> list[Effect]:
        self._count(cause)
        self.refused += 1
        if generation is not None and generation != self._generation:
            return []
        return [Answer(m.Refused(request))]

    def _choices(self, peer: KnownPeer, now: int) -> tuple[m.PskSource, ...]:
        return self._epochs.choices(peer.public_key, peer.psk, now + self._wall_ahead, migrate=peer.migrate_from_none)

    def _proven_psk(self, peer: KnownPeer, source: m.PskSource) -> list[Effect]:
        remember = self._remember(peer.public_key, source, self._epochs.confirm(peer.public_key, source))
        return [*remember, ShowPsk(peer.slot, shown(source))]

    @staticmethod
    def _remember(public_key: bytes, source: m.PskSource, record: Record | None) -> list[Effect]:
        kind = kind_of(source)
        return [] if record is None or kind is None else [RememberPsk(public_key, kind, record)]

    def _keep_static_static(self, peer: KnownPeer, custody: TokenCustody) -> None:
        if self._cache and custody.asked and peer.static_static is None:
            peer.static_static = custody.take_static_static()

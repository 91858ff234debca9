"""The custodian's machine as responder: an initiation proven and answered, and the PSK that data confirms.

    AcceptInitiation   read_static* -> peer known? -> read_timestamp(*) -> judged, remembered
                       -> write_response+ -> Install
    ConfirmSession     the PSK of the last message 2 is proven -> remembered, an older one is refused from then on

One half of `core`, which explains the marks; the other half is `initiating`. Pure.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.noise import Rejected, Responder, is_low_order
from wghsm.noise.constants import AUTHTAG_LEN, PUBLIC_KEY_LEN, SYMMETRIC_KEY_LEN, TIMESTAMP_LEN

from .attempts import Accepting, blame, cause_of, respond, suspect
from .custody import TokenCustody
from .effects import Effect, Install, Remember, Used
from .epochs import Offer, next_offer

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.noise import ResponseFields, SessionKeys
    from wghsm.pkcs11_backend import TokenError

    from .common import Common

__all__ = ["ResponderSide"]


class ResponderSide:
    """Initiations of peers."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._rules = common.rules

    def accept_initiation(self, message: m.AcceptInitiation, now: int) -> list[Effect]:
        """Message 1 of a stranger."""
        lengths = (len(message.ephemeral), len(message.static), len(message.timestamp))
        if lengths != (PUBLIC_KEY_LEN, PUBLIC_KEY_LEN + AUTHTAG_LEN, TIMESTAMP_LEN + AUTHTAG_LEN):
            return self._common.refuse(message.request, Counter.MALFORMED)
        if is_low_order(message.ephemeral):
            return self._common.refuse(message.request, Counter.LOW_ORDER_POINT)
        if refused := self._common.unavailable():
            return self._common.refuse(message.request, refused)
        if message.identity not in self._common.vault.identities:
            return self._common.refuse(message.request, Counter.UNKNOWN_IDENTITY)
        custody = TokenCustody(self._common.vault, message.identity)
        attempt = Accepting(message, self._common.generation, custody, Responder(custody), now)
        return self._derive(attempt, message.ephemeral, self._met)

    def confirm_session(self, message: m.ConfirmSession) -> list[Effect]:
        """Data has come on a session that we responded with."""
        peer = self._rules.by_slot(message.peer)
        if peer is None or peer.offer is None or peer.offer.session != message.session or peer.offer.confirmed:
            return []
        peer.offer.confirmed = True
        return self._common.proven_psk(peer, peer.offer.source)

    # The steps of AcceptInitiation.

    def _met(self, attempt: Accepting, secret: bytearray, now: int) -> list[Effect]:
        message = attempt.message
        attempt.custody.give_dh(message.ephemeral, secret)
        static = attempt.responder.read_static(message.ephemeral, message.static)
        attempt.custody.forget_dh()
        if isinstance(static, Rejected):
            return self._end_accept(attempt, cause_of(static, Counter.BAD_STATIC))
        peer = attempt.peer = self._rules.by_key(static)
        if peer is None or attempt.generation != self._common.generation:
            return self._end_accept(attempt, Counter.UNKNOWN_PEER)
        attempt.custody.bind(peer)
        if attempt.custody.has_static_static:
            # Before the place is taken: whoever names a peer's key cannot keep the peer out without its secret.
            return self._proven(attempt, now)
        if refused := self._take_place(attempt):
            return self._end_accept(attempt, refused)
        return self._derive(attempt, static, self._known)

    def _known(self, attempt: Accepting, secret: bytearray, now: int) -> list[Effect]:
        attempt.custody.give_static_static(secret)
        return self._proven(attempt, now)

    def _proven(self, attempt: Accepting, now: int) -> list[Effect]:
        timestamp = attempt.responder.read_timestamp(attempt.message.timestamp)
        peer = attempt.peer
        if peer is None or not self._rules.is_current(peer):
            return self._end_accept(attempt, Counter.UNKNOWN_PEER)
        self._common.keep_static_static(peer, attempt.custody)
        if isinstance(timestamp, Rejected):
            return self._end_accept(attempt, cause_of(timestamp, Counter.BAD_TIMESTAMP))
        if not (choices := self._common.choices(peer, now)):
            return self._end_accept(attempt, Counter.PSK_OUTDATED)
        if refused := self._rules.judge(peer, timestamp, now) or self._take_place(attempt):
            return self._end_accept(attempt, refused)
        self._rules.consume(peer, timestamp, now)
        attempt.custody.use(next_offer(choices, peer.offer, now, self._rules.times.handle_lifetime))
        remember = [Remember(peer.public_key, timestamp), *self._common.proven_identity(peer, attempt.message.identity)]
        work = partial(respond, attempt.responder, self._common.entropy(SYMMETRIC_KEY_LEN))
        if isinstance(attempt.custody.psk_source, m.PskNone):
            return remember + self._accepted(attempt, work(), now)
        return remember + self._common.submit(
            work, partial(self._accepted, attempt), partial(self._accept_failed, attempt)
        )

    def _accepted(
        self, attempt: Accepting, result: tuple[ResponseFields, SessionKeys] | Rejected, now: int
    ) -> list[Effect]:
        if isinstance(result, Rejected):
            return self._end_accept(attempt, cause_of(result, Counter.LOW_ORDER_POINT))
        fields, keys = result
        peer, message = attempt.peer, attempt.message
        if peer is None or not self._rules.is_current(peer) or attempt.generation != self._common.generation:
            keys.wipe()
            return self._end_accept(attempt, Counter.UNKNOWN_PEER)
        self._release(attempt)
        self._rules.close_handle(peer)
        session = self._rules.next_number()
        peer.offer = Offer(session, attempt.custody.psk_source, now)
        answer = m.InitiationAccepted(message.request, peer.slot, session, fields.ephemeral, fields.empty)
        self._common.accepted += 1
        return [
            Install(
                message.request,
                peer.slot,
                session,
                message.local_index,
                message.remote_index,
                initiator=False,
                created=now,
                identity=message.identity,
                keys=keys,
                answer=answer,
            ),
            Used("accept", peer.public_key, message.identity, now - attempt.began, session, peer.offer.source),
        ]

    def _derive(
        self, attempt: Accepting, public: bytes, done: Callable[[Accepting, bytearray, int], list[Effect]]
    ) -> list[Effect]:
        return self._common.derive(
            attempt.message.identity, public, partial(done, attempt), partial(self._accept_failed, attempt)
        )

    def _accept_failed(self, attempt: Accepting, error: TokenError, _now: int) -> list[Effect]:
        return self._end_accept(attempt, blame(error)) + suspect(error)

    def _take_place(self, attempt: Accepting) -> Counter | None:
        if attempt.holds_place or attempt.peer is None:
            return None
        refused = self._rules.begin(attempt.peer)
        attempt.holds_place = refused is None
        return refused

    def _release(self, attempt: Accepting) -> None:
        attempt.responder.wipe()
        attempt.custody.wipe()
        if attempt.holds_place and attempt.peer is not None:
            self._rules.end(attempt.peer)

    def _end_accept(self, attempt: Accepting, cause: Counter) -> list[Effect]:
        self._release(attempt)
        return self._common.refuse(attempt.message.request, cause, attempt.generation)

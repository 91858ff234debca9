"""The custodian's machine as initiator: an initiation made, and the response to it proven.

    CreateInitiation   identity, own timestamp -> write_initiation(*) -> handle, InitiationCreated
    AcceptResponse     handle known? -> read_response*+ -> Install

One half of `core`, which explains the marks; the other half is `accepting`. Pure.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.noise import Initiator, Rejected, is_low_order, tai64n
from wghsm.noise.constants import AUTHTAG_LEN, PUBLIC_KEY_LEN, SYMMETRIC_KEY_LEN

from .attempts import Creating, blame, cause_of, read_response, suspect
from .custody import TokenCustody
from .effects import Answer, Effect, Install, RememberOwn, Used
from .identities import choose
from .rules import Handle

if TYPE_CHECKING:
    from wghsm.noise import SessionKeys
    from wghsm.pkcs11_backend import TokenError

    from .common import Common

__all__ = ["InitiatorSide"]


class InitiatorSide:
    """Own initiations, and the responses of peers."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._rules = common.rules

    def create_initiation(self, message: m.CreateInitiation, now: int, unix_ns: int) -> list[Effect]:
        """Make message 1 for a peer; `unix_ns` is the wall clock."""
        peer = self._rules.by_slot(message.peer)
        if peer is None:
            return self._common.refuse(message.request, Counter.UNKNOWN_PEER)
        if not (choices := self._common.choices(peer, now)):
            return self._common.refuse(message.request, Counter.PSK_OUTDATED)
        if refused := self._common.unavailable() or self._rules.may_create(peer, now) or self._rules.begin(peer):
            return self._common.refuse(message.request, refused)
        peer.created_at = now
        effects = self._common.watch_clock(unix_ns, now)
        timestamp = self._rules.own_timestamp(unix_ns)
        confirmed = self._common.identities.of(peer.public_key)
        identity = choose(self._common.vault.identities, confirmed, message.attempt)
        custody = TokenCustody(self._common.vault, identity)
        custody.bind(peer)
        initiator = Initiator(custody, peer.public_key)
        own_ns = tai64n.to_unix_ns(timestamp)
        attempt = Creating(message, self._common.generation, peer, own_ns, choices, custody, initiator, now)
        if custody.has_static_static:
            return effects + self._create(attempt, timestamp, now)
        return effects + self._common.derive(
            identity, peer.public_key, partial(self._known, attempt, timestamp), partial(self._create_failed, attempt)
        )

    def accept_response(self, message: m.AcceptResponse, now: int) -> list[Effect]:
        """Message 2 for a handle."""
        handle = self._rules.find_handle(message.handle, now)
        if handle is None:
            return self._common.refuse(message.request, Counter.UNKNOWN_HANDLE)
        if (len(message.ephemeral), len(message.empty)) != (PUBLIC_KEY_LEN, AUTHTAG_LEN):
            return self._common.refuse(message.request, Counter.MALFORMED)
        if is_low_order(message.ephemeral):
            return self._common.refuse(message.request, Counter.LOW_ORDER_POINT)
        # What the handle was made with may be outdated: the peer can have proven a newer PSK since.
        allowed = self._common.choices(handle.peer, now)
        choices = tuple(source for source in handle.choices if source in allowed)
        if not choices:
            return self._common.refuse(message.request, Counter.PSK_OUTDATED)
        if refused := self._common.unavailable() or self._rules.begin(handle.peer):
            return self._common.refuse(message.request, refused)
        handle.in_use = True
        return self._common.derive(
            handle.custody.public_key,
            message.ephemeral,
            partial(self._met, handle, message, choices, now),
            partial(self._response_failed, handle, message),
        )

    # The steps of CreateInitiation.

    def _known(self, attempt: Creating, timestamp: bytes, secret: bytearray, now: int) -> list[Effect]:
        attempt.custody.give_static_static(secret)
        return self._create(attempt, timestamp, now)

    def _create(self, attempt: Creating, timestamp: bytes, now: int) -> list[Effect]:
        fields = attempt.initiator.write_initiation(self._common.entropy(SYMMETRIC_KEY_LEN), timestamp)
        peer, message = attempt.peer, attempt.message
        self._rules.end(peer)
        current = self._rules.is_current(peer)
        if current:
            self._common.keep_static_static(peer, attempt.custody)
        attempt.custody.wipe()
        if isinstance(fields, Rejected) or not current or attempt.generation != self._common.generation:
            attempt.initiator.wipe()
            cause = cause_of(fields, Counter.LOW_ORDER_POINT) if isinstance(fields, Rejected) else Counter.UNKNOWN_PEER
            return self._common.refuse(message.request, cause, attempt.generation)
        number = self._rules.next_number()
        self._rules.open_handle(
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
        self._common.created += 1
        answer = m.InitiationCreated(
            message.request,
            peer.slot,
            number,
            fields.ephemeral,
            fields.static,
            fields.timestamp,
            attempt.custody.public_key,
        )
        used = Used("create", peer.public_key, attempt.custody.public_key, now - attempt.began)
        return [RememberOwn(attempt.own_ns), Answer(answer), used]

    def _create_failed(self, attempt: Creating, error: TokenError, _now: int) -> list[Effect]:
        self._rules.end(attempt.peer)
        attempt.initiator.wipe()
        attempt.custody.wipe()
        return self._common.refuse(attempt.message.request, blame(error), attempt.generation) + suspect(error)

    # The steps of AcceptResponse.

    def _met(
        self,
        handle: Handle,
        message: m.AcceptResponse,
        choices: tuple[m.PskSource, ...],
        began: int,
        secret: bytearray,
        now: int,
    ) -> list[Effect]:
        handle.custody.give_dh(message.ephemeral, secret)
        work = partial(read_response, handle, choices, message.ephemeral, message.empty)
        if all(isinstance(source, m.PskNone) for source in choices):
            return self._responded(handle, message, began, work(), now)
        return self._common.submit(
            work, partial(self._responded, handle, message, began), partial(self._response_failed, handle, message)
        )

    def _responded(
        self, handle: Handle, message: m.AcceptResponse, began: int, keys: SessionKeys | Rejected, now: int
    ) -> list[Effect]:
        self._give_back(handle)
        if not self._rules.is_open(handle):
            if not isinstance(keys, Rejected):
                keys.wipe()
            return self._refuse_late(message.request, handle)
        if isinstance(keys, Rejected):
            return self._common.refuse(message.request, cause_of(keys, Counter.BAD_RESPONSE))
        peer, psk = handle.peer, handle.custody.psk_source
        self._rules.close_handle(peer)
        if psk not in self._common.choices(peer, now):
            keys.wipe()
            return self._common.refuse(message.request, Counter.PSK_OUTDATED)
        session = self._rules.next_number()
        self._common.accepted += 1
        # Its last offer came to nothing: the peer has answered us since.
        peer.offer = None
        return [
            *self._common.proven_psk(peer, psk),
            *self._common.proven_identity(peer, handle.custody.public_key),
            Install(
                message.request,
                peer.slot,
                session,
                handle.local_index,
                message.remote_index,
                initiator=True,
                created=now,
                identity=handle.custody.public_key,
                keys=keys,
                answer=m.ResponseAccepted(message.request, peer.slot, session),
            ),
            Used("response", peer.public_key, handle.custody.public_key, now - began, session, psk),
        ]

    def _response_failed(self, handle: Handle, message: m.AcceptResponse, error: TokenError, _now: int) -> list[Effect]:
        self._give_back(handle)
        if not self._rules.is_open(handle):
            return self._refuse_late(message.request, handle) + suspect(error)
        return self._common.refuse(message.request, blame(error)) + suspect(error)

    def _give_back(self, handle: Handle) -> None:
        handle.in_use = False
        self._rules.end(handle.peer)
        if not self._rules.is_open(handle):
            handle.drop()

    def _refuse_late(self, request: int, handle: Handle) -> list[Effect]:
        # A handle that was closed while a worker had it: its handshake process may be gone as well.
        return self._common.refuse(request, Counter.UNKNOWN_HANDLE, handle.generation)

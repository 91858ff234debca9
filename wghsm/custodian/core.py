"""The custodian's three operations as a machine without I/O: rules and Noise, but no token, clock or channel.

    AcceptInitiation, ConfirmSession   `accepting`, as responder
    CreateInitiation, AcceptResponse   `initiating`, as initiator
    CustodianPeers                     here: who may be talked to, and what is known of each

In the drawings of the two halves a step marked * needs a derive, which the token is asked for before it; (*): only
while the static-static secret is not cached. A step marked + leaves as a job for a worker thread if the peer has a PSK,
and its landing goes on on the main thread. All else is done at once. What is to happen outside is returned as a list of
`effects`. Whatever the cause, a refusal is the same Refused outside; inside the cause is counted.

One or two of the gateway's own keys are served, its identities. A handshake is bound to one from its first step to
its last; timestamps, the place at the token and the one handle belong to the peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wghsm.ipc import messages as m

from .accepting import ResponderSide
from .attempts import outdated
from .common import MAX_PENDING, Common
from .effects import Answer, Effect, Report, ShowIdentity, ShowPsk
from .epochs import epoch_of, kind_of
from .initiating import InitiatorSide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wghsm.ipc import Counter

    from .custody import Vault
    from .epochs import Record
    from .rules import Rules

__all__ = ["MAX_PENDING", "Core"]


class Core:
    """One gateway. Main thread only, but for the `work` of its jobs.

    `entropy` returns that many fresh random bytes; `count` counts an event; `psks` and `identities` are what earlier
    custodians learnt of peers. `available` is cleared while the token is away: everything is refused then.
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
        identities: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self._common = Common(
            vault, rules, entropy, count, psks or {}, identities or {}, cache_static_static=cache_static_static
        )
        self.rules = rules
        responder, initiator = ResponderSide(self._common), InitiatorSide(self._common)
        self.accept_initiation = responder.accept_initiation
        self.confirm_session = responder.confirm_session
        self.create_initiation = initiator.create_initiation
        self.accept_response = initiator.accept_response
        self.watch_clock = self._common.watch_clock

    @property
    def available(self) -> bool:
        """Whether the token may be asked."""
        return self._common.available

    @available.setter
    def available(self, value: bool) -> None:
        self._common.available = value

    def stop_handshakes(self, stopped: bool) -> None:
        """Refuse all handshakes while the audit log, which is required, cannot be kept."""
        self._common.stopped = stopped

    @property
    def accepted(self) -> int:
        """Sessions derived so far, in both roles."""
        return self._common.accepted

    @property
    def created(self) -> int:
        """Own initiations made so far."""
        return self._common.created

    @property
    def refused(self) -> int:
        """Requests refused so far."""
        return self._common.refused

    def update_peers(self, message: m.CustodianPeers, now: int, unix_ns: int) -> list[Effect]:
        """Take the supervisor's word for who may be talked to."""
        self._common.set_wall(unix_ns, now)
        told = [peer for peer in message.upsert if peer.public_key not in self._common.vault.identities]
        kinds = {peer.public_key: kind_of(known.psk) for peer in told if (known := self.rules.by_key(peer.public_key))}
        self.rules.update(told, message.remove)
        effects: list[Effect] = []
        for peer in told:
            if kinds.get(peer.public_key, kind_of(peer.psk)) != kind_of(peer.psk):
                effects.append(ShowPsk(peer.peer, 0))
            key, psk = peer.public_key, peer.psk
            if (identity := self._common.identities.of(key)) is not None:
                effects.append(ShowIdentity(peer.peer, identity))
            effects += self._common.remember_psk(key, psk, self._common.epochs.told(key, psk, unix_ns))
            record = self._common.epochs.record(key, psk)
            if record is not None and record.confirmed is not None:
                effects.append(ShowPsk(peer.peer, record.confirmed + 2))
                if epoch_of(psk) < record.confirmed:
                    effects.append(Report(outdated(peer, record.confirmed)))
        return effects

    def new_handshake_process(self) -> None:
        """Forget what the last handshake process had asked for: request numbers and handles were its own."""
        self._common.generation += 1
        self.rules.close_handles()

    def refuse(self, request: int) -> Answer:
        """The answer to a request that failed for a reason outside this machine."""
        self._common.refused += 1
        return Answer(m.Refused(request))

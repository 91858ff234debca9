"""What both halves of the custodian's machine share: the rules, what is known of peers, and the way to the workers.

`core` makes it; `accepting` and `initiating` work with it. Main thread only, but for the `work` of its jobs. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.pkcs11_backend import TokenError

from .attempts import days
from .effects import (
    Answer,
    Derive,
    Effect,
    Landing,
    RememberIdentity,
    RememberPsk,
    Report,
    ShowIdentity,
    ShowPsk,
    Submit,
)
from .epochs import Epochs, Record, kind_of, shown
from .identities import Identities
from .rules import KnownPeer, Rules, WallClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .custody import TokenCustody, Vault

__all__ = ["MAX_PENDING", "Common"]

MAX_PENDING = 1024
"""Requests at the token or waiting for it; more are refused, the handshake process answers with cookies first."""

_T = TypeVar("_T")


class Common:
    """`entropy` returns that many fresh random bytes; `count` counts an event; the rest as in `core.Core`."""

    def __init__(
        self,
        vault: Vault,
        rules: Rules,
        entropy: Callable[[int], bytearray],
        count: Callable[[Counter], None],
        psks: Mapping[tuple[bytes, str], Record],
        identities: Mapping[bytes, bytes],
        *,
        cache_static_static: bool,
    ) -> None:
        self.available = True
        self.stopped = False
        """Whether handshakes must wait for the audit log."""
        self.accepted = 0
        self.created = 0
        self.refused = 0
        self.generation = 0
        """Counts the handshake processes: request numbers and handles are each one's own."""
        self.vault = vault
        self.rules = rules
        self.entropy = entropy
        self.epochs = Epochs(psks, rules.times.psk_overlap)
        self.identities = Identities(identities)
        self._count = count
        self._cache = cache_static_static
        self._clock = WallClock(rules.times.clock_jump)
        self._wall_ahead = 0
        self._looked = False
        self._pending = 0

    # Time.

    def watch_clock(self, unix_ns: int, now: int) -> list[Effect]:
        """Look at the wall clock (Unix ns) beside CLOCK_BOOTTIME (ns): a great step is reported before it is used.

        Called now and then, and before each own timestamp. The first look is at the last own timestamp as well.
        """
        self.set_wall(unix_ns, now)
        ahead = 0 if self._looked or self.rules.last_own is None else self.rules.last_own - unix_ns
        self._looked = True
        if ahead > self.rules.times.clock_jump:
            return [Report(f"the wall clock is {days(ahead)} behind the last own timestamp, which goes on from there")]
        jump = self._clock.jump(unix_ns, now)
        if jump is None:
            return []
        return [Report(f"the wall clock was moved {'forwards' if jump > 0 else 'backwards'} by {days(abs(jump))}")]

    def set_wall(self, unix_ns: int, now: int) -> None:
        """The wall clock is at `unix_ns` when CLOCK_BOOTTIME is at `now`."""
        self._wall_ahead = unix_ns - now

    # The workers.

    def unavailable(self) -> Counter | None:
        """Why the token cannot be asked now."""
        if not self.available:
            return Counter.TOKEN_FAULT
        if self.stopped:
            return Counter.AUDIT_STOPPED
        return Counter.CUSTODIAN_BUSY if self._pending >= MAX_PENDING else None

    def submit(
        self,
        work: Callable[[], _T],
        done: Callable[[_T, int], list[Effect]],
        failed: Callable[[TokenError, int], list[Effect]],
    ) -> list[Effect]:
        """Have a worker do `work`; then `done` takes its result, or `failed` the token's error."""
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

    def derive(
        self,
        identity: bytes,
        public: bytes,
        done: Callable[[bytearray, int], list[Effect]],
        failed: Callable[[TokenError, int], list[Effect]],
    ) -> list[Effect]:
        """Have the token derive; then `done` takes the 32 bytes, which are its to wipe, or `failed` the error."""
        self._pending += 1

        def landed(result: bytearray | TokenError, now: int) -> list[Effect]:
            self._pending -= 1
            return failed(result, now) if isinstance(result, TokenError) else done(result, now)

        return [Derive(identity, public, landed)]

    def _land(self, then: Callable[[_T, int], list[Effect]], value: _T, now: int) -> list[Effect]:
        self._pending -= 1
        return then(value, now)

    # Answers.

    def refuse(self, request: int, cause: Counter, generation: int | None = None) -> list[Effect]:
        """Refuse a request and count why; one of an earlier handshake process (`generation`) gets no answer."""
        self._count(cause)
        self.refused += 1
        if generation is not None and generation != self.generation:
            return []
        return [Answer(m.Refused(request))]

    # What is known of peers.

    def choices(self, peer: KnownPeer, now: int) -> tuple[m.PskSource, ...]:
        """The PSKs that may be tried with the peer at `now` (CLOCK_BOOTTIME ns), the newest first."""
        return self.epochs.choices(peer.public_key, peer.psk, now + self._wall_ahead, migrate=peer.migrate_from_none)

    def proven_psk(self, peer: KnownPeer, source: m.PskSource) -> list[Effect]:
        """The peer has proven the PSK of `source`."""
        remember = self.remember_psk(peer.public_key, source, self.epochs.confirm(peer.public_key, source))
        return [*remember, ShowPsk(peer.slot, shown(source))]

    @staticmethod
    def remember_psk(public_key: bytes, source: m.PskSource, record: Record | None) -> list[Effect]:
        """Have a changed record written."""
        kind = kind_of(source)
        return [] if record is None or kind is None else [RememberPsk(public_key, kind, record)]

    def proven_identity(self, peer: KnownPeer, identity: bytes) -> list[Effect]:
        """The peer has made a handshake with this public key of ours."""
        if not self.identities.confirm(peer.public_key, identity):
            return []
        return [RememberIdentity(peer.public_key, identity), ShowIdentity(peer.slot, identity)]

    def keep_static_static(self, peer: KnownPeer, custody: TokenCustody) -> None:
        """Keep what the token has computed for this identity and peer, if the configuration lets it be kept."""
        wanted = self._cache and custody.asked and custody.public_key not in peer.static_static
        if wanted and (secret := custody.take_static_static()) is not None:
            peer.static_static[custody.public_key] = secret

"""The token's side of the custodian: the gateway's keys, the PSKs, and the way back after a fault.

    candidates   the tokens that hold the same keys, best first: most gateways have one
    open         the first that works          repair    the ladder, and then the others
    look_round   the others, once: would they do?          look_back   is a better one there again?

Implements `custody.Vault` over the OpenToken that is in use (`opened`). What asks it runs on worker threads, but for
`begin_derive`; `open`, `repair`, `look_round` and `look_back` exclude each other: the main thread at the start, then
the workers' one thread beside.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from wghsm.exits import ExitCode
from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.pkcs11_backend import (
    PinLocked,
    PinRefused,
    TokenError,
    TokenFault,
    TokenNotFound,
    TokenPool,
)
from wghsm.wipe import wipe

from .opened import Expected, OpenToken, TokenDiffers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wghsm.pkcs11_backend import Derivers, TokenUri

__all__ = ["Candidate", "Login", "TokenVault", "TokensAway", "is_away"]

_log = logging.getLogger(__name__)

_RECOVERY_STEPS = (1, 2)
_TOKEN_NOT_PRESENT = 0x0E0
_LOGINS = 64

_T = TypeVar("_T")


class TokensAway(TokenError):  # noqa: N818
    """None of several tokens can be used now."""

    exit_code = ExitCode.TOKEN_UNUSABLE
    final = False


def is_away(error: TokenError) -> bool:
    """Whether a token that cannot be opened may still come: it is not there, or does not answer well."""
    return isinstance(error, TokenFault | TokenNotFound | TokensAway)


class _Latch(Protocol):
    path: Path

    def is_refused(self, pin: bytearray) -> bool: ...
    def close(self) -> None: ...
    def open(self) -> None: ...


@dataclass(slots=True, eq=False)
class Candidate:
    """One token that may be used. `pin` is None where the token asks for it itself; `latch` guards it."""

    uri: TokenUri
    pin: bytearray | None = field(repr=False)
    latch: _Latch
    out: TokenError | None = None
    """Why it is not tried again by this process."""
    said: str = ""
    tried: bool = False


@dataclass(frozen=True, slots=True)
class Login:
    """A login, for the audit log: ok, or refused with the reason, at Unix nanoseconds."""

    at_unix: int
    token: str
    result: str
    text: str = ""


class TokenVault:
    """The gateway's keys, in one token or in several.

    Errors are those of wghsm.pkcs11_backend; LatchFault of `latch`.
    """

    def __init__(self, settings: m.TokenSettings, candidates: Sequence[Candidate]) -> None:
        """The PINs of `candidates` are the vault's from now on: it wipes them. Nothing is opened yet."""
        self._settings = settings
        self._candidates = list(candidates)
        self._opened: OpenToken | None = None
        self._expected = Expected()
        self.at_pinpad = False
        """Whether a login is waiting for a person at the token's pinpad."""
        self._lock = threading.Lock()
        self._uses = {Counter.DERIVE: 0, Counter.PSK_USE: 0}
        self._logins: deque[Login] = deque(maxlen=_LOGINS)

    @property
    def identities(self) -> tuple[bytes, ...]:
        """The public keys that are served, 32 bytes each, the current one first; none until a token was opened."""
        return self._expected.identities

    @property
    def token(self) -> str:
        """The token in use, as messages name it; empty while none is open."""
        opened = self._opened
        return "" if opened is None else opened.pool.token_name

    @property
    def token_identity(self) -> str:
        """The label and serial number of the token in use; empty while none is open."""
        opened = self._opened
        return "" if opened is None else opened.pool.token_identity

    @property
    def several(self) -> bool:
        """Whether another token could take over."""
        return len(self._candidates) > 1

    @property
    def at_best(self) -> bool:
        """Whether there is no better token to go back to."""
        opened = self._opened
        return opened is None or not any(candidate.out is None for candidate in self._candidates[: opened.place])

    # What handshakes need.

    def begin_derive(self, event: int, number: int, identity: bytes, public: bytes) -> Derivers | None:
        """Have X25519 of one of the gateway's keys with 32 bytes `public` derived by the threads that are returned.

        They ring the eventfd `event`, the same each time, and give the result with `number`. None where there are no
        such threads: `derive` is there then. Raises queue.Full and OSError as well.
        """

        def begin(opened: OpenToken) -> Derivers | None:
            if (derivers := opened.derivers(event)) is not None:
                self._count(Counter.DERIVE)
                derivers.put(number, opened.keys[identity], public)
            return derivers

        return self._ask(begin)

    def has_left(self, derivers: Derivers) -> bool:
        """Whether another token is in use than that of `derivers`."""
        opened = self._opened
        return opened is not None and opened.deriving is not derivers

    def derive(self, identity: bytes, public: bytes) -> bytearray:
        """X25519 of one of the gateway's keys with 32 bytes `public`: 32 bytes for the caller to wipe."""
        self._count(Counter.DERIVE)
        return self._ask(lambda opened: opened.derive(identity, public))

    def psk(self, identity: bytes, source: m.PskDerived | m.PskObject | m.PskWrapped, peer_public: bytes) -> bytearray:
        """The pre-shared key of a peer for handshakes with that one of the keys: 32 bytes for the caller to wipe."""
        self._count(Counter.PSK_USE)
        return self._ask(lambda opened: opened.psk(identity, source, peer_public))

    def put_psk(self, label: str, psk: bytearray) -> None:
        """Store a PSK of 32 bytes under `label`, in place of an older one; `psk` is wiped."""
        try:
            self._now().put_psk(label, psk)
        finally:
            wipe(psk)

    def delete_psk(self, label: str) -> bool:
        """Remove the PSK under `label`; False if there is none."""
        return self._now().delete_psk(label)

    def take_uses(self) -> dict[Counter, int]:
        """How often the key and PSKs were used since the last call; for the main thread, which counts."""
        with self._lock:
            taken, self._uses = self._uses, dict.fromkeys(self._uses, 0)
        return taken

    def take_logins(self) -> list[Login]:
        """The logins since the last call, the last 64 of them; for the main thread."""
        return [self._logins.popleft() for _ in range(len(self._logins))]

    def sign_checkpoint(self, label: str, statement: bytes) -> tuple[bytes, str, str]:
        """Sign with the audit key: 64 bytes, the key's fingerprint (SHA-256 of its SPKI in hex) and its algorithm."""
        return self._ask(lambda opened: opened.sign(label, statement))

    # The token's health.

    def check(self) -> None:
        """Use keys and secrets on data known to be good, with results that are no secret; raises TokenError."""
        opened = self._now()
        opened.check()
        self._expected.check_secrets(opened)

    def open(self) -> None:
        """Log in to the first token that works. Raises TokenError: see `is_away`."""
        faults: list[TokenError] = []
        for place, candidate in enumerate(self._candidates):
            try:
                self._opened = self._log_in(place)
            except TokenError as error:
                fault = error.with_traceback(None)
                faults.append(fault)
                if self.several:
                    _say(candidate, f"{_name(candidate)} is not used: {fault}")
            else:
                candidate.said = ""
                return
        raise _sum_up(faults)

    def repair(self, *, all_steps: bool, elsewhere: bool) -> None:
        """Climb the recovery ladder (its last step only, unless `all_steps`) and check; raises TokenError.

        With `elsewhere`, log in to the first token of all that works if that does not help.
        """
        opened = self._opened
        if opened is None:
            self.open()
            return
        try:
            self._climb(opened, all_steps=all_steps)
        except TokenError as error:
            if not self.several or not (elsewhere or self._candidates[opened.place].out):
                raise
            _log.warning("%s is given up: %s", opened.pool.token_name, error)
        else:
            return
        self._opened = None
        opened.pool.retire()
        self.open()

    def look_round(self) -> None:
        """Try the tokens that are not in use, and tell what they are worth."""
        for place, candidate in enumerate(self._candidates):
            if self._opened is None or place == self._opened.place or candidate.out is not None:
                continue
            try:
                self._log_in(place).pool.close()
            except TokenError as error:
                _say(candidate, f"{_name(candidate)} could not take over: {error}")
            else:
                candidate.said = ""
                _log.info("%s holds the same keys and could take over", _name(candidate))

    def look_back(self) -> bool:
        """Go back to a better token if one is there again; True if so. The one in use serves until then."""
        opened = self._opened
        if opened is None:
            return False
        for place in range(opened.place):
            try:
                better = self._log_in(place)
            except TokenError as error:
                _log.debug("%s: not yet: %s", _name(self._candidates[place]), error)
                continue
            self._candidates[place].said = ""
            self._opened = better
            opened.pool.retire()
            return True
        return False

    def close(self) -> None:
        """Log out, wipe the PINs."""
        if self._opened is not None:
            self._opened.pool.close()
        for candidate in self._candidates:
            wipe(candidate.pin)

    def _log_in(self, place: int) -> OpenToken:
        candidate = self._candidates[place]
        if candidate.out is not None:
            raise candidate.out
        try:
            opened = self._open_pool(place)
        except TokenError as error:
            # Another try would cost the token's patience, or use another key.
            if isinstance(error, PinRefused | TokenDiffers):
                candidate.out = error.with_traceback(None)
            raise
        if not self.several:
            # The pool has a copy and stays.
            wipe(candidate.pin)
        return opened

    def _open_pool(self, place: int) -> OpenToken:
        candidate, settings = self._candidates[place], self._settings
        if candidate.pin is not None and not candidate.tried and candidate.latch.is_refused(candidate.pin):
            raise PinRefused(
                f"{_name(candidate)} has refused this PIN before, so it was not sent again; "
                f"correct the PIN, or delete {candidate.latch.path} to have it tried once more"
            )
        candidate.tried = True
        try:
            pool = TokenPool.open(
                candidate.uri,
                candidate.pin,
                settings.sessions,
                read_write=settings.runtime_psks,
                asking=self._operator_is_asked,
            )
        except PinRefused as error:
            self._note_login(_name(candidate), error)
            _latch(candidate, error)
            raise
        self._note_login(pool.token_identity)
        try:
            if candidate.pin is not None:
                candidate.latch.open()
            opened = OpenToken(place, pool, settings)
            self._expected.compare(opened)
        except BaseException:
            pool.close()
            raise
        for public, key in opened.keys.items():
            shown = base64.b64encode(public).decode()
            _log.info("logged in to %s, key %r, public key %s", pool.token_name, key.label, shown)
        return opened

    def _climb(self, opened: OpenToken, *, all_steps: bool) -> None:
        steps = _RECOVERY_STEPS if all_steps else _RECOVERY_STEPS[-1:]
        for step in steps:
            try:
                opened.pool.recover(step)
                self._note_login(opened.pool.token_identity)
                self.check()
            except PinRefused as error:
                self._note_login(opened.pool.token_identity, error)
                candidate = self._candidates[opened.place]
                candidate.out = error.with_traceback(None)
                _latch(candidate, error)
                raise
            except TokenError:
                if step == steps[-1]:
                    raise
            else:
                return

    # How handshakes are served.

    def _now(self) -> OpenToken:
        opened = self._opened
        if opened is None:
            raise TokenFault(_TOKEN_NOT_PRESENT, "using a token while none is open")
        return opened

    def _ask(self, work: Callable[[OpenToken], _T]) -> _T:
        opened = self._now()
        try:
            return work(opened)
        except TokenFault:
            if self._opened is opened or self._opened is None:
                raise
        # It was exchanged for another one meanwhile.
        return work(self._now())

    def _note_login(self, token: str, refused: PinRefused | None = None) -> None:
        self._logins.append(
            Login(time.time_ns(), token, "ok")
            if refused is None
            else Login(time.time_ns(), token, "refused", str(refused))
        )

    def _operator_is_asked(self, now: bool) -> None:
        self.at_pinpad = now

    def _count(self, use: Counter) -> None:
        with self._lock:
            self._uses[use] += 1


def _name(candidate: Candidate) -> str:
    return candidate.uri.describe_token()


def _latch(candidate: Candidate, error: PinRefused) -> None:
    # What was typed at a pinpad is not known here; and a locked token does not look at the PIN.
    if candidate.pin is not None and not isinstance(error, PinLocked):
        candidate.latch.close()


def _say(candidate: Candidate, text: str) -> None:
    if text != candidate.said:
        candidate.said = text
        _log.warning("%s", text)


def _sum_up(faults: list[TokenError]) -> TokenError:
    if len(faults) == 1:
        return faults[0]
    if any(is_away(fault) for fault in faults):
        return TokensAway("; ".join(str(fault) for fault in faults))
    # Nothing that waiting helps: a refused PIN counts most.
    return next((fault for fault in faults if isinstance(fault, PinRefused)), faults[0])

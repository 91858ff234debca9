"""The session pool: one session that carries the login, N worker sessions for N threads.

Used by the custodian (derive, PSKs) and, through `provision`, by the commands.

    TokenPool.open(uri, pin, sessions=4)
      |  control session: C_Login once; closing it would log everybody out and make every handle stale
      |  workers: opened without a PIN, they see the private objects because the login belongs to the process
      v
    key = pool.find_key("gateway")            with pool.session() as s: s.derive(key, public)

A session is used by one thread at a time: `session()` lends one and takes it back; `derivers` are threads in C that
share them, for who must not wait for each answer. `recover` climbs the ladder of
PKCS11.md section 3 and renews the handles inside the PrivateKey, RootSecret and StoredPsk values handed out before.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from pkcs11 import PKCS11Error

from wghsm.pkcs11_backend import _objects, _psk
from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._ckr import ckr_from_exception
from wghsm.pkcs11_backend._derivers import Derivers, lending
from wghsm.pkcs11_backend._login import log_in, open_session
from wghsm.pkcs11_backend._objects import PrivateKey, RootSecret, StoredPsk
from wghsm.pkcs11_backend._worker_session import WorkerSession
from wghsm.pkcs11_backend.errors import KeyNotFound, KeyUnfit, PinRefused, TokenFault, TokenNotFound
from wghsm.pkcs11_backend.module import Module, load
from wghsm.pkcs11_backend.uri import TokenUri
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from pkcs11.types import Token

    from wghsm.pkcs11_backend._cryptoki import FunctionList

__all__ = ["TokenPool"]


class TokenPool:
    """The sessions on one token of this process. Make it with `open`; close it, or use it as a context manager."""

    def __init__(
        self, module: Module, uri: TokenUri, pin: bytearray | None, sessions: int, *, read_write: bool
    ) -> None:
        self.uri = uri
        self.read_write = read_write
        self.generation = 0
        self._module = module
        self._pin = bytearray(pin or b"")
        self._pinpad = pin is None
        self._at_final_try = False
        self._asking: Callable[[bool], None] | None = None
        self._workers = [WorkerSession() for _ in range(sessions)]
        self._lending = lending(module.functions, sessions, leaves_secrets=module.leaves_secrets)
        self._control: Calls | None = None
        self._control_lock = threading.RLock()
        self._recovering = threading.Lock()
        self._token: Token | None = None
        self._mechanisms: frozenset[int] = frozenset()
        self._keys: dict[str, PrivateKey] = {}
        self._roots: dict[str, RootSecret] = {}
        self._psks: dict[str, StoredPsk] = {}
        self._logged_in = False
        self._refused: PinRefused | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        uri: TokenUri | str,
        pin: bytearray | None,
        sessions: int,
        read_write: bool = False,
        module_arguments: str | None = None,
        *,
        at_final_try: bool = False,
        asking: Callable[[bool], None] | None = None,
    ) -> "TokenPool":
        """Load the module, find the token, log in once and open `sessions` worker sessions.

        `pin` is copied (recovery needs it) and stays the caller's to wipe; with None the token asks for it at its
        pinpad, now and at each recovery, and `asking` is called with True before that and with False after, on the
        thread that logs in. The last try before the token locks is spent only with `at_final_try`. Raises UriError,
        ModuleMissing, TokenNotFound, AmbiguousToken, PinRefused, PinLocked, PinUnavailable, TokenFault; nothing stays
        open then.
        """
        if isinstance(uri, str):
            uri = TokenUri.parse(uri)
        module = load(uri, module_arguments)
        module.acquire()
        pool = cls(module, uri, pin, sessions, read_write=read_write)
        pool._at_final_try = at_final_try
        pool._asking = asking
        try:
            pool._start()
            pool._at_final_try = False
        except BaseException:
            pool.close()
            raise
        pool._give_back(range(sessions))
        return pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def token_name(self) -> str:
        """The token as messages name it: `token 'gw'`."""
        return f"token {self._token.label!r}" if self._token is not None else self.uri.describe_token()

    @property
    def token_identity(self) -> str:
        """The token's label and serial number, empty while none is open."""
        token = self._token
        return "" if token is None else f"{token.label} {token.serial.decode('utf-8', 'replace')}".strip()

    @property
    def mechanisms(self) -> frozenset[int]:
        """The CKM_ values that the token lists."""
        return self._mechanisms

    @property
    def functions(self) -> "FunctionList":
        """The module's C functions (this room only)."""
        return self._module.functions

    def close(self) -> None:
        """Log out, close every session, wipe the kept PIN. Idempotent; no session may be lent out."""
        with self._control_lock:
            if self._closed:
                return
            self._closed = True
            self._drop_sessions()
            self._lending.end()
            wipe(self._pin)
            self._module.release()

    def retire(self, timeout: float = 30.0) -> None:
        """Close the pool when every session is back; who waits for one then gets a TokenFault. Never raises.

        If a session is not back within `timeout` seconds, because the module is stuck, all stays as it is.
        """
        try:
            lent = self._collect(timeout)
        except TokenFault:
            return
        try:
            self.close()
        finally:
            self._give_back(lent)

    @contextmanager
    def session(self, timeout: float | None = None) -> Iterator[WorkerSession]:
        """Lend a worker session; wait for a free one, at most `timeout` seconds (TokenFault then)."""
        place = self._lending.borrow(timeout)
        if place is None:
            raise TokenFault(0x0B1, "waiting for a free session")
        worker = self._workers[place]
        worker.begins = False
        try:
            yield worker
        except TokenFault:
            # An operation of several calls that broke off may stay active, and would bar the next one for good.
            if worker.begins:
                self._replace(place)
            raise
        finally:
            self._lending.give_back(place)

    def derivers(self, event: int) -> "Derivers | None":
        """The threads that derive with these sessions, started by the first call, which ring the eventfd `event`.

        None where the package was built without C. Raises OSError.
        """
        if not isinstance(self._lending, Derivers):
            return None
        self._lending.start(event)
        return self._lending

    @contextmanager
    def control(self) -> Iterator[Calls]:
        """Lend the session that carries the login, for searching and writing (this room only)."""
        with self._control_lock:
            if self._control is None:
                raise TokenFault(0x0B3, "using a token that is down")
            yield self._control

    def open_extra(self, which: str) -> int:
        """Open one more session, read-only, that is the caller's to close (this room only). Raises TokenFault."""
        if self._token is None:
            raise TokenFault(0x0B3, "using a token that is down")
        return open_session(self._module.functions, self._token, read_write=False, which=which)

    def find_key(self, label: str) -> PrivateKey:
        """Find the X25519 private key `label` and prove that it derives (base point, compared with CKA_EC_POINT).

        Raises KeyNotFound, AmbiguousKey, CurveUnsupported, KeyUnfit (all final) and TokenFault.
        """
        with self.control() as calls:
            found = _objects.find_private_key(calls, self.token_name, self._mechanisms, label)
            known = self._keys.setdefault(label, found)
            if known.public_key != found.public_key:
                raise KeyUnfit(f"{self.token_name}: key {label!r} is another key than before; restart to use it")
            known.handle, known.dialect = found.handle, found.dialect
            self._lending.know(known)
            return known

    def find_root(self, label: str) -> RootSecret:
        """Find the root of derived PSKs; raises as `find_key`."""
        with self.control() as calls:
            found = _objects.find_root(calls, self.token_name, label)
            known = self._roots.setdefault(label, found)
            known.handle = found.handle
            return known

    def find_psk(self, label: str) -> StoredPsk:
        """Find the PSK object `label`; raises as `find_key`."""
        with self.control() as calls:
            found = _objects.find_psk(calls, self.token_name, label)
            known = self._psks.setdefault(label, found)
            known.handle = found.handle
            return known

    def put_psk(self, label: str, psk: bytearray) -> StoredPsk:
        """Store 32 bytes as the PSK object `label`, in place of one that is there (needs read_write).

        Raises LabelTaken when the label belongs to something else than a PSK object, KeyUnfit when the token does not
        take it or makes it unreadable, ValueError, TokenFault.
        """
        with self.control() as calls:
            _psk.put_object(calls, self.token_name, label, psk)
            return self.find_psk(label)

    def delete_psk(self, label: str) -> bool:
        """Destroy the PSK object `label` (needs read_write); False when there is none. Raises as `put_psk`."""
        with self.control() as calls:
            destroyed = _psk.destroy_object(calls, self.token_name, label)
            known = self._psks.pop(label, None)
            if known is not None:
                known.handle = 0
            return destroyed

    def recover(self, level: int, generation: int | None = None, timeout: float = 30.0) -> None:
        """Climb the recovery ladder: 1 reopens the sessions, logs in and finds the keys again; 2 first does
        C_Finalize and C_Initialize.

        Waits up to `timeout` seconds until every worker session is back, so never call it while holding one. With
        `generation` (the value of `pool.generation` before the failed call) it returns at once when another thread
        has recovered since. Raises PinRefused (final; the kept PIN is wiped), AmbiguousKey, KeyUnfit and TokenFault;
        a token or key that is not there now is a TokenFault too, it may come back.
        """
        with self._recovering:
            if generation is not None and generation != self.generation:
                return
            lent = self._collect(timeout)
            try:
                with self._control_lock:
                    self._recover(level)
                self.generation += 1
            finally:
                self._give_back(lent)

    def _recover(self, level: int) -> None:
        if self._closed:
            raise TokenFault(0x190, "recovering a pool that is closed")
        if self._refused is not None:
            raise self._refused
        self._drop_sessions()
        try:
            if level >= 2:
                self._module.reinitialize()
            self._start()
            self._renew()
        except (TokenNotFound, KeyNotFound) as fault:
            self._drop_sessions()
            raise TokenFault(0x0E0, "recovering", str(fault)) from None
        except PinRefused as fault:
            self._drop_sessions()
            wipe(self._pin)
            self._refused = fault
            raise
        except BaseException:
            self._drop_sessions()
            raise

    def _start(self) -> None:
        token = self._token = self._module.find_token(self.uri)
        try:
            self._mechanisms = frozenset(int(mechanism) for mechanism in token.slot.get_mechanisms())
        except PKCS11Error as fault:
            raise TokenFault(ckr_from_exception(fault), "listing mechanisms") from None
        functions = self._module.functions
        session = open_session(functions, token, read_write=self.read_write, which="the session that logs in")
        self._control = Calls(functions, session)
        with self._operator_asked():
            log_in(functions, token, session, None if self._pinpad else self._pin, at_final_try=self._at_final_try)
        self._logged_in = True
        for place in range(len(self._workers)):
            self._open_worker(place, f"worker session {place + 1} of {len(self._workers)}")

    @contextmanager
    def _operator_asked(self) -> Iterator[None]:
        """While a person is at the pinpad."""
        if self._asking is None or not self._pinpad:
            yield
            return
        self._asking(True)
        try:
            yield
        finally:
            self._asking(False)

    def _renew(self) -> None:
        for label in self._keys:
            self.find_key(label)
        for label in self._roots:
            self.find_root(label)
        for label, psk in self._psks.items():
            psk.handle = 0
            try:
                self.find_psk(label)
            except KeyNotFound:
                continue

    def _replace(self, place: int) -> None:
        """Open a session that is lent out anew; without one, if that fails, its place waits for the recovery."""
        calls = self._close_worker(place)
        if calls is None:
            return
        self._module.functions.close_session(calls.session)
        with contextlib.suppress(TokenFault):
            self._open_worker(place, "a worker session anew")

    def _open_worker(self, place: int, which: str) -> None:
        functions, token = self._module.functions, self._token
        if token is None:
            return
        session = open_session(functions, token, read_write=self.read_write, which=which)
        self._workers[place].calls = Calls(functions, session, leaves_secrets=self._module.leaves_secrets)
        self._lending.set_session(place, session)

    def _close_worker(self, place: int) -> Calls | None:
        """Let nobody use a session any more, which is the caller's to close."""
        worker = self._workers[place]
        calls, worker.calls = worker.calls, None
        self._lending.set_session(place, None)
        return calls

    def _drop_sessions(self) -> None:
        """Close what is open, whatever the token says to it: afterwards nothing uses an old handle."""
        calls = [self._close_worker(place) for place in range(len(self._workers))]
        control, self._control = self._control, None
        for one in calls:
            if one is not None:
                self._module.functions.close_session(one.session)
        if control is not None:
            # A login that failed because another part of the process has one must not end that one.
            if self._logged_in:
                self._module.functions.logout(control.session)
            self._module.functions.close_session(control.session)
        self._logged_in = False

    def _collect(self, timeout: float) -> list[int]:
        deadline = time.monotonic() + timeout
        lent: list[int] = []
        while len(lent) < len(self._workers):
            place = self._lending.borrow(max(0.0, deadline - time.monotonic()))
            if place is None:
                self._give_back(lent)
                raise TokenFault(0x090, "recovering", "a session is still in use; the module may be stuck")
            lent.append(place)
        return lent

    def _give_back(self, places: Iterable[int]) -> None:
        for place in places:
            self._lending.give_back(place)

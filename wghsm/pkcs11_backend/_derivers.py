"""The sessions of a pool as threads share them, and the threads that derive with them.

    session, _collect of `pool` ---> borrow, give_back                     a place: the number of a session
    the custodian               ---> put ---> a thread in C ---> eventfd ---> take

`Derivers` is `_derivers.c`: its threads hold the sessions and need no interpreter, so that a token's answer never
waits for one. Where the package was built without C, `SharedPlaces` lends the sessions, and who wants to derive does so
on a thread of its own.
"""

import errno
import os
import queue
import time
from typing import TYPE_CHECKING, Protocol

from wghsm.pkcs11_backend._calls import Packed, check_point, check_secret, fault_of_derive
from wghsm.pkcs11_backend.errors import PointRefused, TokenError, TokenFault

try:
    from wghsm.pkcs11_backend import _fast
except ImportError:
    _fast = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wghsm.pkcs11_backend._cryptoki import FunctionList
    from wghsm.pkcs11_backend._fast import DeriveKey
    from wghsm.pkcs11_backend._objects import PrivateKey
    from wghsm.pkcs11_backend.dialect import Dialect

__all__ = ["Derivers", "Lending", "SharedPlaces", "lending"]

_BUILT = _fast is not None
_ZERO = bytes(32)
# A signal must find its way to Python's handlers while a thread waits.
_LONGEST_WAIT = 100_000_000


class Lending(Protocol):
    """Hands out the places of sessions, each to one thread at a time. All are lent out at first."""

    def borrow(self, timeout: float | None) -> int | None:
        """A free place; None if there is none within `timeout` seconds."""

    def give_back(self, place: int) -> None:
        """Let others have it."""

    def set_session(self, place: int, session: int | None) -> None:
        """The CK_SESSION_HANDLE of a place that is lent out, or that it has none."""

    def know(self, key: "PrivateKey") -> None:
        """Take a key's handle and dialect, new ones while all places are lent out."""

    def end(self) -> None:
        """No more work is taken."""


class SharedPlaces:
    """Lending without threads of its own."""

    def __init__(self) -> None:
        self._idle: queue.SimpleQueue[int] = queue.SimpleQueue()

    def borrow(self, timeout: float | None) -> int | None:
        """See Lending."""
        try:
            return self._idle.get(timeout=timeout)
        except queue.Empty:
            return None

    def give_back(self, place: int) -> None:
        """See Lending."""
        self._idle.put(place)

    def set_session(self, place: int, session: int | None) -> None:
        """Nobody asks for it."""

    def know(self, key: "PrivateKey") -> None:
        """Nobody asks for it."""

    def end(self) -> None:
        """Nothing was begun."""


class Derivers:
    """Lending, and threads for the places, which derive while the interpreter does something else."""

    def __init__(self, functions: "FunctionList", sessions: int, *, leaves_secrets: bool) -> None:
        made = _fast.lib.derivers_new(sessions, *functions.derive_addresses)
        if made == _fast.ffi.NULL:
            raise MemoryError("no memory for the threads that derive")
        # Stays until the threads have ended as well.
        self._all = _fast.ffi.gc(made, _fast.lib.derivers_drop)
        self._leaves_secrets = leaves_secrets
        self._keys: dict[str, DeriveKey] = {}
        self._templates: dict[Dialect, Packed] = {}
        self._into = _fast.ffi.new("struct derived *")
        self._secret = memoryview(_fast.ffi.buffer(self._into.secret))
        self._started = False

    def borrow(self, timeout: float | None) -> int | None:
        """See Lending; who borrows goes before the derives that wait."""
        until = None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)
        wait = 0
        while (place := _fast.lib.derivers_borrow(self._all, wait)) < 0:
            left = _LONGEST_WAIT if until is None else until - time.monotonic_ns()
            if left <= 0:
                return None
            wait = min(left, _LONGEST_WAIT)
        return place

    def give_back(self, place: int) -> None:
        """See Lending."""
        _fast.lib.derivers_give_back(self._all, place)

    def set_session(self, place: int, session: int | None) -> None:
        """See Lending."""
        _fast.lib.derivers_set(self._all, place, session or 0, session is not None)

    def know(self, key: "PrivateKey") -> None:
        """See Lending."""
        dialect = key.dialect
        record = self._keys.setdefault(key.label, _fast.ffi.new("struct derive_key *"))
        template = self._templates.setdefault(dialect, Packed(dialect.derived))
        record.handle, record.mechanism = key.handle, dialect.derive
        record.template, record.count = template.address, template.count
        record.prefix_length = len(dialect.point_prefix)
        _fast.ffi.memmove(record.prefix, dialect.point_prefix, len(dialect.point_prefix))
        _fast.ffi.memmove(record.own_public, key.public_key, 32)
        record.sweeps = self._leaves_secrets

    def end(self) -> None:
        """See Lending."""
        _fast.lib.derivers_end(self._all)

    def start(self, event: int) -> None:
        """Have a thread for each session from now on; results ring the eventfd `event`, which stays open. Once.

        While other derives wait, a result rings together with some that follow it, about a third later at most.

        Raises OSError.
        """
        if self._started:
            return
        self._started = True
        if error := _fast.lib.derivers_start(self._all, event):
            raise OSError(error, f"no thread for deriving: {os.strerror(error)}")

    def put(self, number: int, key: "PrivateKey", public: bytes) -> None:
        """Have X25519(key, public) derived; `public` is 32 raw bytes, `number` comes back with the result.

        Raises PointRefused, TokenFault when the pool is closed, and queue.Full.
        """
        check_point(public)
        error = _fast.lib.derivers_put(self._all, number, self._keys[key.label], public)
        if error == errno.EAGAIN:
            raise queue.Full
        if error:
            raise TokenFault(0x0B3, "using a token that was closed")

    def take(self) -> "Iterator[tuple[int, bytearray | TokenError]]":
        """What has been derived since, in order, with its number: 32 bytes for the caller to wipe, or the fault."""
        into = self._into
        while _fast.lib.derivers_take(self._all, into):
            secret = bytearray(self._secret)
            self._secret[:] = _ZERO
            yield into.number, fault_of_derive(into.ckr, into.at, into.length) or _checked(secret)

    def longest(self) -> int:
        """For how many nanoseconds the slowest derive has been running; to be asked now and then.

        Results that waited for one that is stuck ring only then.
        """
        return _fast.lib.derivers_longest(self._all)


def _checked(secret: bytearray) -> bytearray | PointRefused:
    try:
        check_secret(secret)
    except PointRefused as refused:
        return refused.with_traceback(None)
    return secret


def lending(functions: "FunctionList", sessions: int, *, leaves_secrets: bool) -> Lending:
    """What lends `sessions` places."""
    if _BUILT:
        return Derivers(functions, sessions, leaves_secrets=leaves_secrets)
    return SharedPlaces()

"""Loading a PKCS#11 module, once for each process, with OS locking.

python-pkcs11 calls C_Initialize(NULL) and releases the GIL around calls; SoftHSM then runs without mutexes and
crashes under threads. This subclass calls C_Initialize itself with CKF_OS_LOCKING_OK (PKCS11.md section 2).

    load(uri) -> Module             dlopen, no C_Initialize yet
    module.acquire() / release()    C_Initialize for the first user, C_Finalize after the last
    module.reinitialize()           the recovery ladder's second step; every session and handle is stale after it
"""

import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path

from pkcs11 import PKCS11Error
from pkcs11._pkcs11 import lib as _Pkcs11Lib  # noqa: N812  (its name there is lower case)
from pkcs11.exceptions import TokenNotPresent, TokenNotRecognised
from pkcs11.types import Token

from wghsm.pkcs11_backend._ckr import CKR_CRYPTOKI_ALREADY_INITIALIZED, CKR_OK, ckr_from_exception
from wghsm.pkcs11_backend._cryptoki import CKF_OS_LOCKING_OK, FunctionList, InitializeArgs, load_functions
from wghsm.pkcs11_backend.errors import (
    AmbiguousToken,
    ModuleMissing,
    TokenFault,
    TokenNotFound,
    UriError,
)
from wghsm.pkcs11_backend.uri import TokenUri

__all__ = ["Module", "fits", "load"]

_NONE_THERE = "no initialised token (is its configuration, such as SOFTHSM2_CONF, the one meant?)"
_NONE_THERE_OTHERWISE = (
    "no initialised token (is it plugged in, and has the module what it needs of token.environment?)"
)

_LOADABLE = "correct module-path in the URI, or install what the module needs"

_loaded: dict[str, "Module"] = {}
# By manufacturerID of C_GetInfo; seen in 0.23, and so in the sources of later ones.
_LEAVES_SECRETS = frozenset({"OpenSC Project"})
_loading = threading.Lock()


class _LockingLib(_Pkcs11Lib):
    """python-pkcs11's library object whose C_Initialize asks for OS locking."""

    # python-pkcs11 creates the object in __new__ with the same arguments, before these can be set in __init__.
    functions: FunctionList
    arguments: bytes | None

    def __new__(cls, so: str, functions: FunctionList, arguments: bytes | None) -> "_LockingLib":  # noqa: ARG004
        return super().__new__(cls, so)  # type: ignore[call-arg]

    def __init__(self, so: str, functions: FunctionList, arguments: bytes | None) -> None:
        self.functions = functions
        self.arguments = arguments
        super().__init__(so)

    def initialize(self) -> None:
        args = InitializeArgs(flags=CKF_OS_LOCKING_OK, reserved=self.arguments)
        ckr = self.functions.initialize(ctypes.byref(args))
        # Somebody else initialised it in this process, perhaps without locking: not safe to share.
        if ckr == CKR_CRYPTOKI_ALREADY_INITIALIZED:
            raise TokenFault(ckr, f"initialising {self.so}", "another part of this process uses the module already")
        if ckr != CKR_OK:
            remedy = "check its own configuration (SOFTHSM2_CONF, token.environment, x-init-args)"
            raise TokenFault(ckr, f"initialising {self.so}", remedy)

    def finalize(self) -> None:
        ckr = self.functions.finalize(None)
        if ckr != CKR_OK:
            raise TokenFault(ckr, f"finalising {self.so}")

    def reinitialize(self) -> None:
        self.finalize()
        self.initialize()


class Module:
    """One loaded module; `functions` are its C functions. Made by `load`, never unloaded."""

    def __init__(self, path: str, arguments: str | None) -> None:
        self.path = path
        self.arguments = arguments
        try:
            self.functions = load_functions(path)
        except OSError as fault:
            raise ModuleMissing(f"PKCS#11 module {path} cannot be loaded: {fault}; {_LOADABLE}") from None
        self._lib: _LockingLib | None = None
        self._users = 0
        self._unfinished = False
        self._lock = threading.Lock()

    @property
    def description(self) -> str:
        """What the module says of itself, with its version and Cryptoki's; empty before the first `acquire`."""
        if self._lib is None:
            return ""
        (major, minor), (spoken, part) = self._lib.library_version, self._lib.cryptoki_version
        return f"{self._lib.library_description.strip()} {major}.{minor}, Cryptoki {spoken}.{part}"

    @property
    def leaves_secrets(self) -> bool:
        """Whether the module is one that never clears a secret it has derived; False before the first `acquire`."""
        return self._lib is not None and self._lib.manufacturer_id.strip() in _LEAVES_SECRETS

    def configure(self, arguments: str | None) -> None:
        """Give the init string (pReserved) for the next C_Initialize; raises UriError while it runs with another."""
        with self._lock:
            if arguments == self.arguments:
                return
            if self._users:
                raise UriError(
                    f"token URI: {self.path} is in use in this process with other x-init-args; all its URIs must agree"
                )
            self.arguments = arguments

    def acquire(self) -> None:
        """Initialise the module if nobody uses it yet; raises TokenFault."""
        with self._lock:
            if self._users == 0:
                if self._unfinished:
                    self._finalize()
                self._initialize()
            self._users += 1

    def release(self) -> None:
        """Finalise the module if its last user goes; never raises."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._finalize()

    def reinitialize(self) -> None:
        """C_Finalize, then C_Initialize; raises TokenFault. Call it only while no other thread is in the module."""
        with self._lock:
            self.functions.finalize(None)
            self._initialize()

    def _finalize(self) -> None:
        # A module that refuses it now would refuse the next C_Initialize as well: it is asked again before that.
        self._unfinished = self.functions.finalize(None) != CKR_OK

    def tokens(self) -> list[Token]:
        """Return every token that is there, initialised or not; raises TokenFault."""
        return list(self._tokens())

    def find_token(self, uri: TokenUri) -> Token:
        """Return the one initialised token that `uri` names; raises TokenNotFound or AmbiguousToken."""
        there = [token for token in self.tokens() if _is_initialised(token)]
        fitting = [token for token in there if fits(token, uri)]
        if len(fitting) == 1:
            return fitting[0]
        none = _NONE_THERE if "softhsm" in Path(self.path).name else _NONE_THERE_OTHERWISE
        shown = "; ".join(_describe(token) for token in (fitting or there)) or none
        if fitting:
            raise AmbiguousToken(f"{uri.describe_token()} fits several tokens: {shown}; add serial= to the URI")
        raise TokenNotFound(
            f"{uri.describe_token()} is not there; {self.path} has: {shown}; "
            "correct the URI, or make the token with wghsm token init"
        )

    def _initialize(self) -> None:
        arguments = None if self.arguments is None else self.arguments.encode()
        if self._lib is not None:
            self._lib.arguments = arguments
            self._lib.initialize()
            return
        try:
            self._lib = _LockingLib(self.path, self.functions, arguments)
        except PKCS11Error as fault:
            raise ModuleMissing(f"PKCS#11 module {self.path} cannot be used: {fault or type(fault).__name__}") from None

    def _tokens(self) -> Iterator[Token]:
        if self._lib is None:
            raise TokenFault(0x190, "listing tokens")
        try:
            for slot in self._lib.get_slots(token_present=True):
                try:
                    yield slot.get_token()
                except (TokenNotPresent, TokenNotRecognised):
                    continue
        except PKCS11Error as fault:
            raise TokenFault(ckr_from_exception(fault), "listing tokens") from None


def load(uri: TokenUri | str | None, arguments: str | None = None) -> Module:
    """Return the process's one instance of the module of `uri`, or at a path.

    `arguments` is its init string (pReserved), by default the URI's x-init-args. Raises UriError when there is no
    path or another init string is in use, ModuleMissing when it cannot be loaded.
    """
    if isinstance(uri, TokenUri):
        path, arguments = uri.module_path, uri.init_args if arguments is None else arguments
    else:
        path = uri
    if path is None:
        raise UriError("token URI: no module-path; write ?module-path=/path/of/the/module.so")
    with _loading:
        real = str(Path(path).resolve())
        if real not in _loaded:
            if not Path(real).exists():
                raise ModuleMissing(f"PKCS#11 module {path} is not there; install it or correct module-path in the URI")
            _loaded[real] = Module(real, arguments)
        _loaded[real].configure(arguments)
        return _loaded[real]


def _is_initialised(token: Token) -> bool:
    return bool(token.flags & 0x400)


def fits(token: Token, uri: TokenUri) -> bool:
    """Whether `uri`, which may say nothing of a token, names this one."""
    serial = token.serial.decode("utf-8", "replace")
    wanted = (
        (uri.token, token.label),
        (uri.serial, serial),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
        (uri.slot_id, token.slot.slot_id),
    )
    return all(want is None or want == there for want, there in wanted)


def _describe(token: Token) -> str:
    return f"token {token.label!r} (serial {token.serial.decode('utf-8', 'replace')})"

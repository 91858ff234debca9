"""The C calls on one session, by ctypes with buffers made once: no immutable copy of a secret is ever made.

Used by `pool` and `provision`. One `Calls` belongs to one session and, at a time, to one thread; ctypes releases
the GIL around each call. A derive is three C calls, the least that Cryptoki allows:

    C_DeriveKey -> C_GetAttributeValue(CKA_VALUE) -> C_DestroyObject

all in one piece (`_derive.c`) where the package was built with that, else one after the other from here. The
derives of handshakes go another way (`_derivers`), on these sessions.

Every internal buffer that held a secret is zero when a call returns, also when it raises.
"""

import ctypes
import hmac
from collections.abc import Sequence
from ctypes import byref, c_ubyte, c_ulong

from wghsm.pkcs11_backend._ckr import CKR_OK
from wghsm.pkcs11_backend._cryptoki import UNAVAILABLE, Attribute, Ecdh1Params, FunctionList, Mechanism
from wghsm.pkcs11_backend.dialect import Dialect
from wghsm.pkcs11_backend.errors import KeyUnfit, PointRefused, TokenFault

try:
    from wghsm.pkcs11_backend import _fast
except ImportError:
    _fast = None  # type: ignore[assignment]

__all__ = ["Calls", "Packed", "Template", "check_point", "check_secret", "fault_of_derive"]

Template = Sequence[tuple[int, bool | int | bytes | bytearray]]
"""Attribute types (CKA_) with their values; ints become CK_ULONG, bools CK_BBOOL."""

_CKA_VALUE = 0x011
_CKM_SHA256_HMAC = 0x251
_CKD_NULL = 1
_ZERO = bytes(32)
_DERIVED = "the derived secret"
_CKR_BUFFER_TOO_SMALL = 0x150
_CKR_UNREADABLE = frozenset({0x011, 0x012})  # CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID

_P = 2**255 - 19
# Little-endian, as on the wire; both have order 8.
_ORDER_8 = (
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
)
_LOW_ORDER = frozenset({0, 1, _P - 1, _P, _P + 1, *(int.from_bytes(bytes.fromhex(x), "little") for x in _ORDER_8)})


def check_point(public: bytes) -> None:
    """Refuse a public key (32 bytes) that no honest peer has: wrong length or low order, before a token sees it.

    SoftHSM answers such a point with CKR_GENERAL_ERROR, which would look like a fault of the token. Raises
    PointRefused.
    """
    if len(public) != 32:
        raise PointRefused(f"a public key has 32 bytes, this one {len(public)}")
    if int.from_bytes(public, "little") & (2**255 - 1) in _LOW_ORDER:
        raise PointRefused("the public key is a point of low order")


def check_secret(secret: bytearray) -> None:
    """Refuse a shared secret (32 bytes) of zeros: only a point of low order gives it. Raises PointRefused."""
    if hmac.compare_digest(secret, _ZERO):
        raise PointRefused("the shared secret is all zeros")


class Calls:
    """The calls on the session with CK_SESSION_HANDLE `session`.

    `leaves_secrets`: the module keeps copies of what it has derived, which are to be overwritten.
    """

    def __init__(self, functions: FunctionList, session: int, *, leaves_secrets: bool = False) -> None:
        self.session = session
        self._leaves_secrets = leaves_secrets
        self._functions = functions
        self._secret = (c_ubyte * 32)()
        self._secret_view = memoryview(self._secret).cast("B")
        self._hmac = Mechanism(mechanism=_CKM_SHA256_HMAC, parameter=None, length=0)
        self._value = Attribute(type=_CKA_VALUE, value=ctypes.addressof(self._secret), length=32)
        self._handle = c_ulong()
        self._length = c_ulong()
        if _fast is not None:
            self._secret_pointer = _fast.ffi.cast("uint8_t *", self._value.value)
            self._length_pointer = _fast.ffi.new("unsigned long *")
            self._at = _fast.ffi.new("int *")
        # By identity: hashing a dialect at each derive would cost more than the rest of the preparation.
        self._derives: dict[int, _Derive] = {}

    def derive(self, key: int, public: bytes, dialect: Dialect, own_public: bytes | None = None) -> bytearray:
        """Return X25519(key, public) as 32 bytes; `public` is 32 raw bytes.

        With the key's `own_public` key (32 bytes) the result is a secret unless it is that, and what the module leaves
        of it is overwritten where it is known to leave something.

        Raises PointRefused for a low-order point or an all-zero result, KeyUnfit for a result of another length,
        TokenFault for the token's own errors.
        """
        check_point(public)
        ready = self._derives.get(id(dialect))
        if ready is None:
            ready = self._derives[id(dialect)] = _Derive(dialect)
        ctypes.memmove(ready.public, bytes(public), 32)
        secret = self._derive_in_calls(key, ready) if _fast is None else self._derive_in_c(key, ready, own_public)
        check_secret(secret)
        return secret

    def hmac_sha256(self, root: int, data: bytes) -> bytearray:
        """Return HMAC-SHA256 of `data` under the token's secret key `root`: 32 bytes. Raises TokenFault."""
        ckr = self._functions.sign_init(self.session, byref(self._hmac), root)
        if ckr != CKR_OK:
            raise TokenFault(ckr, "C_SignInit")
        try:
            self._length.value = 32
            ckr = self._functions.sign(self.session, data, len(data), self._value.value, byref(self._length))
            if ckr != CKR_OK:
                raise TokenFault(ckr, "C_Sign")
            if self._length.value != 32:
                raise TokenFault(0x005, f"C_Sign gave {self._length.value} bytes instead of 32;")
            return bytearray(self._secret_view)
        finally:
            # By a foreign call, here and below: its frames write over what a module has left on the stack.
            ctypes.memset(self._secret, 0, 32)

    def sign(self, mechanism: int, key: int, data: bytes) -> bytes:
        """C_Sign of `data` with a private key: return the signature, up to 512 bytes. Raises TokenFault."""
        asked = Mechanism(mechanism=mechanism, parameter=None, length=0)
        self._check(self._functions.sign_init(self.session, byref(asked), key), "C_SignInit")
        buffer, length = (c_ubyte * 512)(), c_ulong(512)
        self._check(self._functions.sign(self.session, data, len(data), buffer, byref(length)), "C_Sign")
        return bytes(buffer[: length.value])

    def read_secret(self, handle: int) -> bytearray:
        """Return the 32 bytes of CKA_VALUE; raises KeyUnfit when there are not 32, TokenFault when it is refused."""
        return self._read32(handle, "the secret")

    def find(self, template: Template, limit: int = 4096) -> list[int]:
        """Return the handles of up to `limit` objects that match `template`. Raises TokenFault."""
        packed = Packed(template)
        functions = self._functions
        ckr = functions.find_objects_init(self.session, packed.array, packed.count)
        if ckr != CKR_OK:
            raise TokenFault(ckr, "C_FindObjectsInit")
        found: list[int] = []
        batch = (c_ulong * 64)()
        count = c_ulong()
        try:
            while len(found) < limit:
                ckr = functions.find_objects(self.session, batch, 64, byref(count))
                if ckr != CKR_OK:
                    raise TokenFault(ckr, "C_FindObjects")
                if count.value == 0:
                    break
                found.extend(batch[: count.value])
        finally:
            functions.find_objects_final(self.session)
        return found[:limit]

    def attribute(self, handle: int, kind: int) -> bytes | None:
        """Return the raw value of a public attribute, None when the token will not give it. Raises TokenFault.

        Not for secrets: `bytes` cannot be wiped reliably; `read_secret` is.
        """
        wanted = Attribute(type=kind, value=None, length=0)
        ckr = self._functions.get_attribute_value(self.session, handle, byref(wanted), 1)
        if ckr in _CKR_UNREADABLE or (ckr == CKR_OK and wanted.length == UNAVAILABLE):
            return None
        if ckr != CKR_OK:
            raise TokenFault(ckr, "C_GetAttributeValue")
        buffer = (c_ubyte * max(1, wanted.length))()
        wanted.value = ctypes.addressof(buffer)
        ckr = self._functions.get_attribute_value(self.session, handle, byref(wanted), 1)
        if ckr in _CKR_UNREADABLE:
            return None
        if ckr != CKR_OK:
            raise TokenFault(ckr, "C_GetAttributeValue")
        return bytes(buffer[: wanted.length])

    def gives_value(self, handle: int) -> bool:
        """Ask whether the token would give CKA_VALUE, by its length only; the value itself is not read.

        Raises TokenFault.
        """
        wanted = Attribute(type=_CKA_VALUE, value=None, length=0)
        ckr = self._functions.get_attribute_value(self.session, handle, byref(wanted), 1)
        if ckr in _CKR_UNREADABLE:
            return False
        self._check(ckr, "C_GetAttributeValue")
        return bool(wanted.length != UNAVAILABLE)

    def set_attributes(self, handle: int, template: Template) -> None:
        """C_SetAttributeValue; raises TokenFault."""
        packed = Packed(template)
        self._check(
            self._functions.set_attribute_value(self.session, handle, packed.array, packed.count), "C_SetAttributeValue"
        )

    def create(self, template: Template) -> int:
        """C_CreateObject: return the new handle; the packed copy of a secret value is wiped. Raises TokenFault."""
        packed = Packed(template)
        new = c_ulong()
        try:
            ckr = self._functions.create_object(self.session, packed.array, packed.count, byref(new))
        finally:
            packed.wipe()
        self._check(ckr, "C_CreateObject")
        return new.value

    def copy(self, handle: int, template: Template) -> int:
        """C_CopyObject: return the copy's handle; raises TokenFault."""
        packed = Packed(template)
        new = c_ulong()
        ckr = self._functions.copy_object(self.session, handle, packed.array, packed.count, byref(new))
        self._check(ckr, "C_CopyObject")
        return new.value

    def destroy(self, handle: int) -> None:
        """C_DestroyObject; raises TokenFault."""
        self._check(self._functions.destroy_object(self.session, handle), "C_DestroyObject")

    def generate_key(self, mechanism: int, template: Template) -> int:
        """C_GenerateKey without a mechanism parameter: return the handle. Raises TokenFault."""
        packed = Packed(template)
        asked = Mechanism(mechanism=mechanism, parameter=None, length=0)
        new = c_ulong()
        ckr = self._functions.generate_key(self.session, byref(asked), packed.array, packed.count, byref(new))
        self._check(ckr, "C_GenerateKey")
        return new.value

    def generate_pair(self, mechanism: int, public: Template, private: Template) -> tuple[int, int]:
        """C_GenerateKeyPair without a mechanism parameter: return (public, private) handles. Raises TokenFault."""
        one, two = Packed(public), Packed(private)
        asked = Mechanism(mechanism=mechanism, parameter=None, length=0)
        first, second = c_ulong(), c_ulong()
        ckr = self._functions.generate_key_pair(
            self.session, byref(asked), one.array, one.count, two.array, two.count, byref(first), byref(second)
        )
        self._check(ckr, "C_GenerateKeyPair")
        return first.value, second.value

    def wrap(self, mechanism: int, wrapping: int, key: int) -> bytes:
        """C_WrapKey without a mechanism parameter: return the wrapped key, up to 512 bytes. Raises TokenFault."""
        asked = Mechanism(mechanism=mechanism, parameter=None, length=0)
        # Not asked for its length first: NSS names one that it then finds too small.
        buffer, length = (c_ubyte * 512)(), c_ulong(512)
        ckr = self._functions.wrap_key(self.session, byref(asked), wrapping, key, buffer, byref(length))
        self._check(ckr, "C_WrapKey")
        return bytes(buffer[: length.value])

    def unwrap(self, mechanism: int, unwrapping: int, wrapped: bytes, template: Template) -> int:
        """C_UnwrapKey without a mechanism parameter: return the new handle. Raises TokenFault."""
        asked = Mechanism(mechanism=mechanism, parameter=None, length=0)
        packed = Packed(template)
        new = c_ulong()
        ckr = self._functions.unwrap_key(
            self.session, byref(asked), unwrapping, wrapped, len(wrapped), packed.array, packed.count, byref(new)
        )
        self._check(ckr, "C_UnwrapKey")
        return new.value

    def _derive_in_calls(self, key: int, ready: "_Derive") -> bytearray:
        functions = self._functions
        ckr = functions.derive_key(
            self.session, byref(ready.mechanism), key, ready.template.array, ready.template.count, byref(self._handle)
        )
        self._check(ckr, "C_DeriveKey")
        handle = self._handle.value
        try:
            secret = self._read32(handle, _DERIVED)
        finally:
            ckr = functions.destroy_object(self.session, handle)
        if ckr != CKR_OK:
            secret[:] = _ZERO
            raise TokenFault(ckr, "C_DestroyObject")
        return secret

    def _derive_in_c(self, key: int, ready: "_Derive", own_public: bytes | None) -> bytearray:
        try:
            ckr = _fast.lib.derive(
                *self._functions.derive_addresses,
                self.session,
                ready.mechanism_address,
                key,
                ready.template.address,
                ready.template.count,
                self._secret_pointer,
                self._length_pointer,
                self._at,
                own_public if own_public is not None and self._leaves_secrets else _fast.ffi.NULL,
            )
            if fault := fault_of_derive(ckr, self._at[0], self._length_pointer[0]):
                raise fault
            return bytearray(self._secret_view)
        finally:
            ctypes.memset(self._secret, 0, 32)

    def _read32(self, handle: int, what: str) -> bytearray:
        self._value.length = 32
        try:
            ckr = self._functions.get_attribute_value(self.session, handle, byref(self._value), 1)
            if ckr == CKR_OK and self._value.length != 32:
                ckr = _CKR_BUFFER_TOO_SMALL
            if ckr != CKR_OK:
                raise _unread(ckr, what)
            # The constructor copies straight into the new object; a slice assignment would leave a second copy.
            return bytearray(self._secret_view)
        finally:
            ctypes.memset(self._secret, 0, 32)

    @staticmethod
    def _check(ckr: int, doing: str) -> None:
        if ckr != CKR_OK:
            raise TokenFault(ckr, doing)


def fault_of_derive(ckr: int, at: int, length: int) -> KeyUnfit | TokenFault | None:
    """What `_derive.c` says of a derive: the CKR, the call that it is of, and the bytes of the derived secret."""
    lib = _fast.lib
    if at == lib.DERIVE_SESSION:
        return TokenFault(ckr, "using a session of a token that is down")
    if at == lib.DERIVE_VALUE:
        return _unread(ckr, _DERIVED)
    if ckr != CKR_OK:
        return TokenFault(ckr, "C_DeriveKey" if at == lib.DERIVE_KEY else "C_DestroyObject")
    return None if length == 32 else _unread(_CKR_BUFFER_TOO_SMALL, _DERIVED)


def _unread(ckr: int, what: str) -> KeyUnfit | TokenFault:
    # A value of another length is longer than the buffer, or was found to be shorter.
    if ckr == _CKR_BUFFER_TOO_SMALL:
        return KeyUnfit(f"token: {what} does not have 32 bytes")
    return TokenFault(ckr, f"C_GetAttributeValue of {what}")


class _Derive:
    """What one dialect's C_DeriveKey needs, in C's memory; `public` is the address of the 32 bytes to fill in."""

    def __init__(self, dialect: Dialect) -> None:
        # Kept: its identity names this object for as long as it lives.
        self.dialect = dialect
        self.template = Packed(dialect.derived)
        prefix = dialect.point_prefix
        self._point = (c_ubyte * (len(prefix) + 32))(*prefix)
        self.public = ctypes.addressof(self._point) + len(prefix)
        self._params = Ecdh1Params(
            kdf=_CKD_NULL,
            shared_length=0,
            shared=None,
            public_length=len(self._point),
            public=ctypes.addressof(self._point),
        )
        self.mechanism = Mechanism(
            mechanism=dialect.derive, parameter=ctypes.addressof(self._params), length=ctypes.sizeof(self._params)
        )
        self.mechanism_address = ctypes.addressof(self.mechanism)


class Packed:
    """A template as an array of `count` CK_ATTRIBUTE, at `address`, with the memory that it points to."""

    def __init__(self, template: Template) -> None:
        self.count = len(template)
        self.array = (Attribute * max(1, self.count))()
        self.address = ctypes.addressof(self.array)
        self._values: list[ctypes.Array[c_ubyte]] = []
        for place, (kind, value) in zip(self.array, template, strict=False):
            memory = _pack(value)
            self._values.append(memory)
            place.type = kind
            place.value = ctypes.addressof(memory)
            place.length = len(value) if isinstance(value, bytes | bytearray) else len(memory)

    def wipe(self) -> None:
        """Overwrite the values."""
        for memory in self._values:
            ctypes.memset(memory, 0, len(memory))


def _pack(value: bool | int | bytes | bytearray) -> "ctypes.Array[c_ubyte]":
    if isinstance(value, bool):
        return (c_ubyte * 1)(value)
    if isinstance(value, int):
        number = c_ulong(value)
        return (c_ubyte * ctypes.sizeof(number)).from_buffer_copy(number)
    memory = (c_ubyte * max(1, len(value)))()
    if value:
        source = (c_ubyte * len(value)).from_buffer(value) if isinstance(value, bytearray) else value
        ctypes.memmove(memory, source, len(value))
    return memory

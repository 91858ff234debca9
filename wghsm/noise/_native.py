"""The steps of `_steps` in C, on libcrypto: same arguments, same results, no intermediate secret in a Python object.

Called through `_chosen`; importing it raises ImportError where the package was built without it. Each step is one call
that lets the other threads run meanwhile. C wipes the secrets that it was given, so that Python has to do it only when
it does not come to the call.
"""

from wghsm.noise._libcrypto import ffi, lib
from wghsm.noise._transcript import Transcript
from wghsm.noise.constants import AUTHTAG_LEN, PUBLIC_KEY_LEN, SYMMETRIC_KEY_LEN, TIMESTAMP_LEN
from wghsm.noise.results import Reason
from wghsm.wipe import wipe

__all__ = ["read_response", "read_static", "read_timestamp", "split", "write_initiation", "write_response"]

_SEALED_STATIC = PUBLIC_KEY_LEN + AUTHTAG_LEN
_SEALED_TIMESTAMP = TIMESTAMP_LEN + AUTHTAG_LEN

_REASONS = {lib.STEP_ZERO_DH: Reason.ZERO_DH, lib.STEP_AUTHENTICATION: Reason.AUTHENTICATION}
_buffer = ffi.from_buffer

# Now, while the process can still read libcrypto's configuration.
if not lib.ready():
    raise ImportError("libcrypto has no BLAKE2s or no ChaCha20-Poly1305")


def read_static(work: Transcript, ephemeral: bytes, shared: bytearray, sealed: bytes) -> bytes | Reason:
    """As `_steps.read_static`."""
    opened = bytearray(PUBLIC_KEY_LEN)
    try:
        _require((ephemeral, PUBLIC_KEY_LEN), (shared, SYMMETRIC_KEY_LEN), (sealed, _SEALED_STATIC))
        code = lib.read_static(
            _buffer(work.chaining_key), _buffer(work.hash), ephemeral, _buffer(shared), sealed, _buffer(opened)
        )
    except BaseException:
        wipe(shared)
        raise
    return _reason(code) or bytes(opened)


def read_timestamp(work: Transcript, shared: bytearray, sealed: bytes) -> bytes | Reason:
    """As `_steps.read_timestamp`."""
    opened = bytearray(TIMESTAMP_LEN)
    try:
        _require((shared, SYMMETRIC_KEY_LEN), (sealed, _SEALED_TIMESTAMP))
        code = lib.read_timestamp(
            _buffer(work.chaining_key), _buffer(work.hash), _buffer(shared), sealed, _buffer(opened)
        )
    except BaseException:
        wipe(shared)
        raise
    return _reason(code) or bytes(opened)


def write_response(
    work: Transcript, private: bytearray, remote_ephemeral: bytes, remote_static: bytes, psk: bytearray
) -> tuple[bytes, bytes] | Reason:
    """As `_steps.write_response`."""
    ephemeral, sealed = bytearray(PUBLIC_KEY_LEN), bytearray(AUTHTAG_LEN)
    try:
        _require((private, SYMMETRIC_KEY_LEN), (psk, SYMMETRIC_KEY_LEN))
        _require((remote_ephemeral, PUBLIC_KEY_LEN), (remote_static, PUBLIC_KEY_LEN))
        code = lib.write_response(
            _buffer(work.chaining_key),
            _buffer(work.hash),
            _buffer(private),
            remote_ephemeral,
            remote_static,
            _buffer(psk),
            _buffer(ephemeral),
            _buffer(sealed),
        )
    except BaseException:
        wipe(private)
        wipe(psk)
        raise
    return _reason(code) or (bytes(ephemeral), bytes(sealed))


def write_initiation(
    work: Transcript, private: bytearray, remote_static: bytes, own_static: bytes, shared: bytearray, timestamp: bytes
) -> tuple[bytes, bytes, bytes] | Reason:
    """As `_steps.write_initiation`."""
    ephemeral = bytearray(PUBLIC_KEY_LEN)
    sealed_static, sealed_timestamp = bytearray(_SEALED_STATIC), bytearray(_SEALED_TIMESTAMP)
    try:
        _require((private, SYMMETRIC_KEY_LEN), (shared, SYMMETRIC_KEY_LEN), (timestamp, TIMESTAMP_LEN))
        _require((remote_static, PUBLIC_KEY_LEN), (own_static, PUBLIC_KEY_LEN))
        code = lib.write_initiation(
            _buffer(work.chaining_key),
            _buffer(work.hash),
            _buffer(private),
            remote_static,
            own_static,
            _buffer(shared),
            timestamp,
            _buffer(ephemeral),
            _buffer(sealed_static),
            _buffer(sealed_timestamp),
        )
    except BaseException:
        wipe(shared)
        raise
    return _reason(code) or (bytes(ephemeral), bytes(sealed_static), bytes(sealed_timestamp))


def read_response(
    work: Transcript, private: bytearray, ephemeral: bytes, shared: bytearray, psk: bytearray, sealed: bytes
) -> Reason | None:
    """As `_steps.read_response`."""
    try:
        _require((private, SYMMETRIC_KEY_LEN), (shared, SYMMETRIC_KEY_LEN), (psk, SYMMETRIC_KEY_LEN))
        _require((ephemeral, PUBLIC_KEY_LEN), (sealed, AUTHTAG_LEN))
        code = lib.read_response(
            _buffer(work.chaining_key),
            _buffer(work.hash),
            _buffer(private),
            ephemeral,
            _buffer(shared),
            _buffer(psk),
            sealed,
        )
    except BaseException:
        wipe(shared)
        wipe(psk)
        raise
    return _reason(code)


def split(work: Transcript) -> tuple[bytearray, bytearray]:
    """As `_steps.split`."""
    one, two = bytearray(SYMMETRIC_KEY_LEN), bytearray(SYMMETRIC_KEY_LEN)
    _reason(lib.split(_buffer(work.chaining_key), _buffer(one), _buffer(two)))
    return one, two


def _require(*values: tuple[bytes | bytearray, int]) -> None:
    for value, length in values:
        if len(value) != length:
            raise ValueError(f"{length} bytes were expected, not {len(value)}")


def _reason(code: int) -> Reason | None:
    if code == lib.STEP_DONE:
        return None
    reason = _REASONS.get(code)
    if reason is None:
        raise RuntimeError("libcrypto failed in a handshake")
    return reason

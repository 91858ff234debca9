"""The steps of a handshake: what of each lies between two questions to the custody, as plain functions.

    responder    read_static -> read_timestamp -> write_response -> split
    initiator    write_initiation -> read_response -> split

Called by `responder` and `initiator` through `_chosen`. This is the Python twin of `_steps.c`: the one to read, the
oracle of the tests, and what runs where the package was built without a compiler.

Each step moves the transcript on; after a Reason its owner wipes it. Secrets that are handed in (`shared`, `psk`, and
in `write_response` the ephemeral private key) are taken over: they hold zeros afterwards. A wrong length of one is a
ValueError. Source: PROTOCOL.md sections 4.1 to 4.5.
"""

from wghsm.noise._transcript import Transcript
from wghsm.noise.curve import Ephemeral
from wghsm.noise.results import Reason
from wghsm.wipe import wipe

__all__ = ["read_response", "read_static", "read_timestamp", "split", "write_initiation", "write_response"]


def read_static(work: Transcript, ephemeral: bytes, shared: bytearray, sealed: bytes) -> bytes | Reason:
    """The initiator's static key, 32 bytes; `shared` is X25519 of our static key with its ephemeral one."""
    work.mix_ephemeral(ephemeral)
    if not work.mix_dh(shared):
        return Reason.ZERO_DH
    return work.open(sealed) or Reason.AUTHENTICATION


def read_timestamp(work: Transcript, shared: bytearray, sealed: bytes) -> bytes | Reason:
    """The timestamp, 12 bytes; `shared` is X25519 of the two static keys."""
    if not work.mix_dh(shared):
        return Reason.ZERO_DH
    return work.open(sealed) or Reason.AUTHENTICATION


def write_response(
    work: Transcript, private: bytearray, remote_ephemeral: bytes, remote_static: bytes, psk: bytearray
) -> tuple[bytes, bytes] | Reason:
    """The ephemeral public key, 32 bytes, and the sealed empty string, 16 bytes, of message 2."""
    try:
        own = Ephemeral(private)
        ephemeral = own.public_key()
        work.mix_ephemeral(ephemeral)
        for public in (remote_ephemeral, remote_static):
            if not work.mix_dh(own.exchange(public)):
                return Reason.ZERO_DH
        work.mix_psk(psk)
        return ephemeral, work.seal(b"")
    finally:
        wipe(private)
        wipe(psk)


def write_initiation(
    work: Transcript, private: bytearray, remote_static: bytes, own_static: bytes, shared: bytearray, timestamp: bytes
) -> tuple[bytes, bytes, bytes] | Reason:
    """The ephemeral public key, 32 bytes, the sealed static key, 48, and timestamp, 28, of message 1.

    `private` stays the caller's; `shared` is X25519 of the two static keys.
    """
    try:
        own = Ephemeral(private)
        ephemeral = own.public_key()
        work.mix_ephemeral(ephemeral)
        if not work.mix_dh(own.exchange(remote_static)):
            return Reason.ZERO_DH
        static = work.seal(own_static)
        if not work.mix_dh(shared):
            return Reason.ZERO_DH
        return ephemeral, static, work.seal(timestamp)
    finally:
        wipe(shared)


def read_response(
    work: Transcript, private: bytearray, ephemeral: bytes, shared: bytearray, psk: bytearray, sealed: bytes
) -> Reason | None:
    """None if message 2 is the right one; `private` stays the caller's, `shared` is X25519 of our static key."""
    try:
        work.mix_ephemeral(ephemeral)
        if not work.mix_dh(Ephemeral(private).exchange(ephemeral)) or not work.mix_dh(shared):
            return Reason.ZERO_DH
        work.mix_psk(psk)
        return Reason.AUTHENTICATION if work.open(sealed) is None else None
    finally:
        wipe(shared)
        wipe(psk)


def split(work: Transcript) -> tuple[bytearray, bytearray]:
    """The two session keys, 32 bytes each: initiator to responder, responder to initiator."""
    return work.split()

"""The initiator's side of one handshake.

    write_initiation(e_i, timestamp)    message 1       asks for static-static
    read_response(E_r, empty)           session keys    one live DH of the static key, and the pre-shared key

Called by the custodian with fields, not packets. A bad response, or an exception of the custody, changes nothing:
the right response still succeeds later. Source: PROTOCOL.md sections 4.1, 4.4 and 4.5.
"""

from dataclasses import dataclass
from typing import ClassVar

from wghsm.noise import _chosen
from wghsm.noise._handshake import Handshake, Stage
from wghsm.noise.constants import AUTHTAG_LEN, PUBLIC_KEY_LEN, TIMESTAMP_LEN
from wghsm.noise.custody import Custody
from wghsm.noise.results import Reason, Rejected
from wghsm.noise.session import SessionKeys
from wghsm.wipe import wipe

__all__ = ["InitiationFields", "Initiator"]


@dataclass(frozen=True, slots=True)
class InitiationFields:
    """What message 1 carries: ephemeral public key, 32 bytes; static key, 48, and timestamp, 28, both sealed."""

    ephemeral: bytes
    static: bytes
    timestamp: bytes


class Initiator(Handshake):
    """One outgoing handshake to the peer with the 32 bytes `peer_public`.

    Methods out of order raise OutOfOrderError. A context manager that wipes.
    """

    ORDER: ClassVar = {
        "write_initiation": (Stage.NEW, Stage.CREATED_INITIATION),
        "read_response": (Stage.CREATED_INITIATION, Stage.ZEROED),
    }

    def __init__(self, custody: Custody, peer_public: bytes) -> None:
        super().__init__(peer_public)
        self._custody = custody
        self._peer_public = peer_public
        self._ephemeral_private = bytearray()

    def write_initiation(self, ephemeral_private: bytearray, timestamp: bytes) -> InitiationFields | Rejected:
        """Fields of message 1, with a TAI64N `timestamp` of 12 bytes later than any sent to this peer.

        `ephemeral_private`, 32 fresh random bytes, is taken over: kept for the response, wiped with this object,
        or at once if anything fails. Rejected means that the peer's static key is of low order.
        """
        self._require("write_initiation")
        kept = False
        try:
            if len(timestamp) != TIMESTAMP_LEN:
                raise ValueError(f"a timestamp has {TIMESTAMP_LEN} bytes, not {len(timestamp)}")
            with self._working_copy() as work:
                own_static, shared = self._custody.public_key, self._custody.static_static(self._peer_public)
                fields = _chosen.steps.write_initiation(
                    work, ephemeral_private, self._peer_public, own_static, shared, timestamp
                )
                if isinstance(fields, Reason):
                    return self._refuse("write_initiation", fields)
                if rejected := self._commit("write_initiation", work):
                    return rejected
            self._ephemeral_private = ephemeral_private
            kept = True
            return InitiationFields(*fields)
        finally:
            if not kept:
                wipe(ephemeral_private)

    def read_response(self, ephemeral: bytes, empty: bytes) -> SessionKeys | Rejected:
        """The session's keys out of `ephemeral` (32 bytes) and `empty` (16 bytes, sealed); then all else is wiped."""
        self._require("read_response")
        if len(ephemeral) != PUBLIC_KEY_LEN or len(empty) != AUTHTAG_LEN:
            return Rejected(Reason.LENGTH)
        with self._working_copy() as work:
            shared = self._custody.dh(ephemeral)
            try:
                psk = self._custody.preshared_key(self._peer_public)
            except BaseException:
                wipe(shared)
                raise
            reason = _chosen.steps.read_response(work, self._ephemeral_private, ephemeral, shared, psk, empty)
            if reason is not None:
                return self._refuse("read_response", reason)
            if rejected := self._commit("read_response", work):
                return rejected
        initiator_to_responder, responder_to_initiator = _chosen.steps.split(self._transcript)
        self.wipe()
        return SessionKeys(send=initiator_to_responder, receive=responder_to_initiator)

    def wipe(self) -> None:
        """Destroy everything; no other method may be called afterwards. Harmless when repeated."""
        super().wipe()
        wipe(self._ephemeral_private)

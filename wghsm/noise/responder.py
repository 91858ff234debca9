"""The responder's side of one handshake, in stages, so that the caller can look the peer up between them.

    read_static(E_i, static)     who is it?            one live DH of the static key
    read_timestamp(timestamp)    is it really them?    the caller then judges the time
    write_response(e_r)          message 2             asks for the pre-shared key
    session_keys()               both keys             and everything else is wiped

Called by the custodian with fields, not packets. A Rejected leaves the stage as it was, and so does an exception
of the custody. Source: PROTOCOL.md sections 4.2, 4.3 and 4.5.
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

__all__ = ["Responder", "ResponseFields"]


@dataclass(frozen=True, slots=True)
class ResponseFields:
    """What message 2 carries: ephemeral public key, 32 bytes, and the sealed empty string, 16 bytes."""

    ephemeral: bytes
    empty: bytes


class Responder(Handshake):
    """One incoming handshake. Methods out of order raise OutOfOrderError. A context manager that wipes."""

    ORDER: ClassVar = {
        "read_static": (Stage.NEW, Stage.STATIC_READ),
        "read_timestamp": (Stage.STATIC_READ, Stage.CONSUMED_INITIATION),
        "write_response": (Stage.CONSUMED_INITIATION, Stage.CREATED_RESPONSE),
        "session_keys": (Stage.CREATED_RESPONSE, Stage.ZEROED),
    }

    def __init__(self, custody: Custody) -> None:
        super().__init__(custody.public_key)
        self._custody = custody
        self._remote_ephemeral = b""
        self._remote_static = b""

    def read_static(self, ephemeral: bytes, static: bytes) -> bytes | Rejected:
        """The initiator's static public key, 32 bytes, out of `ephemeral` (32 bytes) and `static` (48 bytes, sealed).

        Proven is only that the sender knows our public key: anybody can name any static key.
        """
        self._require("read_static")
        if len(ephemeral) != PUBLIC_KEY_LEN or len(static) != PUBLIC_KEY_LEN + AUTHTAG_LEN:
            return Rejected(Reason.LENGTH)
        with self._working_copy() as work:
            remote_static = _chosen.steps.read_static(work, ephemeral, self._custody.dh(ephemeral), static)
            if isinstance(remote_static, Reason):
                return self._refuse("read_static", remote_static)
            if rejected := self._commit("read_static", work):
                return rejected
        self._remote_ephemeral = ephemeral
        self._remote_static = remote_static
        return remote_static

    def read_timestamp(self, timestamp: bytes) -> bytes | Rejected:
        """The initiator's TAI64N timestamp, 12 bytes, out of `timestamp` (28 bytes, sealed).

        It proves that the sender holds the static key, or an old message of its holder: the caller refuses a
        timestamp that is not later than the greatest one known.
        """
        self._require("read_timestamp")
        if len(timestamp) != TIMESTAMP_LEN + AUTHTAG_LEN:
            return Rejected(Reason.LENGTH)
        with self._working_copy() as work:
            shared = self._custody.static_static(self._remote_static)
            opened = _chosen.steps.read_timestamp(work, shared, timestamp)
            if isinstance(opened, Reason):
                return self._refuse("read_timestamp", opened)
            return self._commit("read_timestamp", work) or opened

    def write_response(self, ephemeral_private: bytearray) -> ResponseFields | Rejected:
        """Fields of message 2. `ephemeral_private`, 32 fresh random bytes, is taken over: it holds zeros afterwards."""
        self._require("write_response")
        try:
            with self._working_copy() as work:
                psk = self._custody.preshared_key(self._remote_static)
                fields = _chosen.steps.write_response(
                    work, ephemeral_private, self._remote_ephemeral, self._remote_static, psk
                )
                if isinstance(fields, Reason):
                    return self._refuse("write_response", fields)
                return self._commit("write_response", work) or ResponseFields(*fields)
        finally:
            wipe(ephemeral_private)

    def session_keys(self) -> SessionKeys:
        """The session's keys, once; the handshake is wiped."""
        self._require("session_keys")
        initiator_to_responder, responder_to_initiator = _chosen.steps.split(self._transcript)
        self.wipe()
        return SessionKeys(send=responder_to_initiator, receive=initiator_to_responder)

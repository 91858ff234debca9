"""What the custodian's machine keeps of a request while a worker has it, and what the workers do for it.

Called by `core`. `respond` and `read_response` run on worker threads where they ask for a PSK, and touch nothing but
their own handshake.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.noise import Rejected
from wghsm.noise.results import Reason
from wghsm.pkcs11_backend import PointRefused, TokenError

from .effects import Effect, Suspect
from .epochs import epoch_of, kind_of

if TYPE_CHECKING:
    from wghsm.noise import Initiator, Responder, ResponseFields, SessionKeys

    from .custody import TokenCustody
    from .rules import Handle, KnownPeer

__all__ = ["Accepting", "Creating", "blame", "cause_of", "days", "outdated", "read_response", "respond", "suspect"]


@dataclass(slots=True, eq=False)
class Accepting:
    """An initiation of a stranger in progress."""

    message: m.AcceptInitiation
    generation: int
    custody: TokenCustody
    responder: Responder
    began: int
    peer: KnownPeer | None = None
    holds_place: bool = False


@dataclass(slots=True, eq=False)
class Creating:
    """An own initiation in progress."""

    message: m.CreateInitiation
    generation: int
    peer: KnownPeer
    own_ns: int
    choices: tuple[m.PskSource, ...]
    custody: TokenCustody
    initiator: Initiator
    began: int


def respond(responder: Responder, ephemeral: bytearray) -> tuple[ResponseFields, SessionKeys] | Rejected:
    """Message 2 and the session's keys."""
    fields = responder.write_response(ephemeral)
    return fields if isinstance(fields, Rejected) else (fields, responder.session_keys())


def read_response(
    handle: Handle, choices: tuple[m.PskSource, ...], ephemeral: bytes, empty: bytes
) -> SessionKeys | Rejected:
    """Try the PSKs one after the other; a wrong one leaves the handshake as it was."""
    custody = handle.custody
    keys: SessionKeys | Rejected = Rejected(Reason.AUTHENTICATION)
    try:
        for source in choices:
            custody.use(source)
            keys = handle.initiator.read_response(ephemeral, empty)
            if not isinstance(keys, Rejected) or keys.reason is not Reason.AUTHENTICATION:
                break
    finally:
        custody.forget_dh()
    return keys


def outdated(peer: m.CustodianPeer, confirmed: int) -> str:
    """The line for the operator whose file is behind what the peer has proven."""
    key = base64.b64encode(peer.public_key).decode()
    return (
        f"peer {key} has used the {kind_of(peer.psk)} PSK of epoch {confirmed}, the gateway file says "
        f"{epoch_of(peer.psk)}: it is refused until the file has {confirmed} or a later one"
    )


def days(nanoseconds: int) -> str:
    """A span of time in words."""
    return f"{nanoseconds / 86_400e9:.1f} days"


def cause_of(rejected: Rejected, otherwise: Counter) -> Counter:
    """What a refusal of the handshake is counted as."""
    return Counter.LOW_ORDER_POINT if rejected.reason is Reason.ZERO_DH else otherwise


def blame(error: TokenError) -> Counter:
    """What an error of the token is counted as."""
    return Counter.LOW_ORDER_POINT if isinstance(error, PointRefused) else Counter.TOKEN_FAULT


def suspect(error: TokenError) -> list[Effect]:
    """The token is to be tried, unless the peer is to blame."""
    return [] if isinstance(error, PointRefused) else [Suspect(error)]

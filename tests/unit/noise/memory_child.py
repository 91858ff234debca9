"""Runs handshakes with random keys, wipes everything, and waits to be searched. A child of test_memory.

The argument is the module with the steps: `_native` or `_steps`.

Prints a line of JSON: name of each secret and its bytes, inverted, so that printing leaves no copy of them here.
"""

import importlib
import json
import secrets
import sys

from wghsm.noise import Initiator, Rejected, Responder, SessionKeys, SoftwareCustody, _chosen
from wghsm.noise.tai64n import from_unix_ns
from wghsm.wipe import wipe

_chosen.steps = importlib.import_module(f"wghsm.noise.{sys.argv[1]}")
INVERT = bytes(255 - value for value in range(256))
seen: dict[str, bytearray] = {}


def note(name: str, secret: bytearray) -> bytearray:
    """Remember a secret inverted."""
    seen[name] = secret.translate(INVERT)
    return secret


def fresh(name: str) -> bytearray:
    """A random secret of 32 bytes, in one buffer only."""
    made = secrets.token_bytes(32)
    taken = bytearray(made)
    wipe(made)
    return note(name, taken)


class NotingCustody(SoftwareCustody):
    """Notes every secret that crosses the seam."""

    name = ""

    def dh(self, public: bytes) -> bytearray:
        return note(f"{self.name} dh", super().dh(public))

    def static_static(self, peer_public: bytes) -> bytearray:
        return note(f"{self.name} static-static", super().static_static(peer_public))


def custody(name: str) -> NotingCustody:
    """An identity with a random key, whose only copy it holds."""
    private = fresh(f"{name} static")
    made = NotingCustody(private)
    made.name = name
    wipe(private)
    return made


def handshake() -> None:
    """One whole handshake; nothing of it may stay."""
    ours, theirs = custody("initiator"), custody("responder")
    psk = fresh("psk")
    for holder, peer in ((ours, theirs), (theirs, ours)):
        holder._psks[peer.public_key] = bytearray(psk)
    wipe(psk)
    with Initiator(ours, theirs.public_key) as initiator, Responder(theirs) as responder:
        fields = initiator.write_initiation(fresh("initiator ephemeral"), from_unix_ns(10**18))
        if isinstance(fields, Rejected):
            sys.exit("initiation refused")
        note("chaining key 1", initiator._transcript.chaining_key)
        responder.read_static(fields.ephemeral, fields.static)
        responder.read_timestamp(fields.timestamp)
        response = responder.write_response(fresh("responder ephemeral"))
        if isinstance(response, Rejected):
            sys.exit("response refused")
        note("chaining key 2", responder._transcript.chaining_key)
        keys = initiator.read_response(response.ephemeral, response.empty)
        if not isinstance(keys, SessionKeys):
            sys.exit("no session")
        with keys, responder.session_keys():
            note("send key", keys.send)
            note("receive key", keys.receive)
    ours.wipe()
    theirs.wipe()


handshake()
seen["control"] = bytearray(secrets.token_bytes(32))
control = bytes(seen["control"].translate(INVERT))
print(json.dumps({name: inverted.hex() for name, inverted in seen.items()}), flush=True)
sys.stdin.read()

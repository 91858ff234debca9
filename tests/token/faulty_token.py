"""Gateways' tokens that fail on command, and twins: several tokens of one store that hold the same key.

with faulty_token() as token:  token.rig.fail("C_DeriveKey", 0x30)
with twins() as (first, second): ...           the first behind the rig, the second a module of its own
with Watched(token, state) as custodian: ...   a custodian with short times, asked until it answers
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.token.custodian_process import LABEL_PSK, PATIENCE, UID, Custodian, GatewayToken, provision, rest
from tests.token.rig import Rig, rig_token
from wghsm.ipc import ChannelKind
from wghsm.ipc import messages as m
from wghsm.noise import Rejected
from wghsm.process import boottime
from wghsm.softhsm_setup import make_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.unit.custodian.support import SoftwarePeer

__all__ = ["IDLE", "SHORT", "FaultyToken", "Watched", "faulty_token", "twins"]

SHORT = (str(Path(__file__).with_name("short_custodian.py")),)
IDLE = (str(Path(__file__).with_name("idle_custodian.py")),)


@dataclasses.dataclass(frozen=True)
class FaultyToken(GatewayToken):
    """A gateway's token with the rig before it."""

    rig: Rig


@contextlib.contextmanager
def faulty_token() -> Iterator[FaultyToken]:
    """A token with key, root and PSK object."""
    psk = os.urandom(32)
    with rig_token(uid=UID) as token:
        answer = provision(token.made, new=True, label=LABEL_PSK, psk=psk.hex())
        yield FaultyToken(token.made, bytes.fromhex(str(answer["public"])), psk, token.rig)


@contextlib.contextmanager
def twins(*, same: bool = True, one_root: bool = False) -> Iterator[tuple[FaultyToken, GatewayToken]]:
    """Two tokens with one key (two keys, unless `same`); each with a root of its own, or both with `one_root`."""
    private = X25519PrivateKey.generate().private_bytes_raw()
    with rig_token(label="first", uid=UID) as token:
        other = make_token(token.made.directory, label="second", uid=UID)
        # One module file is one instance in a process: the twin needs a file of its own.
        module = token.made.directory / "second-libsofthsm2.so"
        shutil.copyfile(other.module, module)
        module.chmod(0o755)
        other = dataclasses.replace(other, uri=other.uri.replace(other.module, str(module)), module=str(module))
        root = {"root": os.urandom(32).hex()} if one_root else {}
        first = provision(token.made, private=private.hex(), **root)
        second = provision(other, private=private.hex() if same else os.urandom(32).hex(), **root)
        yield (
            FaultyToken(token.made, bytes.fromhex(str(first["public"])), b"", token.rig),
            GatewayToken(other, bytes.fromhex(str(second["public"])), b""),
        )


class Watched(Custodian):
    """A custodian with short times, and what its supervisor has heard of the token."""

    def __init__(
        self,
        token: GatewayToken,
        state: Path,
        peers: Sequence[SoftwarePeer] = (),
        *,
        incarnation: int = 1,
        changes: Mapping[str, object] | None = None,
        program: Sequence[str] = SHORT,
        cache: bool = True,
    ) -> None:
        super().__init__(
            token, state, incarnation=incarnation, peers=peers, changes=changes, program=program, cache=cache
        )
        self.number = 0

    def ready(self) -> Self:
        """Wait until it serves; `began` is the status that it begins with."""
        self.began = self.receive(self.home, m.TokenStatus)
        return super().ready()

    def begin(self, peer: SoftwarePeer) -> None:
        """Send a fresh initiation of the peer; its answer is left to come."""
        self.number += 1
        rest(peer)
        self.send(ChannelKind.HANDSHAKE_CUSTODIAN, peer.initiation(self.number, time.time_ns()))
        peer.last_initiation = boottime()

    def asked(self, peer: SoftwarePeer) -> m.Message:
        """The answer to a fresh initiation of the peer."""
        self.begin(peer)
        answer = self.receive(ChannelKind.HANDSHAKE_CUSTODIAN, m.Message)
        # Not before: a slow token may have taken longer than the guard's time.
        peer.last_initiation = boottime()
        return answer

    def accepts(self, peer: SoftwarePeer) -> bool:
        """Whether a handshake of the peer goes through, with the right keys."""
        answer = self.asked(peer)
        if isinstance(answer, m.Refused):
            return False
        assert isinstance(answer, m.InitiationAccepted), self.log_text()
        theirs = peer.finish(answer)
        receive, send = self.installed()
        if isinstance(theirs, Rejected):
            # Another of the peer's pre-shared keys had its turn.
            return False
        assert (bytes(theirs.send), bytes(theirs.receive)) == (receive.key, send.key)
        self.send(ChannelKind.HANDSHAKE_CUSTODIAN, m.ConfirmSession(answer.session, peer.slot))
        return True

    def until_accepted(self, peer: SoftwarePeer) -> float:
        """Ask until a handshake goes through; the seconds that it took."""
        began = time.monotonic()
        while not self.accepts(peer):
            assert time.monotonic() - began < PATIENCE, self.log_text()
            time.sleep(0.02)
        return time.monotonic() - began

    def forget_status(self) -> None:
        """Drop what its supervisor has been told so far."""
        for _ in self.channels[self.home].messages(1000):
            pass
        self.waiting[self.home].clear()

    def status(self, state: str, token: str | None = None) -> m.TokenStatus:
        """Wait for a status with this state (and token)."""
        while True:
            status = self.receive(self.home, m.TokenStatus)
            if status.state == state and (token is None or token in status.token):
                return status

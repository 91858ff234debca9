"""Faults of the token under a whole gateway's live traffic, for the tests and for docs/fault-matrix.md.

    with LiveBench() as bench:          a gateway behind the rig; a stock client whose packets are numbered, both ways
        bench.away(function, ckr)       a fault, met by the handshakes of a scripted peer, until the token is away
        bench.slow(delay, handshakes)   every call takes longer
        bench.lost()                    what client and gateway have missed of each other over all of them
    observed() -> what was tried, and what the rows of the page say

The custodian's times are short (short_custodian.py), so that each fault takes about a second.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.network.support import Lab, ping_until, until
from tests.network.support.gateway import CHILDREN, Peer
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import PSK_ROOT, Site
from tests.network.support.software_peer import SoftwarePeer
from tests.token.rig import Rig, _built
from wghsm.noise.constants import INITIATION_FLOOD_GUARD
from wghsm.noise.curve import public_key
from wghsm.softhsm_setup import find_module

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CLASSES", "LiveBench", "observed"]

CLASSES = (0xB3, 0x30, 0x70)
"""A CKR of each kind: for the ladder's first step, for its second, and one that no repair helps."""

_PATIENCE = 90.0
_NUMBER = 100


class LiveBench:
    """The gateway, its clients and its token, from `__enter__` on."""

    def __enter__(self) -> Self:
        """Start everything, and let packets run both ways."""
        self._stack = contextlib.ExitStack()
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._stack.close()

    def _begin(self) -> None:
        token = self._stack.enter_context(GatewayToken())
        lab = self._stack.enter_context(Lab())
        token.generate("gateway")
        token.derive_root(PSK_ROOT)
        module = token.folder / f"rig-{os.getpid()}-libsofthsm2.so"
        shutil.copyfile(_built(), module)
        module.chmod(0o755)
        self.rig = Rig(Path(f"{module}.rig"), find_module())
        self._stack.callback(self.rig.close)
        self._stack.callback(self.rig.clear)
        site = Site(lab, token)
        client, place = site.client("client", "derived"), site.client("place")
        private = os.urandom(32)
        scripted = Peer("scripted", base64.b64encode(public_key(private)).decode(), [f"10.8.0.{_NUMBER}/32"], "derived")
        self.gateway = site.gateway
        self.gateway.peers = [*self.gateway.peers, scripted]
        self.gateway.token_section = {"uri": token.uri_with(module=str(module)), "cache_static_static": False}
        self.gateway.program = (sys.executable, str(Path(__file__).with_name("short_gateway.py")))
        self.gateway.write()
        site.start()
        client.start()
        ping_until(client.namespace, site.inner4)
        exported = self.gateway.command("psk", "export", "scripted", "-c", self.gateway.file, "--out", "-").stdout
        gateway_key = base64.b64decode(site.gateway_key)
        self.peer = lab.add(
            SoftwarePeer(
                place.namespace, private, gateway_key, place.gateway_endpoint, base64.b64decode(exported.strip())
            )
        )
        self.inner = site.inner4
        self.streams = site.streams(client)
        self.handshake()

    def handshake(self) -> None:
        """One of the scripted peer, with an echo through it."""
        # One that comes sooner after another is dropped, and the peer would wait for its answer.
        time.sleep(INITIATION_FLOOD_GUARD / 1e9)
        self.peer.initiate()
        self.peer.ping(f"10.8.0.{_NUMBER}", self.inner)

    def away(self, function: str, ckr: int, delay: float = 0.0) -> float:
        """`function` returns `ckr` until the token is away, every call takes `delay` seconds more; then all is well.

        Gives the seconds from the end of the fault until a handshake went through.
        """
        known = self.gateway.counter("token-away")
        if delay:
            self.rig.slow(delay)
        self.rig.fail(function, ckr)

        def noticed() -> bool:
            # Again and again: one that comes too soon after another is dropped.
            _, _, message = self.peer.initiation()
            self.peer.socket.sendto(message, self.peer.target)
            return self._token_is("away")

        until(noticed, f"the token is away after {ckr:#x} from {function}", _PATIENCE)
        # The live session is not concerned.
        self.peer.ping(f"10.8.0.{_NUMBER}", self.inner)
        self.rig.clear()
        began = time.monotonic()
        if delay:
            self.rig.slow(delay)
        until(lambda: self._token_is("ready"), f"the token is back after {ckr:#x} from {function}", _PATIENCE)
        self.handshake()
        spent = time.monotonic() - began
        self.rig.clear()
        assert self.gateway.counter("token-away") == known + 1
        return spent

    def slow(self, delay: float, handshakes: int) -> float:
        """Every call takes `delay` seconds longer for some handshakes: none is lost.

        Gives the seconds that the next one took.
        """
        counters = ("token-away", "token-checked", "token-fault")
        known = [self.gateway.counter(each) for each in counters]
        self.rig.slow(delay)
        for _ in range(handshakes):
            self.handshake()
        self.rig.clear()
        began = time.monotonic()
        self.handshake()
        spent = time.monotonic() - began
        assert [self.gateway.counter(each) for each in counters] == known
        return spent

    def lost(self) -> int:
        """Packets that the stock client and the gateway have missed of each other; the streams end."""
        for stream in self.streams:
            stream.wait_for(50, limit=_PATIENCE)
        return sum(len(stream.finish().lost) for stream in self.streams)

    def restarts(self, roles: Iterable[str] = CHILDREN) -> int:
        """How often any process was restarted."""
        return sum(self.gateway.restarts(role) for role in roles)

    def _token_is(self, state: str) -> bool:
        status = self.gateway.status().token
        return status is not None and status.state == state


@functools.cache
def observed(
    path: tuple[str, ...], returns: tuple[int, ...], slow: tuple[float, ...]
) -> dict[str, tuple[str, list[float]]]:
    """Every error from every call, then slow calls alone and with errors: the rows of the page, fault and effect.

    With each row the seconds from the end of each of its faults until a handshake went through.
    """
    little, more, most = slow
    # A repair takes a hundred calls, so that few are tried where each is slow.
    tried = {
        0.0: [(name, ckr) for name in path for ckr in returns],
        little: [(name, ckr) for name in path for ckr in CLASSES],
        more: [(name, CLASSES[place % len(CLASSES)]) for place, name in enumerate(path)],
        most: [(path[0], CLASSES[1])],
    }
    with LiveBench() as bench:
        spent = {delay: [bench.away(name, ckr, delay) for name, ckr in faults] for delay, faults in tried.items()}
        slowed = [bench.slow(delay, 3) for delay in slow]
        assert bench.restarts() == 0
        assert bench.lost() == 0
    away = "the live session goes on and loses no packet; handshakes wait until the fault is gone, then go on"
    faults = {
        0.0: "any error from any call, until it is cleared",
        little: f"an error of each kind from any call, while every call takes {little * 1000:g} ms longer",
        more: f"an error from any call, while every call takes {more * 1000:g} ms longer",
        most: f"an error of the derive, while every call takes {most * 1000:g} ms longer",
    }
    rows = {fault: (away, spent[delay]) for delay, fault in faults.items()}
    times = ", ".join(f"{delay * 1000:g}" for delay in slow)
    rows[f"every call takes {times} ms longer"] = ("the live session loses no packet; no handshake is refused", slowed)
    return rows

"""The laboratory: makes namespaces, cables, peers and relays, and removes all of them in reverse order.

Used as a context manager or through the fixture `lab`. A SIGTERM or SIGHUP becomes a KeyboardInterrupt
(`exit_on_signals`), so that the removal also happens then; children die with their starter in any case.
"""

import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol, Self, TypeVar, runtime_checkable

from tests.network.support.netns import End, Link, Namespace, connect
from tests.network.support.relay import Relay
from tests.network.support.wireguard_go import KeyPair, StockPeer


class _Closable(Protocol):
    def close(self) -> None: ...


@runtime_checkable
class _Witness(Protocol):
    def account(self) -> str: ...


C = TypeVar("C", bound=_Closable)

_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt while the block runs; main thread only."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Lab:
    """Everything that one scenario has made, and the order to take it down."""

    def __init__(self) -> None:
        # Another uid must be able to pass through; the secrets inside are files of mode 0600.
        self.scratch = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp"))
        self.scratch.chmod(0o711)
        self._made: list[_Closable] = []
        self._links = 0

    def add(self, made: C) -> C:
        """Take charge of something with a `close` method."""
        self._made.append(made)
        return made

    def namespace(self, hint: str = "ns") -> Namespace:
        """Make a namespace."""
        return self.add(Namespace(hint))

    def connect(self, left: Namespace, right: Namespace, mtu: int = 1500) -> Link:
        """Lay a cable between two namespaces; each has its own addresses."""
        self._links += 1
        return connect(left, right, self._links, mtu)

    def stock_peer(
        self,
        namespace: Namespace,
        addresses: Sequence[str],
        listen_port: int = 0,
        keys: KeyPair | None = None,
        mtu: int = 1420,
    ) -> StockPeer:
        """Start a wireguard-go, see StockPeer."""
        return self.add(StockPeer(namespace, self.scratch, addresses, listen_port, keys, mtu))

    def relay(self, left: End, right: End, target: str, family: int = 4, seed: int = 1) -> Relay:
        """Start a relay in the namespace that both ends stand in, see Relay."""
        return self.add(Relay(left, right, target, self.scratch, family, seed))

    def account(self) -> str:
        """What gateways and stock peers have seen so far, for whoever wonders why a test failed."""
        return "\n".join(made.account() for made in self._made if isinstance(made, _Witness))

    def close(self) -> None:
        """Remove everything; a second Ctrl-C waits until that is done."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            for made in reversed(self._made):
                try:
                    made.close()
                except Exception as error:
                    print(f"could not remove {made!r}: {error!r}", file=sys.stderr)
            self._made.clear()
            shutil.rmtree(self.scratch, ignore_errors=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

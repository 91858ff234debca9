"""Derives on their way: from the machine to the token's threads, and back to the main thread.

    Derive ---> the threads of the token in use, without the interpreter ---> eventfd ---> landings
           ---> Workers, where the package was built without C

Called by `service` on the main thread. When another token has come into use meanwhile, it is asked instead.
"""

from __future__ import annotations

import os
import time
from collections import deque
from functools import partial
from select import select
from typing import TYPE_CHECKING, Protocol

from wghsm.pkcs11_backend import TokenError, TokenFault
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from wghsm.pkcs11_backend import Derivers

    from .effects import Derive, Landing
    from .vault import TokenVault
    from .workers import Workers

__all__ = ["Deriving", "derive_here"]


class _Derives(Protocol):
    def derive(self, identity: bytes, public: bytes) -> bytearray: ...


class Deriving:
    """`fileno` is readable when `landings` has something."""

    def __init__(self, vault: TokenVault, workers: Workers) -> None:
        self._vault = vault
        self._workers = workers
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._asked: dict[Derivers, dict[int, Derive]] = {}
        self._landed: deque[Landing] = deque()
        self.submitted = 0
        """How many derives there have been."""

    def fileno(self) -> int:
        """The eventfd."""
        return self._event

    def submit(self, derive: Derive) -> None:
        """Have the token in use derive. Raises queue.Full, OSError; the token's errors land as results."""
        self.submitted += 1
        number = self.submitted
        try:
            derivers = self._vault.begin_derive(self._event, number, derive.identity, derive.public)
        except TokenError as error:
            self._landed.append(partial(derive.landed, error.with_traceback(None)))
            os.eventfd_write(self._event, 1)
            return
        if derivers is None:
            self._workers.submit(partial(derive_here, self._vault, derive))
        else:
            self._asked.setdefault(derivers, {})[number] = derive

    def landings(self) -> list[Landing]:
        """What has come back since the last call, in order."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return []
        landings = [self._landed.popleft() for _ in range(len(self._landed))]
        for derivers, asked in list(self._asked.items()):
            for number, result in derivers.take():
                derive = asked.pop(number)
                if isinstance(result, TokenFault) and self._vault.has_left(derivers):
                    self.submit(derive)
                else:
                    landings.append(partial(derive.landed, result))
            if not asked and self._vault.has_left(derivers):
                del self._asked[derivers]
        return landings

    def longest_running(self) -> int:
        """For how many nanoseconds the slowest derive has been running; 0 if none is."""
        return max((derivers.longest() for derivers in self._asked), default=0)

    def stop(self, timeout: float) -> bool:
        """Wait for what was asked, at most `timeout` seconds, and forget it; True when all has come."""
        deadline = time.monotonic() + timeout
        while waiting := {derivers: asked for derivers, asked in self._asked.items() if asked}:
            if not select([self], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return False
            os.eventfd_read(self._event)
            for derivers, asked in waiting.items():
                for number, result in derivers.take():
                    del asked[number]
                    if isinstance(result, bytearray):
                        wipe(result)
        return True


def derive_here(vault: _Derives, derive: Derive) -> Landing:
    """The whole of a derive on the calling thread."""
    try:
        return partial(derive.landed, vault.derive(derive.identity, derive.public))
    except TokenError as error:
        return partial(derive.landed, error.with_traceback(None))

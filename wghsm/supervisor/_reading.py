"""The gateway's file read in a thread: 10,000 peers take seconds, in which children may die and clients ask.

    Reading(loop, file, before, done) -> thread: load, files beside it, model -> the loop: done(Wanted | problems)

Called by `_reload`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wghsm import config
from wghsm.ipc import messages as m

from .model import Model, initial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from wghsm.process import Loop

__all__ = ["Reading", "Wanted"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A good file: the gateway, what stands in its files of wrapped PSKs, and the model that it would start with."""

    gateway: config.Gateway
    wrapped: Mapping[Path, list[config.WrappedPsk]]
    model: Model

    def sealed(self, limit: int) -> list[m.SealedPsk]:
        """The lines of wrapped PSKs that active peers may use, at most `limit` of them."""
        found: list[m.SealedPsk] = []
        for peer in self.gateway.peers:
            if len(found) >= limit:
                break
            if peer.public_key in self.model.peers and isinstance(peer.preshared_key, config.PskWrapped):
                path = peer.preshared_key.file
                for epoch, sealed in self.wrapped[path][:2]:
                    where = f"{path}:{config.line_of_epoch(path, epoch)}"
                    found.append(m.SealedPsk(peer.public_key, epoch, sealed, where))
        return found[:limit]


class Reading:
    """One reading of a file."""

    def __init__(
        self,
        loop: Loop,
        file: str,
        before: config.Gateway,
        done: Callable[[Wanted | tuple[config.Problem, ...]], None],
    ) -> None:
        """`done` is called by the loop, once. `before`: the gateway of the file when it was read last."""
        self._loop = loop
        self._file = file
        self._before = before
        self._done = done
        self._found: Wanted | tuple[config.Problem, ...] = ()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        loop.add_reader(self._event, self._end)
        # A daemon: the end of the gateway does not wait for it.
        threading.Thread(target=self._read, name="reload", daemon=True).start()

    def _read(self) -> None:
        try:
            gateway = config.load(self._file).sharing(self._before)
            wrapped = config.read_wrapped_files(gateway)
            self._found = Wanted(gateway, wrapped, initial(gateway, wrapped, time.time()))
        except config.ConfigError as error:
            self._found = error.problems
        except Exception as error:
            _log.exception("the file could not be read")
            text = f"the file could not be read ({type(error).__name__})"
            self._found = (config.Problem(self._file, 0, text, "see the log"),)
        os.eventfd_write(self._event, 1)

    def _end(self) -> None:
        self._loop.remove_reader(self._event)
        os.close(self._event)
        self._done(self._found)

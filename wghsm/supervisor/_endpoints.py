"""Endpoints of the gateway file to addresses: literal ones at once, names by the resolver process.

    want(key, name, port) -> one resolver process for all that wait -> found({key: endpoint})
                                  not resolved: again after 1 s, doubling to 60 s

Called by `_supervisor`. The resolver's answer is believed only where it is a literal address.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from wghsm.ipc import messages as m
from wghsm.resolver import Addresses, Names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wghsm import config
    from wghsm.process import Loop, Timer

__all__ = ["Resolving", "is_address", "literal"]

_log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_TIME_LIMIT = 30 * _SECOND
_FIRST_RETRY = _SECOND
_LONGEST_RETRY = 60 * _SECOND
_MAX_ANSWER = 16 * 1024 * 1024
ENTRY = (sys.executable, "-I", "-m", "wghsm.resolver")


def literal(endpoint: config.Endpoint) -> m.Endpoint | None:
    """The endpoint if its host is an address (and its scope's interface exists), None if it must wait."""
    host, _, scope = endpoint.host.partition("%")
    try:
        ipaddress.ip_address(host)
        index = socket.if_nametoindex(scope) if scope else 0
    except (ValueError, OSError):
        return None
    return m.Endpoint(host, endpoint.port, index)


class Resolving:
    """The names that wait for an address."""

    def __init__(
        self,
        loop: Loop,
        user: tuple[int, int],
        families: Sequence[int],
        found: Callable[[dict[bytes, m.Endpoint]], None],
        entry: Sequence[str] = ENTRY,
    ) -> None:
        """`user` is the resolver's uid and gid; `found` gets endpoints by public key, each once."""
        self._loop = loop
        self._user = user
        self._families = list(families)
        self._found = found
        self._entry = entry
        self._wanted: dict[bytes, config.Endpoint] = {}
        self._running: _Run | None = None
        self._retry: Timer | None = None
        self._delay = _FIRST_RETRY

    def want(self, public_key: bytes, endpoint: config.Endpoint) -> None:
        """Resolve this peer's endpoint; begins with the loop's next turn."""
        self._wanted[public_key] = endpoint
        self._schedule(0)

    def retain(self, needed: Callable[[bytes], bool]) -> None:
        """Forget the peers that need no address any more."""
        self._wanted = {key: endpoint for key, endpoint in self._wanted.items() if needed(key)}

    def close(self) -> None:
        """End a resolver at work."""
        self._wanted.clear()
        if self._retry is not None:
            self._retry.cancel()
        if self._running is not None:
            self._running.close()
            self._running = None

    def _schedule(self, delay: int) -> None:
        if self._retry is None and self._running is None:
            self._retry = self._loop.call_later(delay, self._start)

    def _start(self) -> None:
        self._retry = None
        found = {key: address for key, endpoint in self._wanted.items() if (address := literal(endpoint))}
        self._deliver(found)
        names = sorted({endpoint.host for endpoint in self._wanted.values() if "%" not in endpoint.host})
        if names:
            request = msgspec.json.encode(Names(names, self._families))
            try:
                self._running = _Run(self._loop, [*self._entry, *self._arguments()], request, self._done)
            except OSError as error:
                _log.error("the resolver cannot be started: %s", error.strerror)
        if self._running is None:
            self._again()

    def _arguments(self) -> list[str]:
        uid, gid = self._user
        return ["--uid", str(uid), "--gid", str(gid), "--parent", str(os.getpid())]

    def _done(self, answer: bytes) -> None:
        self._running = None
        try:
            result = msgspec.json.decode(answer, type=Addresses)
        except msgspec.MsgspecError:
            result = Addresses({}, {})
            _log.error("the resolver gave no answer")
        found: dict[bytes, m.Endpoint] = {}
        for key, endpoint in self._wanted.items():
            address = next(filter(is_address, result.addresses.get(endpoint.host, ())), None)
            if address is not None:
                _log.info("endpoint %s is %s", endpoint, address)
                host, _, scope = address.partition("%")
                found[key] = m.Endpoint(host, endpoint.port, int(scope) if scope.isdecimal() else 0)
        self._deliver(found)
        for host in sorted({endpoint.host for endpoint in self._wanted.values()}):
            _log.warning("endpoint name %s: %s", host, ascii(result.errors.get(host, "no address"))[1:-1])
        self._again()

    def _deliver(self, found: dict[bytes, m.Endpoint]) -> None:
        for key in found:
            del self._wanted[key]
        if found:
            self._found(found)

    def _again(self) -> None:
        if self._wanted:
            self._schedule(self._delay)
            self._delay = min(self._delay * 2, _LONGEST_RETRY)
        else:
            self._delay = _FIRST_RETRY


class _Run:
    """One resolver process."""

    def __init__(self, loop: Loop, argv: Sequence[str], request: bytes, done: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._done = done
        self._answer = bytearray()
        stdin = os.memfd_create("wghsm-names", os.MFD_CLOEXEC)
        try:
            os.write(stdin, request)
            os.lseek(stdin, 0, os.SEEK_SET)
            environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
            self._popen = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, env=environment)  # noqa: S603
        finally:
            os.close(stdin)
        if self._popen.stdout is None:
            raise OSError("no pipe to the resolver")
        self._pipe = self._popen.stdout
        os.set_blocking(self._pipe.fileno(), False)
        loop.add_reader(self._pipe, self._read)
        self._limit = loop.call_later(_TIME_LIMIT, self._end)

    def close(self) -> None:
        """Kill it, without an answer."""
        self._limit.cancel()
        self._loop.remove_reader(self._pipe)
        self._pipe.close()
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._pipe.fileno(), 65536)
        except BlockingIOError:
            return
        self._answer += data
        if not data or len(self._answer) > _MAX_ANSWER:
            self._end()

    def _end(self) -> None:
        self.close()
        self._done(bytes(self._answer))


def is_address(text: str) -> bool:
    """Whether `text` is a literal IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

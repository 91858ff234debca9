"""The gateway's sockets: UDP for both families on one port, and the two listening UNIX sockets.

The supervisor keeps all of them open for processes that are restarted, and reads none. That they stay open also keeps
their order, by which a datagram finds the socket of its worker (`_sharing`). Called by `_run` and `_requests`.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Literal

from wghsm.exits import ExitCode

from ._fault import GatewayFault
from ._sharing import share

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["UdpPair", "UnixListener"]

_BUFFER = 4 * 1024 * 1024
_PORT_TRIES = 100
_BACKLOG = 128

# Not in Python's socket module.
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_DONT = 0


_Both = dict[Literal["4", "6"], socket.socket]


class UdpPair:
    """One UDP socket a family for each worker, all on `port`. A machine without IPv6 (or IPv4) has one family only."""

    def __init__(self, port: int, fwmark: int, workers: int = 1) -> None:
        """Bind `port`, or with 0 one that is free in both families. Raises OSError."""
        for attempt in range(_PORT_TRIES):
            try:
                self._by_worker = _bind_all(port, workers)
                break
            except OSError as error:
                # The kernel chose a port for one family that is taken in the other.
                if port or error.errno != errno.EADDRINUSE or attempt == _PORT_TRIES - 1:
                    raise
        self.port: int = next(self._sockets()).getsockname()[1]
        try:
            self.mark(fwmark)
        except OSError:
            self.close()
            raise

    @property
    def families(self) -> list[Literal["4", "6"]]:
        """The families there are, in the order of a worker's descriptors."""
        return list(self._by_worker[0])

    @property
    def descriptors(self) -> list[int]:
        """The descriptors of all sockets, which stay this object's."""
        return [sock.fileno() for sock in self._sockets()]

    def descriptors_of(self, worker: int) -> list[int]:
        """The descriptors of one worker's sockets."""
        return [sock.fileno() for sock in self._by_worker[worker].values()]

    def mark(self, fwmark: int) -> None:
        """Set SO_MARK; holds for the processes' copies of the descriptors too."""
        for sock in self._sockets():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, fwmark)

    def close(self) -> None:
        """Close this process's descriptors."""
        for sock in self._sockets():
            sock.close()

    def _sockets(self) -> Iterator[socket.socket]:
        return (sock for both in self._by_worker for sock in both.values())


def _bind_all(port: int, workers: int) -> list[_Both]:
    """The sockets of each worker."""
    first = _bind_both(port, shared=False)
    if workers == 1:
        return [first]
    # Sockets that share a port also share it with those of another program of root's, so one that shares it with
    # nobody has to have had it first.
    port = next(iter(first.values())).getsockname()[1]
    for sock in first.values():
        sock.close()
    found: list[_Both] = []
    try:
        while len(found) < workers:
            found.append(_bind_both(port, shared=True))
        for sock in found[0].values():
            share(sock, workers)
    except OSError:
        for both in found:
            for sock in both.values():
                sock.close()
        raise
    return found


def _bind_both(port: int, *, shared: bool) -> _Both:
    found: _Both = {}
    families: tuple[tuple[Literal["4", "6"], socket.AddressFamily], ...] = (
        ("4", socket.AF_INET),
        ("6", socket.AF_INET6),
    )
    try:
        for name, family in families:
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                continue
            found[name] = sock
            _prepare(sock)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                sock.bind(("0.0.0.0" if name == "4" else "::", port))  # noqa: S104
            except OSError as error:
                # IPv6 compiled in but switched off.
                if name == "4" or error.errno != errno.EADDRNOTAVAIL:
                    raise
                found.pop(name).close()
                continue
            port = sock.getsockname()[1]
    except OSError:
        for sock in found.values():
            sock.close()
        raise
    if not found:
        raise OSError(errno.EAFNOSUPPORT, "neither IPv4 nor IPv6")
    return found


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    for force, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)


class UnixListener:
    """A listening UNIX stream socket that only root may connect to, unlinked at `close`."""

    def __init__(self, path: Path) -> None:
        """Listen at `path`, replacing a socket that nobody answers on; GatewayFault for anything else there."""
        self.path = path
        # wg(8) removes a socket that refuses it, as this one would before it listens: until then it has another name.
        unfinished = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            unfinished.unlink(missing_ok=True)
            _remove_stale(path)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            before = os.umask(0o077)
            try:
                self._socket.bind(str(unfinished))
            finally:
                os.umask(before)
            self._socket.listen(_BACKLOG)
            self._inode = unfinished.stat().st_ino
            path.hardlink_to(unfinished)
            unfinished.unlink()
        except OSError as error:
            raise GatewayFault(ExitCode.SYSTEM, f"no socket can be made at {path}: {error.strerror}") from None

    def fileno(self) -> int:
        """The descriptor, which stays this object's."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening, and remove the file unless it is another one by now."""
        if self.is_there():
            self.path.unlink(missing_ok=True)
        self._socket.close()

    def is_there(self) -> bool:
        """Whether the file is, and is this socket's."""
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise GatewayFault(ExitCode.SYSTEM, f"{path} is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A full backlog is a sign of life too.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass
    raise GatewayFault(ExitCode.ALREADY_RUNNING, f"another program serves {path.stem}: {path} answers; end it first")

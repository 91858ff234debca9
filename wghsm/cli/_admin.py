"""Asking a running gateway over its admin socket. Called by the commands that need a gateway.

A gateway runs if its socket takes connections: a killed one leaves a socket behind that refuses. One that ends while it
is asked closes the connection, and its socket goes a moment later; to the commands it does not run either.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from wghsm.exits import ExitCode
from wghsm.ipc import admin

from ._output import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "NotRunningError",
    "ask",
    "exchange",
    "gateway_with",
    "running_gateways",
    "status_if_running",
    "status_of",
    "statuses",
]

_PATIENCE = 30.0
# A gateway that ends closes a connection twice at most: its control process does, then whoever keeps the socket.
_ENDING_TRIES = 3


class NotRunningError(CommandError):
    """The gateway that was asked does not run, or has ended meanwhile."""


def running_gateways() -> list[str]:
    """Names of the gateways that run on this machine, sorted."""
    folder = admin.admin_socket_path("x").parent.parent
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return []
    return [name for name in names if _listens(admin.admin_socket_path(name))]


def ask(gateway: str, request: admin.AdminRequest) -> admin.AdminReply:
    """Send one request and wait for its reply. Raises CommandError as `exchange`, and if the gateway refuses."""
    reply = exchange(gateway, request)
    if reply.errno:
        raise CommandError(f"gateway {gateway!r}: {reply.text or os.strerror(reply.errno)}")
    return reply


def exchange(gateway: str, request: admin.AdminRequest, patience: float = _PATIENCE) -> admin.AdminReply:
    """Send one request and wait up to `patience` seconds for its reply, which may be a refusal.

    Raises NotRunningError if the gateway does not run, another CommandError if it does not answer.
    """
    line = _send(gateway, request, patience)
    if not line:
        _raise_if_ending(gateway)
        raise _silent(gateway)
    try:
        return msgspec.json.decode(line, type=admin.AdminReply)
    except msgspec.MsgspecError:
        raise CommandError(f"gateway {gateway!r} runs another version of wghsm; use its command") from None


def status_of(gateway: str) -> admin.Status:
    """The gateway's status. Raises CommandError as `ask`."""
    status = ask(gateway, admin.AdminRequest(verb="status")).status
    if status is None:
        raise CommandError(f"gateway {gateway!r} gave no status")
    return status


def status_if_running(gateway: str) -> admin.Status | None:
    """The gateway's status, None if it does not run. Raises CommandError if it runs and does not tell."""
    try:
        return status_of(gateway)
    except NotRunningError:
        return None


def statuses(first: str = "") -> Iterator[admin.Status | CommandError]:
    """The status of each gateway that runs, or why it gives none; of the one called `first` before the others."""
    for name in sorted(running_gateways(), key=lambda each: each != first):
        try:
            yield status_of(name)
        except NotRunningError:
            continue
        except CommandError as fault:
            yield fault


def gateway_with(file: str) -> str | None:
    """The running gateway that has this file. Raises CommandError if one that does not tell may be it."""
    wanted = Path(file).resolve()
    fault: CommandError | None = None
    for answer in statuses(first=Path(file).stem):
        if isinstance(answer, CommandError):
            fault = fault or answer
        elif Path(answer.file).resolve() == wanted:
            return answer.name
    if fault is not None:
        raise CommandError(f"no gateway that answers has the file {file}; {fault}", fault.exit_code)
    return None


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Without waiting: that too many wait already is a sign of life, and so is a socket for root alone.
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return False
    return True


def _send(gateway: str, request: admin.AdminRequest, patience: float) -> bytes:
    """The line that answers, empty if the gateway closes the connection without one. Raises CommandError."""
    path = admin.admin_socket_path(gateway)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(patience)
            sock.connect(os.fspath(path))
            sock.sendall(msgspec.json.encode(request) + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline()
    except (FileNotFoundError, ConnectionRefusedError):
        others = [name for name in running_gateways() if name != gateway]
        known = f"running are: {', '.join(others)}" if others else "start it with: wghsm up FILE"
        raise NotRunningError(f"no gateway {gateway!r} is running; {known}", ExitCode.NOT_RUNNING) from None
    except PermissionError:
        raise CommandError(f"only root may talk to gateway {gateway!r}", ExitCode.NO_PRIVILEGE) from None
    except (TimeoutError, BlockingIOError):
        raise _silent(gateway) from None
    except ConnectionError:
        return b""
    return line if line.endswith(b"\n") else b""


def _raise_if_ending(gateway: str) -> None:
    """Wait until a gateway that has closed a connection answers again, or raise NotRunningError once it is gone."""
    for _ in range(_ENDING_TRIES):
        if _send(gateway, admin.AdminRequest(verb="status"), _PATIENCE):
            return


def _silent(gateway: str) -> CommandError:
    return CommandError(f"gateway {gateway!r} does not answer; its log says why, then try again")

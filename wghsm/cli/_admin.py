"""Asking a running gateway over its admin socket. Called by the commands that need a gateway."""

from __future__ import annotations

import os
import socket

import msgspec

from wghsm.exits import ExitCode
from wghsm.ipc import admin

from ._output import CommandError

__all__ = ["ask", "exchange", "running_gateways", "status_of"]

_PATIENCE = 30.0


def running_gateways() -> list[str]:
    """Names of the gateways that have an admin socket on this machine, sorted."""
    folder = admin.admin_socket_path("x").parent.parent
    try:
        return sorted(entry.name for entry in folder.iterdir() if admin.admin_socket_path(entry.name).is_socket())
    except FileNotFoundError:
        return []


def ask(gateway: str, request: admin.AdminRequest) -> admin.AdminReply:
    """Send one request and wait for its reply. Raises CommandError if the gateway is not there or refuses."""
    reply = exchange(gateway, request)
    if reply.errno:
        raise CommandError(f"gateway {gateway!r}: {reply.text or os.strerror(reply.errno)}")
    return reply


def exchange(gateway: str, request: admin.AdminRequest, patience: float = _PATIENCE) -> admin.AdminReply:
    """Send one request and wait up to `patience` seconds for its reply, which may be a refusal.

    Raises CommandError if the gateway is not there or does not answer.
    """
    path = admin.admin_socket_path(gateway)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(patience)
            sock.connect(os.fspath(path))
            sock.sendall(msgspec.json.encode(request) + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline()
    except (FileNotFoundError, ConnectionRefusedError):
        raise CommandError(
            f"no gateway {gateway!r} is running; {_known()}",
            ExitCode.NOT_RUNNING,
        ) from None
    except PermissionError:
        raise CommandError(f"only root may talk to gateway {gateway!r}", ExitCode.NO_PRIVILEGE) from None
    except (TimeoutError, ConnectionError):
        line = b""
    if not line:
        raise CommandError(f"gateway {gateway!r} does not answer; its log says why, then try again")
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


def _known() -> str:
    names = running_gateways()
    return f"running are: {', '.join(names)}" if names else "start it with: wghsm up FILE"

"""What the gateway file and the machine mean for the start of processes: users, environments, limits, refusals.

Called by `_run`. Every fault is one line for the operator.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from wghsm.exits import ExitCode
from wghsm.ipc import Role

from ._fault import GatewayFault

if TYPE_CHECKING:
    from wghsm.config import Gateway, Token

__all__ = ["PinFile", "deadline", "environment", "pin_files", "users", "wants_pinpad", "wants_prompt"]

PinFile = tuple[int, int, int]
"""Device, inode and time of the last change: they tell that a file is another one, and nothing of what is in it."""

_SECOND = 1_000_000_000
_DEADLINE = 60 * _SECOND
_CUSTODIAN_DEADLINE = 120 * _SECOND
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def wants_prompt(uri: str) -> bool:
    """Whether a token's URI says that its PIN is typed (pin-source=prompt)."""
    return _pin_source(uri) == "prompt"


def wants_pinpad(uri: str) -> bool:
    """Whether a token's URI leaves it to the token to ask for its PIN (pin-source=protected, or none)."""
    return _pin_source(uri) in (None, "protected")


def pin_files(token: Token) -> dict[str, PinFile]:
    """The files that the token's PINs come from, by pin-source, as far as they are there. Nobody looks into them."""
    found: dict[str, PinFile] = {}
    for uri in token.in_order:
        source = _pin_source(uri) or ""
        kind, _, rest = source.partition(":")
        if kind == "file":
            path = Path(rest.removeprefix("//localhost"))
        elif kind == "credential":
            path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "")) / rest
        else:
            continue
        with contextlib.suppress(OSError):
            about = path.stat()
            found[source] = (about.st_dev, about.st_ino, about.st_ctime_ns)
    return found


def _pin_source(uri: str) -> str | None:
    for part in uri.partition("?")[2].split("&"):
        name, _, value = unquote(part).partition("=")
        if name == "pin-source":
            return value
    return None


def users(gateway: Gateway) -> dict[str, tuple[int, int]]:
    """The uid and gid of each room, by the names of the file's `users`. GatewayFault for an unknown or shared one."""
    found: dict[str, tuple[int, int]] = {}
    for room, user in gateway.users.model_dump().items():
        if isinstance(user, int):
            found[room] = (user, user)
            continue
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            text = f"there is no user {user} for the room {room}; make it (useradd --system {user}) or write a uid"
            raise GatewayFault(ExitCode.BAD_CONFIG, text) from None
        found[room] = (entry.pw_uid, entry.pw_gid)
    uids = [uid for uid, _ in found.values()]
    if 0 in uids or len(set(uids)) < len(uids):
        raise GatewayFault(
            ExitCode.BAD_CONFIG, "under users: each room needs a uid of its own, and none of them root's"
        )
    return found


def environment(gateway: Gateway, role: Role) -> dict[str, str]:
    """What a child finds in its environment; the module's variables only in the custodian's."""
    found = {"PATH": _PATH, "LANG": "C.UTF-8"}
    if role in (Role.EGRESS, Role.INGRESS) and "WGHSM_PURE" in os.environ:
        found["WGHSM_PURE"] = os.environ["WGHSM_PURE"]
    if role is Role.CUSTODIAN:
        for name in ("SOFTHSM2_CONF", "CREDENTIALS_DIRECTORY", *gateway.token.environment):
            if name in os.environ:
                found[name] = os.environ[name]
    return found


def deadline(role: Role, *, prompt: bool) -> int | None:
    """Nanoseconds that a child has until it serves; none for a person at a prompt or a pinpad."""
    if role is not Role.CUSTODIAN:
        return _DEADLINE
    return None if prompt else _CUSTODIAN_DEADLINE

"""Doing token work in a process of its own, as the owner of the token's store, for the commands that use a token.

The vendor's module is loaded in a child alone: one that crashes costs a line, and Ctrl-C ends one that hangs. A
SoftHSM store must belong to the uid that runs the custodian, for what root writes into it is invisible to that uid. So
where the store belongs to another uid and we are root, the child changes to the owner before it loads the module.

    parent: open and read the PIN -> fork -> child: drop, load the module, work, answer on a pipe
    parent: read the answer -> print

The answer is JSON plus, apart, one secret as raw bytes: nothing that the child says is executed.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import click

from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenError, TokenPool, TokenUri, UriError, open_pin
from wghsm.softhsm_setup import store_owner
from wghsm.wipe import wipe

__all__ = ["Answer", "as_owner", "on_token", "owner_to_become"]

_ANSWER = b"A"
_FAULT = b"F"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass
class Answer:
    """What token work gives back: JSON values, and at most one secret, which the reader wipes."""

    data: object = None
    secret: bytearray = field(default_factory=bytearray, repr=False)


def on_token(uri: TokenUri, work: Callable[[TokenPool], Answer], *, read_write: bool = False) -> Answer:
    """Log in to the token and do `work` as its store's owner. Raises TokenError and CommandError."""
    if uri.module_path is None:
        raise UriError("token URI: no module-path; write ?module-path=/path/of/the/module.so")
    _no_core_dump()
    with open_pin(uri.pin_source) as source:
        pin = source.read_for_login(f"PIN of {uri.describe_token()}: ")
    if uri.pin_source is not None and pin is None:
        click.echo(f"type the PIN of {uri.describe_token()} at its pinpad", err=True)

    def logged_in() -> Answer:
        with TokenPool.open(uri, pin, sessions=1, read_write=read_write) as pool:
            return work(pool)

    try:
        return as_owner(uri, logged_in)
    finally:
        wipe(pin)


def as_owner(uri: TokenUri, work: Callable[[], Answer]) -> Answer:
    """Do `work` in a child, as the owner of the store that `uri` leads to. Raises CommandError."""
    _no_core_dump()
    return _in_child(uri, owner_to_become(uri), work)


def owner_to_become(uri: TokenUri) -> tuple[int, int] | None:
    """Return the uid and gid to change to before the module is loaded, None to stay. Raises CommandError."""
    owner = store_owner(uri.module_path, os.environ)
    if owner is None or owner[0] in (0, os.geteuid()):
        return None
    if os.geteuid() != 0:
        raise CommandError(
            f"the token's store belongs to uid {owner[0]}; run this as root or as that user", ExitCode.NO_PRIVILEGE
        )
    return owner


def _no_core_dump() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _in_child(uri: TokenUri, owner: tuple[int, int] | None, work: Callable[[], Answer]) -> Answer:
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(parent, writing, owner, work)
    os.close(writing)
    message = bytearray()
    try:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while chunk := pipe.read(65536):
                message += chunk
                wipe(chunk)
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    try:
        return _parse(uri, message, os.waitstatus_to_exitcode(status))
    finally:
        wipe(message)


def _child(parent: int, writing: int, owner: tuple[int, int] | None, work: Callable[[], Answer]) -> None:
    """Never returns: Python's exit handlers and the command's own belong to the parent."""
    status = 1
    try:
        if owner is not None:
            uid, gid = owner
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        # A module that hangs must not outlive a command that is killed. The change of uid would undo it.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            return
        try:
            answer = work()
        except TokenError as fault:
            _send(writing, _FAULT, {"message": str(fault), "exit_code": int(fault.exit_code)}, bytearray())
        except CommandError as fault:
            _send(writing, _FAULT, {"message": str(fault), "exit_code": int(fault.exit_code)}, bytearray())
        else:
            _send(writing, _ANSWER, answer.data, answer.secret)
            wipe(answer.secret)
        status = 0
    except KeyboardInterrupt:
        status = ExitCode.INTERRUPTED
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _send(writing: int, kind: bytes, data: object, secret: bytearray) -> None:
    text = json.dumps(data).encode()
    for part in (kind, len(text).to_bytes(4, "big"), text, secret):
        view = memoryview(part)
        while view:
            view = view[os.write(writing, view) :]


def _parse(uri: TokenUri, message: bytearray, status: int) -> Answer:
    if status == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if status < 0:
        raise CommandError(
            f"{uri.describe_token()}: its module {uri.module_path} has crashed ({signal.Signals(-status).name}); "
            "wghsm token doctor says where",
            ExitCode.TOKEN_UNUSABLE,
        )
    if status != 0 or len(message) < 5:
        raise CommandError(
            f"{uri.describe_token()}: the work ended without an answer (exit status {status}); its module "
            f"{uri.module_path} may have ended the process",
            ExitCode.TOKEN_UNUSABLE,
        )
    end = 5 + int.from_bytes(message[1:5], "big")
    data = json.loads(bytes(message[5:end]))
    if message[:1] == _FAULT:
        raise CommandError(str(data["message"]), ExitCode(int(data["exit_code"])))
    return Answer(data, bytearray(memoryview(message)[end:]))

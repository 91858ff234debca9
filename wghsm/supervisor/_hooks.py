"""The programs that the gateway file wants to be run when the gateway starts and ends.

    up     interface, routes and firewall are there, no process of the gateway is: the first that fails ends the start
    down   sessions are over, the interface still there; what fails is logged, and the next one is run

They run as root with the supervisor's capabilities, one after the other, each as a group of processes of its own, with
no descriptor but its output, which goes to the log. What was begun by `up` is undone by `down`, even where one of them
failed. Called by `_run`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from wghsm.exits import ExitCode

from ._fault import GatewayFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wghsm.config import Gateway

__all__ = ["run_down", "run_up"]

_log = logging.getLogger(__name__)

TIME_LIMIT = 20.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_MOST_OUTPUT = 4096


def run_up(gateway: Gateway) -> None:
    """Run the programs of `hooks.up`. GatewayFault at the first that fails."""
    for program in gateway.hooks.up:
        if why := _run("up", program, _environment(gateway)):
            raise GatewayFault(ExitCode.SYSTEM, why)


def run_down(gateway: Gateway) -> None:
    """Run the programs of `hooks.down`, whatever becomes of them."""
    for program in gateway.hooks.down:
        if why := _run("down", program, _environment(gateway)):
            _log.error("%s", why)


def _environment(gateway: Gateway) -> Mapping[str, str]:
    return {"WGHSM_INTERFACE": gateway.interface.name, "PATH": _PATH}


def _run(when: str, program: Sequence[str], environment: Mapping[str, str]) -> str:
    """Why it failed, in one line; empty if it did not."""
    what = f"the {when} hook {program[0]}"
    try:
        popen = subprocess.Popen(  # noqa: S603  (a program of the gateway file, no shell)
            list(program),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return f"{what} cannot be started: {error.strerror}"
    with popen:
        said, ended = _listen(popen)
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
        code = popen.wait()
    lines = ["".join(each if each.isprintable() else "?" for each in line) for line in said.splitlines()]
    for line in lines:
        _log.info("%s: %s", what, line)
    if not ended:
        return f"{what} took longer than {TIME_LIMIT:g} s and was ended"
    if code:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        last = f": {lines[-1][:200]}" if lines else ""
        return f"{what} has failed with {how}{last}"
    return ""


def _listen(popen: subprocess.Popen[bytes]) -> tuple[str, bool]:
    """What it writes, as far as it is kept, until it ends, and whether it did in time.

    What it leaves running may hold its output open: only its own end is waited for.
    """
    if popen.stdout is None:
        raise OSError("no pipe to the hook")
    pipe, deadline, said = popen.stdout.fileno(), time.monotonic() + TIME_LIMIT, bytearray()
    os.set_blocking(pipe, False)
    process = os.pidfd_open(popen.pid)
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.register(pipe, select.POLLIN)
        ended = False
        while not ended and (left := deadline - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left * 1000)}
            ended = process in ready
            if pipe in ready and not _drain(pipe, said):
                poll.unregister(pipe)
    finally:
        os.close(process)
    return said.decode("utf-8", "replace"), ended


def _drain(pipe: int, said: bytearray) -> bool:
    """Read a stretch of what is there; false at its end."""
    try:
        data = os.read(pipe, 65536)
    except BlockingIOError:
        return True
    said += data[: _MOST_OUTPUT - len(said)]
    return bool(data)

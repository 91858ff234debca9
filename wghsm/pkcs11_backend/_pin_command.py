"""A PIN from a program (`pin-source=command:`): run once, as whoever opens the source, with nothing inherited.

    check the file -> start it without a shell -> read its output into a bytearray -> it ended well: the PIN

Used by `pin`. The program's standard output is the PIN and is shown nowhere; of its standard error the last line
is shown when it fails.
"""

import contextlib
import os
import select
import signal
import stat
import subprocess
import time
from pathlib import Path

from wghsm.pkcs11_backend.errors import PinUnavailable
from wghsm.wipe import wipe

__all__ = ["TIME_LIMIT", "run_pin_command"]

TIME_LIMIT = 30.0
"""Seconds that the program has."""

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/"}
_STDERR_KEPT = 4096
_SHOWN = 200


def run_pin_command(command: str, limit: int, seconds: float = TIME_LIMIT) -> bytearray:
    """Run `command` (an absolute path and its arguments, split at spaces) and return what it writes, as it is.

    At most `limit` bytes are taken, for the caller to wipe. Raises PinUnavailable with one line.
    """
    words = command.split(" ")
    name = f"PIN command {words[0]}"
    if not words[0].startswith("/") or not all(words):
        raise PinUnavailable(
            "token URI: pin-source=command: needs an absolute path, and single spaces (%20) between its arguments, "
            "as in command:/usr/local/bin/pin%20gw"
        )
    program = _checked(name, words[0])
    try:
        process = subprocess.Popen(  # noqa: S603
            words,
            executable=program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=_ENVIRONMENT,
            cwd="/",
            umask=0o077,
            start_new_session=True,
        )
    except OSError as fault:
        raise PinUnavailable(f"{name}: it cannot be started: {fault.strerror}; correct pin-source") from None
    found = bytearray(limit)
    said = bytearray()
    try:
        length = _collect(process, found, said, time.monotonic() + seconds)
        if length is None:
            raise PinUnavailable(f"{name}: it did not end within {seconds:.0f} s; run it by hand to see what it wants")
        if length == limit:
            raise PinUnavailable(f"{name}: it writes more than a PIN, {limit} bytes or more; let it write one line")
        status = process.returncode
        if status:
            how = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise PinUnavailable(f"{name}: it failed ({how}){_last_line(said, found[:length])}")
        return found[:length]
    finally:
        _end(process)
        wipe(found)
        wipe(said)


def _checked(name: str, path: str) -> str:
    """The program's real path, once nobody but root and ourselves can put another program there."""
    try:
        real = Path(path).resolve(strict=True)
        about = real.stat()
    except (OSError, RuntimeError) as fault:
        why = getattr(fault, "strerror", None) or "a loop of links"
        raise PinUnavailable(f"{name}: {why}; correct pin-source or install the program") from None
    if not stat.S_ISREG(about.st_mode) or not about.st_mode & 0o111:
        raise PinUnavailable(f"{name}: not a program that can be run; chmod 755 {path}")
    for place in (real, *real.parents):
        about = place.stat()
        if about.st_uid not in (0, os.geteuid()):
            raise PinUnavailable(
                f"{name}: {place} belongs to uid {about.st_uid}, which could replace it; chown root {place}"
            )
        # In a sticky folder such as /tmp nobody else can replace what is ours.
        if about.st_mode & 0o022 and not (stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX):
            raise PinUnavailable(f"{name}: others can write {place}; chmod go-w {place}")
    return str(real)


def _collect(process: "subprocess.Popen[bytes]", found: bytearray, said: bytearray, deadline: float) -> int | None:
    """Read both pipes until the program ends; the number of bytes found, None if it does not end in time.

    Not until the end of file: a helper that the program leaves behind may keep the pipes.
    """
    if process.stdout is None or process.stderr is None:
        return None
    out, err = process.stdout.fileno(), process.stderr.fileno()
    end = os.pidfd_open(process.pid)
    length = 0
    pipes = {out, err}
    try:
        while length < len(found):
            ready = set(select.select([*pipes, end], [], [], max(0.0, deadline - time.monotonic()))[0])
            if not ready:
                return None
            if out in ready:
                with memoryview(found)[length:] as free:
                    got = os.readv(out, [free])
                length += got
                pipes -= set() if got else {out}
            if err in ready:
                text = os.read(err, 4096)
                said += text
                del said[:-_STDERR_KEPT]
                pipes -= set() if text else {err}
            if not pipes & ready and end in ready:
                process.wait()
                return length
        return length
    finally:
        os.close(end)


def _last_line(said: bytearray, found: bytearray) -> str:
    """The last line of standard error for a message; nothing when the output, perhaps the PIN, stands in it."""
    output = found.strip()
    try:
        if output and output in said:
            return "; its message is not shown, since it repeats its output"
    finally:
        wipe(output)
        wipe(found)
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        return " without a message; run it by hand"
    shown = "".join(sign if sign.isprintable() else "?" for sign in lines[-1])
    return ": " + (shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "...")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        # Its session is its own, so its children go with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()

"""Reading a WireGuard private key from outside, for `wghsm key import`: standard input, or a wg-quick file.

    terminal (echo off) | pipe -> one line -+
    wg-quick file -> [Interface] PrivateKey +-> base64 -> 32 bytes in a bytearray, which the caller wipes

Every buffer that held a part of the key is wiped, no str of it is ever made, and no message quotes what was read.
"""

import binascii
import os
import stat
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode
from wghsm.wipe import wipe

__all__ = ["key_from_stdin", "key_from_wg_quick", "open_to_others"]

_LINE = 256
_FILE = 1 << 20


def key_from_stdin() -> bytearray:
    """Read one line of base64 from descriptor 0, without echo at a terminal. Raises CommandError."""
    with _silent(0) as typed:
        if typed:
            os.write(2, b"private key in base64 (it is not shown): ")
        buffer = bytearray(_LINE)
        try:
            length = _read(0, buffer, line=True)
            return _decode(buffer, 0, length, "standard input")
        finally:
            wipe(buffer)


def key_from_wg_quick(path: str) -> bytearray:
    """Read PrivateKey of [Interface] from a wg-quick file of up to 1 MiB. Raises CommandError and OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _FILE:
            raise CommandError(f"{path}: no regular file of up to 1 MiB, so no wg-quick file", ExitCode.BAD_CONFIG)
        buffer = bytearray(about.st_size + 1)
        try:
            length = _read(descriptor, buffer)
            start, end = _find(buffer, length, path)
            return _decode(buffer, start, end, f"{path}: PrivateKey")
        finally:
            wipe(buffer)
    finally:
        os.close(descriptor)


def open_to_others(path: str) -> bool:
    """Say whether group or others can read the file. Raises OSError."""
    return bool(Path(path).stat().st_mode & 0o077)


@contextmanager
def _silent(descriptor: int) -> Iterator[bool]:
    """Turn the echo of a terminal off meanwhile; gives whether it is one."""
    if not os.isatty(descriptor):
        yield False
        return
    before = termios.tcgetattr(descriptor)
    silent = [*before]
    silent[3] = before[3] & ~termios.ECHO
    try:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, silent)
        yield True
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
        os.write(2, b"\n")


def _read(descriptor: int, buffer: bytearray, *, line: bool = False) -> int:
    """Fill `buffer` to the end of the input, or with `line` of its first line; gives the bytes read."""
    length = 0
    while length < len(buffer) and not (line and buffer.find(b"\n", 0, length) >= 0):
        with memoryview(buffer) as view:
            got = os.readv(descriptor, [view[length:]])
        if got == 0:
            break
        length += got
    return length


def _find(buffer: bytearray, length: int, path: str) -> tuple[int, int]:
    """Return where in the file the value of [Interface] PrivateKey starts and ends. Raises CommandError."""
    found: list[tuple[int, int]] = []
    section = b""
    start = 0
    while start < length:
        end = buffer.find(b"\n", start, length)
        end = length if end < 0 else end
        comment = buffer.find(b"#", start, end)
        stop = end if comment < 0 else comment
        equals = buffer.find(b"=", start, stop)
        # Copied is only what stands before the sign, or a section's name: no secret.
        if equals >= 0:
            if section == b"[interface]" and bytes(buffer[start:equals]).strip().lower() == b"privatekey":
                found.append((equals + 1, stop))
        elif buffer.find(b"[", start, stop) >= 0:
            section = bytes(buffer[start:stop]).strip().lower()
        start = end + 1
    if len(found) != 1:
        how = f"{len(found)} PrivateKey lines" if found else "no PrivateKey"
        raise CommandError(f"{path}: {how} in [Interface]; a wg-quick file with a key has one", ExitCode.BAD_CONFIG)
    return found[0]


def _decode(buffer: bytearray, start: int, end: int, where: str) -> bytearray:
    while start < end and buffer[start] in b" \t\r\n":
        start += 1
    while end > start and buffer[end - 1] in b" \t\r\n":
        end -= 1
    value = b""
    key = bytearray()
    if end - start == 44:
        try:
            with memoryview(buffer) as view:
                value = binascii.a2b_base64(view[start:end], strict_mode=True)
            key = bytearray(value)
        except binascii.Error:
            pass
        finally:
            wipe(value)
    if len(key) != 32:
        wipe(key)
        raise CommandError(
            f"{where} is no private key: it takes 44 characters of base64, as wg genkey prints them",
            ExitCode.BAD_CONFIG,
        )
    if not any(key):
        raise CommandError(f"{where}: all zeros, which WireGuard reads as no key; use wg genkey", ExitCode.BAD_CONFIG)
    return key

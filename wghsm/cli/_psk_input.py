"""A PSK from standard input, as `wg genpsk` prints it: read without a copy that cannot be wiped."""

import binascii
import os
import sys

import click

from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode
from wghsm.wipe import wipe

__all__ = ["read_psk"]


def read_psk() -> bytearray:
    """Return 32 bytes for the caller to wipe. Raises CommandError (BAD_CONFIG) for anything else than base64 of 32."""
    if sys.stdin.isatty():
        click.echo("PSK in base64, then Enter:", err=True)
    text = bytearray(256)
    length = 0
    # One line is enough, and a terminal gives no more.
    while length < len(text) and (not length or text[length - 1] != 0x0A):
        got = os.readv(0, [memoryview(text)[length:]])
        if got == 0:
            break
        length += got
    try:
        line = bytearray(memoryview(text)[:length]).strip()
        try:
            value = bytearray(binascii.a2b_base64(line, strict_mode=True))
        except binascii.Error:
            value = bytearray()
        finally:
            size = len(line)
            wipe(line)
    finally:
        wipe(text)
    if len(value) != 32 or size != 44:
        wipe(value)
        raise CommandError(
            "standard input is no PSK: it takes 44 characters of base64, as wg genpsk prints them", ExitCode.BAD_CONFIG
        )
    if not any(value):
        raise CommandError("the PSK is all zeros, which WireGuard reads as none; use wg genpsk", ExitCode.BAD_CONFIG)
    return value

"""The card and its pcscd, in a mount and a network namespace of their own: python -m tests.token.card.process FOLDER.

Standard input says `in` and `out` (the card), `down` and `up` (pcscd, killed and started again); each is answered by
itself once it is done. SIGTERM ends pcscd, then this. vpcd's protocol: two bytes of length, then one byte of command
(off, on, reset, ATR) or an APDU.
"""

import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jcecard.main import OpenPGPCard

_PORT = 35963
_ADMIN_PIN = b"12345678"
_OFF, _ON, _RESET, _ATR = 0, 1, 2, 4
# SELECT DATA, by which OpenSC chooses among a version 3 card's certificates; jcecard does not know it, and has none.
_SELECT_DATA = 0xA5
_VERIFY = 0x20
_PATIENCE = 60.0


class Card:
    """The card, in the reader or out of it. It keeps its key and its PIN counter while it is out."""

    def __init__(self, storage: Path) -> None:
        self._card = OpenPGPCard(storage_path=storage)
        self._reader: socket.socket | None = None
        self._card.power_on()
        # SELECT, VERIFY the admin PIN, the decryption key is ECDH on cv25519, GENERATE.
        for command in (
            bytes.fromhex("00A4040006D27600012401"),
            bytes((0x00, 0x20, 0x00, 0x83, len(_ADMIN_PIN))) + _ADMIN_PIN,
            bytes.fromhex("00DA00C20B122B060104019755010501"),
            bytes.fromhex("0047800002B80000"),
        ):
            answer: bytes = self._card.process_apdu(command)
            if answer[-2:] != b"\x90\x00":
                raise RuntimeError(f"the card refused {command[:4].hex()}: {answer[-2:].hex()}")
        self._card.power_off()

    def fileno(self) -> int:
        return -1 if self._reader is None else self._reader.fileno()

    def put(self) -> None:
        """Go into the reader and wait until pcscd has asked for the ATR."""
        deadline = time.monotonic() + _PATIENCE
        while self._reader is None:
            with contextlib.suppress(ConnectionRefusedError):
                self._reader = socket.create_connection(("127.0.0.1", _PORT), timeout=_PATIENCE)
            if time.monotonic() > deadline:
                raise TimeoutError("pcscd does not listen")
            time.sleep(0.01)
        while self.answer() != _ATR:
            continue

    def pull(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            self._card.power_off()

    def answer(self) -> int | None:
        """Answer one message of the reader; return the command, None for an APDU."""
        (length,) = struct.unpack(">H", self._receive(2))
        message = self._receive(length)
        if length != 1:
            self._send(self._apdu(message))
        elif message[0] == _ATR:
            self._send(self._card.get_atr())
        else:
            # A reset, too, ends what a PIN has opened: jcecard alone would keep it.
            if message[0] in (_OFF, _RESET):
                self._card.power_off()
            if message[0] in (_ON, _RESET):
                self._card.power_on()
        return message[0] if length == 1 else None

    def _apdu(self, command: bytes) -> bytes:
        if command[1] == _SELECT_DATA:
            return b"\x90\x00"
        answer: bytes = self._card.process_apdu(command)
        if command[1] == _VERIFY and len(command) > 5 and answer != b"\x90\x00":
            # As a card does, and jcecard does not: a wrong PIN closes what the right one has opened.
            self._card._security._verified_pins.discard(command[3])
        return answer

    def _send(self, data: bytes) -> None:
        if self._reader is not None:
            self._reader.sendall(struct.pack(">H", len(data)) + data)

    def _receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length and self._reader is not None:
            # vpcd sends length and data apart: without this each APDU waits 40 ms for a delayed acknowledgement.
            self._reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            piece = self._reader.recv(length - len(data))
            if not piece:
                raise ConnectionError("pcscd is gone")
            data += piece
        return data


class Daemon:
    """pcscd, with a socket in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Its socket has a fixed path: it sees our folder there.
        there = Path("/run/pcscd")
        there.mkdir(exist_ok=True)
        subprocess.run(["mount", "--bind", str(folder / "run"), str(there)], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self.begin()

    def begin(self) -> None:
        for left in (self._folder / "run").iterdir():
            left.unlink()
        self._process = subprocess.Popen(
            ["/usr/sbin/pcscd", "--foreground", "--critical", "--config", str(self._folder / "reader.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


def _serve(card: Card, daemon: Daemon) -> None:
    commands = sys.stdin.fileno()
    while True:
        ready, _, _ = select.select([commands] + ([card] if card.fileno() >= 0 else []), [], [])
        if card in ready:
            card.answer()
        if commands in ready:
            # One word at a time: its sender waits for the answer.
            match word := os.read(commands, 16).decode().strip():
                case "":
                    return
                case "in":
                    card.put()
                case "out":
                    card.pull()
                case "down":
                    card.pull()
                    daemon.kill()
                case "up":
                    daemon.begin()
            print(word, flush=True)


def main() -> None:
    """Run until standard input ends or SIGTERM comes; end with the parent at the latest."""
    logging.disable(logging.CRITICAL)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="wghsm-") as storage:
        daemon = Daemon(Path(sys.argv[1]))
        try:
            _serve(Card(Path(storage)), daemon)
        finally:
            daemon.end()


if __name__ == "__main__":
    main()

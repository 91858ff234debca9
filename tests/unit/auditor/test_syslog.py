"""Syslog over TLS: frames by octet counting, a queue that is bounded, and connections that come back."""

from __future__ import annotations

import contextlib
import datetime
import os
import queue
import re
import socket
import ssl
import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.unit.auditor.test_journald import record
from wghsm.auditor.syslog import Syslog, frame, tls_context
from wghsm.ipc.messages import SyslogServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FRAME = re.compile(
    rb"<(?P<priority>\d+)>1 (?P<time>\S+) \S+ wghsm-audit \d+ (?P<kind>\S+) - (?P<line>\{.*\})", re.DOTALL
)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, which is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "logs")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "logs.pem", folder / "logs.key"
    cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert_file, key_file


class LogServer:
    """A syslog server over TLS on 127.0.0.1, a thread of its own; `messages` has what came, without the lengths."""

    def __init__(self, cert_file: Path, key_file: Path, port: int = 0) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert_file, key_file)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.messages: queue.Queue[bytes] = queue.Queue()
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(plain)
            with contextlib.suppress(OSError, ValueError), self._context.wrap_socket(plain, server_side=True) as sock:
                self._open.append(sock)
                self._read(sock)

    def _read(self, sock: ssl.SSLSocket) -> None:
        with sock.makefile("rb") as stream:
            while length := b"".join(iter(lambda: stream.read(1).strip(), b"")):
                self.messages.put(stream.read(int(length)))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path)


@pytest.fixture
def server(files: tuple[Path, Path]) -> Iterator[LogServer]:
    made = LogServer(*files)
    yield made
    made.close()


def connect(server: LogServer, ca: Path, room: int = 100) -> Syslog:
    context, trouble = tls_context(SyslogServer("127.0.0.1", server.port, str(ca)))
    return Syslog("127.0.0.1", server.port, context, trouble, room=room, first_pause=0.05)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_frame_is_counted_in_octets() -> None:
    line, decoded = record()
    length, _, message = frame("host", line, decoded).partition(b" ")
    assert int(length) == len(message)
    found = FRAME.fullmatch(message)
    assert found is not None
    assert (found["priority"], found["kind"], found["line"]) == (b"109", b"start", line)
    assert found["time"] == b"1970-01-01T00:00:00.000000Z"
    assert str(os.getpid()).encode() in message


def test_records_come_whole_and_in_order(server: LogServer, files: tuple[Path, Path]) -> None:
    sink = connect(server, files[0])
    sent = [record(number) for number in range(50)]
    sink.send(sent)
    for line, _ in sent:
        assert server.messages.get(timeout=60).endswith(line)
    assert (sink.state, sink.lost) == ("ok", 0)
    sink.close()


def test_a_server_that_was_away_gets_what_there_was_room_for(files: tuple[Path, Path]) -> None:
    first = LogServer(*files)
    sink = connect(first, files[0], room=10)
    sink.send([record()])
    assert first.messages.get(timeout=60)
    port = first.port
    first.close()
    until(lambda: sink.state != "ok")
    sent = [record(number) for number in range(15)]
    sink.send(sent)
    lost = sink.lost
    assert (sink.losing, lost >= 4) == (True, True)
    second = LogServer(*files, port=port)
    for line, _ in sent[:10]:
        assert second.messages.get(timeout=60).endswith(line)
    sink.send([record(99)])
    assert (sink.losing, sink.lost) == (False, lost)
    sink.close()
    second.close()


def test_a_server_that_nobody_vouches_for_gets_nothing(server: LogServer, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    sink = connect(server, make_certificate(folder)[0])
    sink.send([record()])
    until(lambda: "certificate is not good" in sink.state)
    assert server.messages.empty()
    sink.close()


def test_files_that_cannot_be_used_are_a_fault_that_is_told(tmp_path: Path) -> None:
    context, trouble = tls_context(SyslogServer("logs", 6514, str(tmp_path / "absent.pem")))
    assert context is None
    assert "absent.pem: No such file" in trouble
    sink = Syslog("logs", 6514, context, trouble)
    assert sink.losing
    sink.send([record()])
    assert (sink.lost, sink.state) == (1, trouble)
    sink.close()

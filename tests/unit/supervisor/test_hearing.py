"""Sockets of an interface that is down: what comes then never arrives."""

import socket
from collections.abc import Iterator

import pytest

from wghsm.supervisor._hearing import set_hearing


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hearer,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker,
    ):
        hearer.bind(("127.0.0.1", 0))
        hearer.setblocking(False)
        speaker.connect(hearer.getsockname())
        yield hearer, speaker


def heard(sock: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(sock.recv(100))
        except BlockingIOError:
            return found


def test_what_comes_while_it_is_deaf_never_arrives(pair: tuple[socket.socket, socket.socket]) -> None:
    hearer, speaker = pair
    set_hearing([hearer.fileno()], True)
    speaker.send(b"before")
    set_hearing([hearer.fileno()], False)
    set_hearing([hearer.fileno()], False)
    speaker.send(b"meanwhile")
    set_hearing([hearer.fileno()], True)
    speaker.send(b"after")
    # On the loopback device a datagram is there when it has been sent.
    assert heard(hearer) == [b"after"]


def test_it_holds_for_copies(pair: tuple[socket.socket, socket.socket]) -> None:
    hearer, speaker = pair
    with hearer.dup() as copy:
        set_hearing([copy.fileno()], False)
        speaker.send(b"meanwhile")
        set_hearing([hearer.fileno()], True)
        speaker.send(b"after")
        assert heard(copy) == [b"after"]

"""The loop: descriptors, timers, and channels whose other end is slow or gone."""

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from wghsm.ipc import Channel, ChannelKind, Role, socket_pair
from wghsm.ipc import messages as m
from wghsm.process import Loop, boottime

MILLISECOND = 1_000_000


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_timers_run_in_order_and_cancelled_ones_do_not(loop: Loop) -> None:
    seen: list[str] = []
    now = boottime()
    loop.call_at(now + 2 * MILLISECOND, lambda: seen.append("second"))
    loop.call_at(now + MILLISECOND, lambda: seen.append("first"))
    cancelled = loop.call_at(now, lambda: seen.append("never"))
    cancelled.cancel()
    loop.call_at(now + 3 * MILLISECOND, loop.stop)
    loop.run()
    assert seen == ["first", "second"]


def test_timers_of_one_moment_run_in_the_order_they_were_made(loop: Loop) -> None:
    seen: list[int] = []
    now = boottime()
    for number in range(20):
        loop.call_at(now, lambda number=number: seen.append(number))  # type: ignore[misc]
    loop.call_at(now, loop.stop)
    loop.run()
    assert seen == list(range(20))


def test_a_timer_can_be_cancelled_by_one_of_the_same_moment(loop: Loop) -> None:
    seen: list[str] = []
    now = boottime()
    loop.call_at(now, lambda: second.cancel())
    second = loop.call_at(now, lambda: seen.append("second"))
    loop.call_at(now, loop.stop)
    loop.run()
    assert not seen


def test_a_deadline_is_never_early(loop: Loop) -> None:
    when = boottime() + 5 * MILLISECOND
    ran: list[int] = []
    loop.call_at(when, lambda: ran.append(boottime()))
    rounds = 0
    while not ran:
        loop.run_once()
        rounds += 1
    assert ran[0] >= when
    assert rounds < 100


def test_readers_come_and_go(loop: Loop) -> None:
    reader, writer = os.pipe()
    seen: list[bytes] = []

    def read() -> None:
        seen.append(os.read(reader, 10))
        loop.remove_reader(reader)
        loop.stop()

    loop.add_reader(reader, read)
    os.write(writer, b"one")
    loop.run()
    os.write(writer, b"two")
    loop.run_once(0)
    assert seen == [b"one"]
    os.close(reader)
    os.close(writer)


def test_a_reader_removed_by_another_in_one_round_does_not_run(loop: Loop) -> None:
    first, second = socket.socketpair(), socket.socketpair()
    seen: list[str] = []

    def take(name: str, other: socket.socket) -> None:
        seen.append(name)
        loop.remove_reader(other)

    loop.add_reader(first[0], lambda: take("first", second[0]))
    loop.add_reader(second[0], lambda: take("second", first[0]))
    for pair in (first, second):
        pair[1].send(b"x")
    loop.run_once(1.0)
    assert len(seen) == 1
    for sock in (*first, *second):
        sock.close()


def test_a_signal_does_not_end_the_wait(loop: Loop) -> None:
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    loop.call_later(20 * MILLISECOND, loop.stop)
    loop.call_later(MILLISECOND, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    loop.run()
    signal.signal(signal.SIGUSR1, before)


def channels() -> tuple[Channel, Channel]:
    first, second = socket_pair()
    kind = ChannelKind.HANDSHAKE_INGRESS
    return Channel(first, kind, Role.HANDSHAKE), Channel(second, kind, Role.INGRESS)


def test_a_channel_s_messages_and_its_end(loop: Loop) -> None:
    handshake, ingress = channels()
    seen: list[object] = []

    def end() -> None:
        seen.append("end")
        loop.stop()

    loop.add_channel(handshake, lambda message, _fds: seen.append(message), end)
    # It goes without having read the other end's Hello.
    for number in range(200):
        ingress.send(m.Installed(number))
    ingress.close()
    loop.run()
    assert seen == [*(m.Installed(number) for number in range(200)), "end"]
    handshake.close()


def test_what_a_slow_reader_does_not_take_is_sent_later(loop: Loop) -> None:
    handshake, ingress = channels()
    sent = 0
    while not ingress.backlog:
        ingress.send(m.Datagram(m.Endpoint("192.0.2.1", 1), sent, bytes(1400)))
        sent += 1
    for _ in range(50):
        ingress.send(m.Datagram(m.Endpoint("192.0.2.1", 1), sent, bytes(1400)))
        sent += 1
    loop.flush(ingress)
    seen: list[int] = []

    def take(message: m.Message, _fds: list[int]) -> None:
        assert isinstance(message, m.Datagram)
        seen.append(message.at)
        if len(seen) == sent:
            loop.stop()

    loop.add_channel(handshake, take, loop.stop)
    loop.run()
    assert seen == list(range(sent))
    assert not ingress.backlog
    handshake.close()
    ingress.close()


def test_a_protocol_error_leaves_the_loop(loop: Loop) -> None:
    first, second = socket_pair()
    kind = ChannelKind.HANDSHAKE_INGRESS
    handshake = Channel(first, kind, Role.HANDSHAKE)
    second.send(b"nonsense")
    loop.add_channel(handshake, lambda _message, _fds: None, loop.stop)
    with pytest.raises(Exception, match="does not allow"):
        loop.run()
    second.close()


def test_an_eager_loop_looks_again_and_still_sleeps_and_keeps_time() -> None:
    loop = Loop()
    loop.eager = 3
    near, far = socket.socketpair()
    seen: list[bytes] = []
    loop.add_reader(near, lambda: seen.append(near.recv(10)))
    far.send(b"one")
    loop.run_once(10)
    far.send(b"two")
    loop.run_once(10)
    loop.run_once(0)
    assert seen == [b"one", b"two"]
    loop.call_later(1_000_000, loop.stop)
    loop.run()
    loop.close()
    near.close()
    far.close()

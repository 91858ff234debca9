"""A child's life as its supervisor sees it: from Start to Shutdown, end of file or a fault."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wghsm.exits import ExitCode
from wghsm.ipc import (
    MAX_PEERS,
    Channel,
    ChannelClosed,
    ChannelKind,
    PeerField,
    Role,
    StatsFile,
    create_stats,
    socket_pair,
)
from wghsm.ipc import messages as m
from wghsm.process.privileges import TERMINAL_SIGNALS

PROGRAM = Path(__file__).with_name("programs.py")
LIMIT = 60


class Started:
    """A child and this end of its channel."""

    def __init__(self, behaviour: str = "serve", *, start: bool = True) -> None:
        own, theirs = socket_pair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, PROGRAM, "child", behaviour, "--channel", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.PIPE,
                text=True,
            )
        self.channel = Channel(own, ChannelKind.SUPERVISOR_INGRESS, Role.SUPERVISOR)
        if start:
            self.channel.send(m.Start("wgt0", 1, 61199, 61199, os.getpid()))

    def next(self) -> m.Message:
        while True:
            item = self.channel.receive()
            if item is not None:
                return item[0]
            assert select.select([self.channel], [], [], LIMIT)[0], "the child says nothing"

    def ends_with(self, code: int) -> str:
        said = self.process.communicate(timeout=LIMIT)[1]
        assert self.process.returncode == code, said
        return said

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def served() -> Iterator[Started]:
    child = Started()
    assert child.next() == m.Ready()
    yield child
    child.close()


def pair_with(child: Started, incarnation: int) -> Channel:
    mine, theirs = socket_pair()
    with theirs:
        child.channel.send(m.Attach(ChannelKind.HANDSHAKE_INGRESS, incarnation), [theirs.fileno()])
    assert child.next() == m.Prepared(incarnation)
    return Channel(mine, ChannelKind.HANDSHAKE_INGRESS, Role.HANDSHAKE)


def test_it_ends_when_it_is_told(served: Started) -> None:
    served.channel.send(m.Shutdown())
    served.ends_with(ExitCode.OK)


def test_it_ends_when_the_supervisor_is_gone(served: Started) -> None:
    served.channel.close()
    served.ends_with(ExitCode.OK)


def test_it_ends_when_the_supervisor_never_began() -> None:
    child = Started(start=False)
    child.channel.close()
    child.ends_with(ExitCode.PROTOCOL)


def test_terminal_signals_are_the_supervisor_s(served: Started) -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        served.process.send_signal(number)
    served.channel.send(m.RoutesCommit(8))
    assert served.next() == m.Applied(8)


def test_terminal_signals_are_not_felt_before_it_ignores_them() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    try:
        child = Started(start=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for number in TERMINAL_SIGNALS:
        child.process.send_signal(number)
    child.channel.send(m.Start("wgt0", 1, 61199, 61199, os.getpid()))
    assert child.next() == m.Ready()
    # Its own children, as one that prints a PIN, do hear them.
    status = Path(f"/proc/{child.process.pid}/status").read_text()
    assert "SigBlk:\t0000000000000000\n" in status
    child.close()


def test_it_answers_when_it_is_asked(served: Started) -> None:
    for _ in range(3):
        served.channel.send(m.Ping())
        assert served.next() == m.Pong()


def test_a_message_without_a_handler_is_fatal(served: Started) -> None:
    served.channel.send(m.Mtu(1400))
    fault = served.next()
    assert isinstance(fault, m.Fault)
    assert fault.exit_code == ExitCode.PROTOCOL
    assert "Mtu" in fault.text
    served.ends_with(ExitCode.PROTOCOL)


def test_a_fault_is_told_in_one_line() -> None:
    child = Started("fault")
    assert child.next() == m.Fault(ExitCode.PIN_REFUSED, "the PIN was refused")
    child.ends_with(ExitCode.PIN_REFUSED)
    child.close()


def test_an_unforeseen_exception_is_told_without_its_text() -> None:
    child = Started("bug")
    fault = child.next()
    assert isinstance(fault, m.Fault)
    assert fault.exit_code == ExitCode.FAILURE
    assert "ValueError at programs.py" in fault.text
    said = child.ends_with(ExitCode.FAILURE)
    assert "hunter2" not in fault.text + said
    child.close()


def test_early_messages_are_waited_for_and_the_statistics_come_on_the_way() -> None:
    child = Started("early")
    fd = create_stats()
    child.channel.send(m.StatsTable(MAX_PEERS), [fd])
    null = os.open("/dev/null", os.O_RDONLY)
    child.channel.send(m.TunDevice(1420), [null])
    os.close(null)
    assert child.next() == m.Applied(1420)
    assert child.next() == m.Ready()
    table = StatsFile(fd, Role.SUPERVISOR)
    os.close(fd)
    table.set(3, PeerField.RX_BYTES, 77)
    child.channel.send(m.LinkState(True))
    assert child.next() == m.Applied(77)
    table.close()
    child.close()


def test_another_early_message_is_a_breach() -> None:
    child = Started("early")
    child.channel.send(m.Mtu(1))
    fault = child.next()
    assert isinstance(fault, m.Fault)
    assert fault.exit_code == ExitCode.PROTOCOL
    child.ends_with(ExitCode.PROTOCOL)
    child.close()


def test_pairs_come_are_replaced_and_go(served: Started) -> None:
    first = pair_with(served, 5)
    first.send(m.ForgetSessions(31))
    assert served.next() == m.Applied(31)
    mine, theirs = socket_pair()
    with theirs:
        served.channel.send(m.Attach(ChannelKind.HANDSHAKE_INGRESS, 6), [theirs.fileno()])
    assert [served.next(), served.next()] == [m.Prepared(0), m.Prepared(6)]
    with pytest.raises(ChannelClosed):
        while select.select([first], [], [], LIMIT)[0]:
            first.receive()
    second = Channel(mine, ChannelKind.HANDSHAKE_INGRESS, Role.HANDSHAKE)
    second.send(m.ForgetSessions(32))
    assert served.next() == m.Applied(32)
    second.close()
    assert served.next() == m.Prepared(0)
    served.channel.send(m.RoutesCommit(9))
    assert served.next() == m.Applied(9)
    first.close()


@pytest.mark.parametrize(("behaviour", "nicer"), [("serve", 0), ("behind", 10)])
def test_who_stands_behind_the_packets_is_nicer(behaviour: str, nicer: int) -> None:
    child = Started(behaviour)
    try:
        assert child.next() == m.Ready()
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, child.process.pid) == own + nicer
    finally:
        child.close()


def test_what_waits_on_a_pair_can_be_handled_out_of_turn(served: Started) -> None:
    pair = pair_with(served, 5)
    for number in (41, 42):
        pair.send(m.ForgetSessions(number))
    served.channel.send(m.TunnelPeers(1, [], []))
    assert [served.next(), served.next()] == [m.Applied(41), m.Applied(42)]
    pair.close()
    assert served.next() == m.Prepared(0)
    served.channel.send(m.TunnelPeers(1, [], []))
    served.channel.send(m.RoutesCommit(9))
    assert served.next() == m.Applied(9)


def test_a_pair_whose_other_end_has_died_already_is_no_reason_to_end(served: Started) -> None:
    mine, theirs = socket_pair()
    mine.close()
    with theirs:
        served.channel.send(m.Attach(ChannelKind.HANDSHAKE_INGRESS, 1), [theirs.fileno()])
    pair_with(served, 2).close()
    served.channel.send(m.Shutdown())
    served.ends_with(ExitCode.OK)

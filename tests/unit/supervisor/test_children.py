"""Which of a child's incarnations is the one that is tried, with real processes that say little."""

import sys
from collections.abc import Iterable, Iterator, Sequence

import pytest

from wghsm.exits import ExitCode
from wghsm.ipc import Role, Seat
from wghsm.ipc import messages as m
from wghsm.process import Loop
from wghsm.supervisor._children import Children, Settings
from wghsm.supervisor.restart import EndGateway, Verdict

# The first one is told to end while it begins, and says nevertheless that it serves; the next one does not work.
CUSTODIAN = """
import select, socket, sys
from wghsm.ipc import Channel, ChannelKind, Role
from wghsm.ipc import messages as m

channel = Channel(socket.socket(fileno=int(sys.argv[-1])), ChannelKind.SUPERVISOR_CUSTODIAN, Role.CUSTODIAN)
while True:
    select.select([channel], [], [])
    for message, _ in channel.messages():
        if isinstance(message, m.Start):
            if message.incarnation > 1:
                channel.send(m.Fault(3, "no such PIN"))
                sys.exit(3)
            channel.send(m.TokenStatus("away", 0, "not yet"))
        if isinstance(message, m.Shutdown):
            channel.send(m.Ready())
            sys.exit(0)
"""


class Owner:
    """Has nothing to tell, and writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def feed(self, _seat: Seat) -> Iterable[tuple[m.Message, Sequence[int]]]:
        return ()

    def received(self, _seat: Seat, message: m.Message) -> None:
        self.heard.append(type(message).__name__)

    def serves(self, _seat: Seat) -> None:
        self.heard.append("serves")

    def left(self, _seat: Seat) -> None:
        self.heard.append("left")

    def fell(self, _seat: Seat, text: str) -> None:
        self.heard.append(text)

    def may_restart(self, _seat: Seat) -> bool:
        return True

    def ended(self, _exit_code: ExitCode, _text: str) -> None:
        self.heard.append("ended")


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_a_child_that_was_told_to_end_is_not_the_one_that_is_tried(loop: Loop) -> None:
    owner = Owner()
    settings = Settings(
        gateway="wgt0",
        entries={Role.CUSTODIAN: (sys.executable, "-c", CUSTODIAN)},
        users={Role.CUSTODIAN: (0, 0)},
        environment=lambda _role: {},
        deadline=lambda _role: None,
        pairs=frozenset(),
    )
    children = Children(loop, settings, owner)
    children.served = True
    children.start([Role.CUSTODIAN])
    verdicts: list[Verdict | None] = []
    try:
        while not owner.heard:
            loop.run_once(5.0)
        children.renew(Role.CUSTODIAN, verdicts.append)
        while not verdicts:
            loop.run_once(5.0)
    finally:
        children.abandon()
    assert verdicts == [EndGateway(ExitCode.PIN_REFUSED, "no such PIN")]
    assert "ended" not in owner.heard

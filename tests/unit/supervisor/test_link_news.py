"""What news about the link lead to, with an interface that is played: told in which order, said how often."""

import errno
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from wghsm.exits import ExitCode
from wghsm.ipc import Role, Seat
from wghsm.ipc import messages as m
from wghsm.supervisor import _link_news
from wghsm.supervisor._link_news import LinkNews
from wghsm.supervisor._links import LinkStatus, Place

if TYPE_CHECKING:
    from wghsm.supervisor._state import State


class Interface:
    """The interface, as TUN descriptor and as netlink see it, and all that the state of a gateway has beside it."""

    def __init__(self) -> None:
        self.there = True
        self.home: LinkStatus | None = LinkStatus(up=True, mtu=1420)
        self.away: LinkStatus | None = None
        self.may_follow = True
        self.is_elsewhere = False
        self.restored = 0
        # What LinkNews takes from the state.
        self.tun = self.links = self.udp = self.model = self
        self.gateway = SimpleNamespace(interface=SimpleNamespace(name="wg0"))
        self.link = LinkStatus(up=True, mtu=1420)
        self.owners: dict[object, bytes] = {}
        self.descriptors: list[int] = []
        self.tunnel = (Role.EGRESS, Role.INGRESS)

    # Tun.
    def exists(self) -> bool:
        return self.there

    def namespace(self) -> int:
        if not self.may_follow:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return os.open("/dev/null", os.O_RDONLY)

    def name(self) -> str:
        return "wg0"

    # Links.
    @property
    def place(self) -> Place:
        return (0, 5) if self.is_elsewhere else (None, 4)

    def look_for(self, _name: str, _namespace: int) -> None:
        self.is_elsewhere = self.home is None

    def status(self) -> LinkStatus | None:
        return self.away if self.is_elsewhere else self.home

    def match_sends(self, _mtu: int) -> None:
        """What the workers can send is no matter here."""

    def restore_routes(self, _prefixes: object) -> None:
        self.restored += 1


class World:
    def __init__(self) -> None:
        self.interface = Interface()
        self.told: list[tuple[Seat, m.Message]] = []
        self.ended: list[tuple[ExitCode, str]] = []
        self.news = LinkNews(
            cast("State", self.interface),
            lambda role, message: self.told.append((role, message)),
            lambda code, text: self.ended.append((code, text)),
        )

    def look(self, *were_down: Place) -> list[tuple[Seat, m.Message]]:
        self.told.clear()
        self.news.look(set(were_down))
        return self.told


@pytest.fixture
def world() -> World:
    return World()


def turned(up: bool) -> list[tuple[Seat, m.Message]]:
    return [(role, m.LinkState(up)) for role in (Role.EGRESS, Role.INGRESS, Role.HANDSHAKE)]


def test_nothing_new_is_told_to_nobody(world: World) -> None:
    assert world.look() == []
    assert world.look((None, 77), (3, 4)) == []
    assert world.ended == []


def test_mtu_down_and_up(world: World) -> None:
    world.interface.home = LinkStatus(up=False, mtu=1300)
    assert world.look() == [(Role.EGRESS, m.Mtu(1300)), (Role.INGRESS, m.Mtu(1300)), *turned(False)]
    assert world.interface.restored == 0
    assert world.look((None, 4)) == []
    world.interface.home = LinkStatus(up=True, mtu=1300)
    assert world.look((None, 4)) == turned(True)
    assert world.interface.restored == 1


def test_down_and_up_again_at_once(world: World) -> None:
    assert world.look((None, 4)) == [*turned(False), *turned(True)]
    assert world.interface.restored == 1


def test_the_sockets_are_deaf_while_it_is_down(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hearer:
        hearer.bind(("127.0.0.1", 0))
        hearer.setblocking(False)
        world.interface.descriptors = [hearer.fileno()]
        for up in (False, True):
            world.interface.home = LinkStatus(up=up, mtu=1420)
            world.look()
            hearer.sendto(b"x", hearer.getsockname())
            assert list(heard(hearer)) == ([b"x"] if up else [])


def heard(sock: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield sock.recv(10)
        except BlockingIOError:
            return


def test_it_is_followed_elsewhere_and_back(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", _link_news.__name__)
    world.interface.home, world.interface.away = None, LinkStatus(up=False, mtu=1420)
    assert world.look((None, 4)) == turned(False)
    world.interface.away = LinkStatus(up=True, mtu=1280)
    assert world.look()[-3:] == turned(True)
    assert world.look() == []
    assert world.look((0, 5)) == [*turned(False), *turned(True)]
    assert caplog.text.count("moved to another network namespace") == 1
    world.interface.home, world.interface.away = LinkStatus(up=True, mtu=1420), None
    world.look()
    assert "is back" in caplog.text


def test_one_that_cannot_be_followed_goes_on_and_is_spoken_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.interface.home, world.interface.may_follow = None, False
    for _ in range(3):
        assert world.look((None, 4)) == []
    assert world.ended == []
    assert caplog.text.count("moved where it cannot be followed (Operation not permitted)") == 1
    world.interface.home, world.interface.may_follow = LinkStatus(up=True, mtu=1420), True
    assert world.look() == []


def test_one_that_is_deleted_ends_the_gateway(world: World) -> None:
    world.interface.there = False
    assert world.look() == []
    assert [code for code, _ in world.ended] == [ExitCode.SYSTEM]
    assert "was deleted from outside" in world.ended[0][1]

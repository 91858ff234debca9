"""Requests to the supervisor, with a child that only notes what is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from wghsm.control._supervisor import Requests
from wghsm.ipc import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.process import Child


class FakeChild:
    home = "supervisor-control"

    def __init__(self) -> None:
        self.handlers: dict[type[m.Message], Callable[[m.Message, list[int]], None]] = {}
        self.said: list[m.Message] = []

    def on(self, _kind: str, message: type[m.Message], handler: Callable[[m.Message, list[int]], None]) -> None:
        self.handlers[message] = handler

    def on_detach(self, _kind: str, _handler: Callable[[], None]) -> None:
        """Nobody leaves."""

    def report(self, message: m.Message) -> None:
        self.said.append(message)


def test_a_status_of_very_many_that_are_not_served_comes_in_parts() -> None:
    child = FakeChild()
    answers: list[m.StatusPart] = []
    Requests(cast("Child", child)).status(answers.append)
    asked = child.said[0]
    assert isinstance(asked, m.StatusGet)
    off = [m.InactivePeer(name, name.encode(), "disabled", 0) for name in "ab"]
    for peer, last in zip(off, (False, True), strict=True):
        assert not answers
        child.handlers[m.StatusPart](m.StatusPart(asked.request, 1, "", [], None, {}, inactive=[peer], last=last), [])
    assert [answer.inactive for answer in answers] == [off]


def test_few_whole_devices_are_asked_for_at_once_and_each_is_answered() -> None:
    child = FakeChild()
    requests = Requests(cast("Child", child))
    answers: list[int] = []
    for number in range(20):
        requests.device(lambda *_, number=number: answers.append(number))
    answered = 0
    while answered < len(child.said):
        assert len(child.said) - answered <= 4
        asked = child.said[answered]
        assert isinstance(asked, m.DeviceGet)
        view = m.DeviceView("wg0", None, 1, 0, True)
        child.handlers[m.DevicePart](m.DevicePart(asked.request, view, [], False), [])
        child.handlers[m.DevicePart](m.DevicePart(asked.request, None, [], True), [])
        answered += 1
    assert answers == list(range(20))

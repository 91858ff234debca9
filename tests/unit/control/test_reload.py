"""Reloads and settings over the admin socket: what the supervisor answers reaches the client as it is."""

import base64
import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from tests.unit.control.test_service import Client, Processes
from wghsm.control._service import Service
from wghsm.ipc import admin
from wghsm.ipc import messages as m
from wghsm.process import Loop

if TYPE_CHECKING:
    from wghsm.control._supervisor import Requests

CONFIG = admin.Config(file="/gw.yaml", loaded={"version": 1}, running={"version": 1}, wrapped={"/a.psk": [(1, "eA==")]})


@dataclass
class Reloading(Processes):
    """A supervisor that answers reloads with `result`."""

    result: m.ReloadResult = field(default_factory=lambda: m.ReloadResult(1, 0, "1 peer added"))

    def reload(
        self, file: str, answer: Callable[[m.ReloadResult], None], who: m.Asker | None = None, *, login: bool = False
    ) -> None:
        self.askers.append(who)
        self.said.append(("reload", (file, login)))
        self.answers.append(lambda: answer(self.result))

    def forget_timestamps(
        self, peers: list[bytes], answer: Callable[[int, str], None], who: m.Asker | None = None
    ) -> None:
        assert who is not None
        self.said.append(("forget", peers))
        self.answers.append(lambda: answer(0, "forgotten"))

    def config(self, answer: Callable[[bytes], None]) -> None:
        self.answers.append(lambda: answer(msgspec.json.encode(CONFIG)))


@pytest.fixture
def processes() -> Reloading:
    """Give a supervisor that says yes."""
    return Reloading()


@pytest.fixture
def ask(processes: Reloading) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Give a way to ask over the admin socket."""
    loop = Loop()
    service = Service(cast("Requests", processes), False)

    def ask(request: str) -> dict[str, Any]:
        client = Client(loop, service.feed_admin)
        client.send(request + "\n")
        processes.run()
        answer: dict[str, Any] = json.loads(client.read())
        return answer

    yield ask
    loop.close()


def test_a_reload(processes: Reloading, ask: Callable[[str], dict[str, Any]]) -> None:
    answer = ask('{"verb": "reload", "file": "/gw.yaml"}')
    assert (answer["errno"], answer["text"], answer["problems"]) == (0, "1 peer added", [])
    assert processes.said == [("reload", ("/gw.yaml", False))]
    ask('{"verb": "reload", "login": true}')
    assert processes.said[1:] == [("reload", ("", True))]


def test_a_reset_of_timestamps(processes: Reloading, ask: Callable[[str], dict[str, Any]]) -> None:
    key = base64.b64encode(bytes(32)).decode()
    answer = ask(f'{{"verb": "reset-timestamp", "peers": ["{key}"]}}')
    assert (answer["errno"], answer["text"]) == (0, "forgotten")
    assert processes.said == [("forget", [bytes(32)])]


def test_a_bad_file(processes: Reloading, ask: Callable[[str], dict[str, Any]]) -> None:
    processes.result = m.ReloadResult(
        1, errno.EINVAL, "bad", [m.Problem("/gw.yaml", 3, "mtu is no number", "write 1420")]
    )
    answer = ask('{"verb": "reload"}')
    assert (answer["errno"], answer["text"]) == (errno.EINVAL, "bad")
    assert answer["problems"] == [
        {"file": "/gw.yaml", "line": 3, "message": "mtu is no number", "remedy": "write 1420"}
    ]


def test_the_settings(ask: Callable[[str], dict[str, Any]]) -> None:
    answer = ask('{"verb": "config"}')
    assert answer["config"] == json.loads(msgspec.json.encode(CONFIG))
